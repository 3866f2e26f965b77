//! The portdemux command.

fn main() {}
