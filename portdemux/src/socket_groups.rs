//! The sockets that rules hand packets to, as people ask about them.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use portdemux_common::wire::Transport;

use crate::{
    interface,
    maps::{
        Maps,
        steering::{GroupName, Member},
    },
    sockets::{Holder, Holders, Socket, listening},
};

/// A group of sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketGroup {
    /// What rules call it.
    pub name: GroupName,
    /// The sockets that are there.
    pub members: Vec<MemberSocket>,
}

/// A socket of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSocket {
    /// Which member it is.
    pub member: Member,
    /// What it is bound to, if this process can see it.
    pub address: Option<SocketAddr>,
    /// The process that has it, if this process can see it.
    pub holder: Option<Holder>,
}

/// All groups, with their members.
///
/// Of members in another network namespace only that they are there is known.
#[must_use]
pub fn all(maps: &Maps) -> Vec<SocketGroup> {
    let steering = &maps.steering;
    let groups: Vec<(GroupName, Vec<Member>)> = steering
        .groups()
        .into_iter()
        .map(|(group, name)| (name, steering.members(group)))
        .collect();
    let is_here = interface::namespace().is_ok_and(|here| steering.netns().1 == here);
    let is_any = groups.iter().any(|(_, members)| !members.is_empty());
    let sockets: HashMap<u64, Socket> = if is_here && is_any {
        let sockets = listening().unwrap_or_default().into_iter();
        sockets
            .filter_map(|socket| Some((socket.cookie?, socket)))
            .collect()
    } else {
        HashMap::new()
    };
    let members = groups.iter().flat_map(|(_, members)| members);
    let inodes: HashSet<u64> = members
        .filter_map(|member| Some(sockets.get(&member.cookie)?.inode))
        .collect();
    let holders = Holders::find(&inodes);
    let seen = |member: Member| {
        let socket = sockets.get(&member.cookie);
        MemberSocket {
            member,
            address: socket.and_then(|socket| {
                let address = socket.addresses.first()?;
                Some(SocketAddr::new(*address, socket.port))
            }),
            holder: socket.and_then(|socket| holders.of(socket.inode).first().cloned()),
        }
    };
    let groups = groups.into_iter().map(|(name, members)| SocketGroup {
        name,
        members: members.into_iter().map(seen).collect(),
    });
    groups.collect()
}

impl SocketGroup {
    /// Who is there, in a few words: none, the processes, or how many sockets if it cannot be seen whose.
    #[must_use]
    pub fn who(&self, transports: &[Transport]) -> String {
        let members = self.members.iter();
        let members: Vec<&MemberSocket> = members
            .filter(|socket| transports.contains(&socket.member.transport))
            .collect();
        if members.is_empty() {
            return "none".into();
        }
        let mut names: Vec<String> = members
            .iter()
            .filter_map(|socket| socket.holder.as_ref())
            .map(|holder| format!("{} {}", holder.name, holder.pid))
            .collect();
        names.dedup();
        match (names.as_slice(), members.len()) {
            ([], 1) => "1 socket".into(),
            ([], count) => format!("{count} sockets"),
            ([name], _) => name.clone(),
            ([name, others @ ..], _) => format!("{name} and {} more", others.len()),
        }
    }
}
