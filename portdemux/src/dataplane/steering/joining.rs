//! Sockets that listen where rules say become members.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use anyhow::Result;
use portdemux_common::wire::Transport;

use crate::{
    maps::steering::Steering,
    rules::destination::ListenAddress,
    sockets::{
        Family, Holders, Socket, listening,
        take::{TakenSocket, from_process},
    },
};

/// What came of looking for sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// How many are there.
    pub found: usize,
    /// How many of them were no members before.
    pub new: usize,
}

/// Takes all sockets that listen at an address, or else at every one, and makes them members of a group.
///
/// # Errors
///
/// The sockets cannot be listed, or none of those that are there can be taken.
pub fn all_at(steering: &Steering, group: u32, address: ListenAddress) -> Result<Looked> {
    let candidates = candidates(&listening()?, address);
    let inodes = candidates.iter().map(|(socket, _)| socket.inode);
    let inodes: HashSet<u64> = inodes.collect();
    let members: HashSet<u64> = steering
        .members(group)
        .iter()
        .map(|one| one.cookie)
        .collect();
    let mut looked = Looked::default();
    if inodes.is_empty() {
        return Ok(looked);
    }
    let is_member = |socket: &Socket| socket.cookie.is_some_and(|one| members.contains(&one));
    let holders = Holders::find(&inodes);
    let mut failure = None;
    for (socket, family) in candidates {
        if is_member(&socket) {
            looked.found += 1;
            continue;
        }
        match take(&holders, &socket) {
            Ok(Some(taken)) => {
                looked.found += 1;
                let family = match address {
                    ListenAddress::One(SocketAddr::V6(_)) => taken.family,
                    ListenAddress::One(SocketAddr::V4(_)) | ListenAddress::Localhost(_) => family,
                };
                match steering.add(group, taken.transport, family, taken.cookie, &taken.socket) {
                    Ok(is_new) => looked.new += usize::from(is_new),
                    Err(error) => failure = Some(error),
                }
            }
            // It was closed meanwhile.
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if looked.found == 0 => Err(error),
        Some(_) | None => Ok(looked),
    }
}

/// Whether a socket listens at an address that is no member of a group.
///
/// # Errors
///
/// The sockets cannot be listed.
pub fn is_any_new(steering: &Steering, group: u32, address: ListenAddress) -> Result<bool> {
    let candidates = candidates(&listening()?, address);
    if candidates.is_empty() {
        return Ok(false);
    }
    let members = steering.members(group);
    let is_member = |(socket, _): &(Socket, Family)| {
        let mut members = members.iter();
        socket
            .cookie
            .is_some_and(|cookie| members.any(|member| member.cookie == cookie))
    };
    Ok(!candidates.iter().all(is_member))
}

/// The sockets that listen where a rule says, and for packets of which versions they do so there.
fn candidates(all: &[Socket], at: ListenAddress) -> Vec<(Socket, Family)> {
    let mut found: Vec<(Socket, Family)> = Vec::new();
    for address in at.each() {
        let family = if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        for socket in listening_at(all, address) {
            match found.iter_mut().find(|(known, _)| *known == socket) {
                Some((_, of_both)) => *of_both = Family::Both,
                None => found.push((socket, family)),
            }
        }
    }
    found
}

/// The sockets that listen at an address: of each protocol those bound to it, or else to every address.
fn listening_at(all: &[Socket], address: SocketAddr) -> Vec<Socket> {
    let mut found: HashMap<(Transport, bool), Vec<Socket>> = HashMap::new();
    for socket in all {
        let is_of_use = socket.transport != Transport::Sctp && socket.port == address.port();
        if is_of_use && socket.takes(address.ip()) {
            let is_exact = socket.addresses.contains(&address.ip());
            let kind = (socket.transport, is_exact);
            found.entry(kind).or_default().push(socket.clone());
        }
    }
    let best = |transport| {
        let exact = found.get(&(transport, true));
        exact.or_else(|| found.get(&(transport, false)))
    };
    let all = [best(Transport::Tcp), best(Transport::Udp)];
    all.into_iter().flatten().flatten().cloned().collect()
}

/// Takes a socket from whoever has it.
fn take(holders: &Holders, socket: &Socket) -> Result<Option<TakenSocket>> {
    let mut failure = None;
    for holder in holders.of(socket.inode) {
        match from_process(holder.pid, holder.descriptor) {
            Ok(taken) => return Ok(Some(taken)),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(None), Err)
}
