//! What the tests of portdemux are built from.

pub mod answer;
pub mod frames;
pub mod generate;
pub mod reference;
pub mod rows;
