//! Connections and datagrams are handed to sockets that listen elsewhere: with real programs, on loopback
//! and through XDP.

mod bed;
mod followed;
mod killed;
mod missing;
mod mistakes;
mod named;
mod policy;
mod ports;
mod remote;
