//! Instances that another version made, read and taken over.

mod bed;
mod killed;
mod read;
mod sockets;
mod traffic;
mod waiting;
