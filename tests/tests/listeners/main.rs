//! `portdemux listeners`: what it says of real programs, and whether packets find what it says.

mod bed;
mod columns;
mod reach;
mod sockets;
mod users;
