//! The TCP connection that a process holds, as `/proc` shows it.

use std::net::SocketAddr;

use anyhow::Result;

use super::ancestors::unless_ended;
use crate::sockets::{self, SocketState};

/// Both ends of the first connection that a process has open: here and there.
///
/// A server opens the connection of the person it lets in before any that it forwards for them.
///
/// # Errors
///
/// They cannot be seen: `/proc` cannot be read, or this process may not look into that one.
pub(super) fn connection(process: u32) -> Result<Option<(SocketAddr, SocketAddr)>> {
    let open = unless_ended(sockets::open_in(process), &format!("/proc/{process}/fd"))?;
    let mut open = open.unwrap_or_default();
    if open.is_empty() {
        return Ok(None);
    }
    open.sort_unstable();
    // It may be in another network namespace, which only its tables show.
    let all = sockets::of_process(process)?;
    Ok(open.into_iter().find_map(|(_, inode)| {
        let mut all = all.iter();
        let socket =
            all.find(|socket| socket.inode == inode && socket.state == SocketState::Connected)?;
        let local = SocketAddr::new(*socket.addresses.first()?, socket.port);
        Some((local, socket.peer))
    }))
}
