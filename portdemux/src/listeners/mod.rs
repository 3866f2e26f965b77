//! What waits behind ports: sockets, the processes that have them, and how the rules reach them.

mod behind;
mod judge;
mod reach;
mod users;

use std::collections::HashSet;

use anyhow::Result;
pub use behind::Behind;
pub use judge::Judge;
pub use reach::{Part, Reach};
pub use users::Users;

use crate::{
    interface,
    rules::PortRange,
    sockets::{self, Holder, Holders, Socket},
};

/// A socket that waits for what peers begin, and the processes that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The socket.
    pub socket: Socket,
    /// The name of the interface that it is bound to, if it is.
    pub device: Option<String>,
    /// The processes that have it open, as far as they can be seen.
    pub holders: Vec<Holder>,
}

/// The listeners of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Each of them, by port, then by address.
    pub all: Vec<Listener>,
    /// Whether every process that can be seen could be asked for its sockets.
    pub is_complete: bool,
}

impl Listeners {
    /// Looks for the listeners on some ports; on all if none are given.
    ///
    /// # Errors
    ///
    /// The kernel lists no sockets.
    pub fn find(ports: &[PortRange]) -> Result<Self> {
        let mut sockets = sockets::listening()?;
        let is_meant = |socket: &Socket| {
            let mut ports = ports.iter();
            ports.any(|range| range.holds(socket.transport, socket.port))
        };
        sockets.retain(|socket| ports.is_empty() || is_meant(socket));
        sockets.sort_by_cached_key(|socket| {
            (
                socket.port,
                socket.transport,
                socket.addresses.clone(),
                socket.inode,
            )
        });
        let inodes: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
        let holders = Holders::find(&inodes);
        let interfaces = if sockets.iter().any(|socket| socket.device.is_some()) {
            interface::list().unwrap_or_default()
        } else {
            Vec::new()
        };
        let name = |index: u32| {
            let mut interfaces = interfaces.iter();
            let found = interfaces.find(|interface| interface.index == index);
            found.map_or_else(|| index.to_string(), |interface| interface.name.clone())
        };
        let all = sockets.into_iter().map(|socket| Listener {
            device: socket.device.map(name),
            holders: holders.of(socket.inode).to_vec(),
            socket,
        });
        Ok(Self {
            all: all.collect(),
            is_complete: holders.is_complete,
        })
    }
}
