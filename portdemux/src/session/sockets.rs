//! The TCP connection that a process holds, as `/proc` shows it.

use std::net::SocketAddr;

use crate::sockets::{self, State};

/// Both ends of the first connection that a process has open: here and there.
///
/// A server opens the connection of the person it lets in before any that it forwards for them.
pub(super) fn connection(process: u32) -> Option<(SocketAddr, SocketAddr)> {
    let mut open = sockets::open_in(process).ok()?;
    if open.is_empty() {
        return None;
    }
    open.sort_unstable();
    // It may be in another network namespace, which only its tables show.
    let all = sockets::of_process(process);
    open.into_iter().find_map(|(_, inode)| {
        let mut all = all.iter();
        let socket =
            all.find(|socket| socket.inode == inode && socket.state == State::Connected)?;
        let local = SocketAddr::new(*socket.addresses.first()?, socket.port);
        Some((local, socket.peer))
    })
}
