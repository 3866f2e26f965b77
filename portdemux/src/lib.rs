//! The control plane of portdemux: rules files, the maps the kernel reads, counters and reports.
#![deny(unsafe_code)]

pub mod attached;
mod background;
mod bounded;
pub mod capabilities;
pub mod capture;
pub mod change;
pub mod cli;
pub mod clock;
pub mod dataplane;
mod durable;
pub mod error;
pub mod explain;
mod figures;
pub mod flows;
pub mod follower;
pub mod host;
pub mod image;
pub mod instance;
pub mod interface;
pub mod listeners;
pub mod lockout;
pub mod members;
pub mod memory;
mod netlink;
mod presence;
pub mod records;
pub mod recover;
pub mod rules;
mod service;
pub mod session;
pub mod snapshot;
pub mod sockets;
pub mod unconfirmed;
pub mod upgrade;
