//! Groups of sockets and their members.

use std::{
    collections::HashMap,
    io::ErrorKind,
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::atomic::Ordering,
};

use anyhow::{Context as _, Result, bail};
use portdemux_common::{
    capacity::{GROUP_NAME_LENGTH, MAX_GROUPS, MEMBER_SLOTS},
    parse::Version,
    sockets::{Group, Steering as Layout, index as map_index},
    wire::Transport,
};

use crate::{
    error::Help as _,
    maps::{
        steering::{Steering, group_offset},
        text,
    },
    rules::destination::{ListenAddress, SocketName},
    sockets::{Family, words},
    syscalls,
};

/// What a group is called.
pub type GroupName = SocketName;

/// The protocols whose sockets can be members.
const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// A socket of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its protocol.
    pub transport: Transport,
    /// Which of the group's it is.
    pub slot: u32,
    /// Packets of which versions are handed to it.
    pub family: Family,
    /// The kernel's number for it, which no other socket ever has.
    pub cookie: u64,
}

impl Steering {
    /// The groups there are.
    #[must_use]
    pub fn groups(&self) -> Vec<(u32, GroupName)> {
        let all = 0..self.groups_end();
        all.filter_map(|index| Some((index, name(&self.group(index))?)))
            .collect()
    }

    /// The group of a name, if there is one.
    #[must_use]
    pub fn find(&self, wanted: &GroupName) -> Option<u32> {
        let groups = self.groups().into_iter();
        groups
            .filter(|(_, name)| name == wanted)
            .map(|(index, _)| index)
            .next()
    }

    /// The group of a name, after making it if there is none; `command` is the instance's.
    ///
    /// # Errors
    ///
    /// There are too many.
    pub(crate) fn enter(&self, command: &str, wanted: &GroupName) -> Result<u32> {
        if let Some(index) = self.find(wanted) {
            return Ok(index);
        }
        let mut all = (0..).take(MAX_GROUPS);
        let index = all
            .find(|&index| self.group(index).key == 0)
            .with_context(|| format!("{MAX_GROUPS} different sockets are in use already"))
            .help(|| {
                format!("remove rules or names that are not needed: {command} socket list; nothing was changed")
            })?;
        self.clear(index);
        let group = group(wanted);
        let key_at = offset_of!(Group, key);
        let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(&group));
        // The key last: from then on the programs see it.
        for (at, &word) in (0..).step_by(8).zip(words).filter(|&(at, _)| at != key_at) {
            self.memory.write(group_offset(index) + at, &[word]);
        }
        let key = self.memory.word(group_offset(index) + key_at);
        key.store(group.key, Ordering::Release);
        self.set_groups_end(self.groups_end().max(index + 1));
        Ok(index)
    }

    /// Takes a group away: no rule may name it.
    pub(crate) fn forget(&self, index: u32) {
        let key = self
            .memory
            .word(group_offset(index) + offset_of!(Group, key));
        key.store(0, Ordering::Release);
        self.clear(index);
        let end = self.groups_end();
        let is_taken = |&index: &u32| self.group(index).key != 0;
        let last = (0..end).rev().find(is_taken);
        self.set_groups_end(last.map_or(0, |last| last + 1));
    }

    /// Takes all members out of a group.
    fn clear(&self, index: u32) {
        for transport in TRANSPORTS {
            for slot in slots() {
                self.take_out(index, transport, slot);
            }
        }
    }

    /// Says which group a destination is, if it is one.
    pub(crate) fn assign(&self, destination: u32, group: Option<u32>) {
        let at = offset_of!(Layout, groups_of) + destination as usize * size_of::<u16>();
        let word = self.memory.word(at / 8 * 8);
        let number = group.map_or(0, |group| u16::try_from(group + 1).unwrap_or(0));
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let mut four: [u16; 4] = bytemuck::cast(word);
            four[at / 2 % 4] = number;
            Some(bytemuck::cast(four))
        });
    }

    /// The members of a group that are there.
    #[must_use]
    pub fn members(&self, index: u32) -> Vec<Member> {
        let mut members = Vec::new();
        for transport in TRANSPORTS {
            let [v4, v6] = self.given(index, transport);
            for slot in slots() {
                // Slots that were never given to anybody are many, and asking for each is a system call.
                let family = match (v4 >> slot & 1, v6 >> slot & 1) {
                    (0, 0) => continue,
                    (_, 0) => Family::V4,
                    (0, _) => Family::V6,
                    _ => Family::Both,
                };
                let at = map_index(index, transport, slot);
                if let Some(cookie) = syscalls::socket_cookie(&self.sockets, at) {
                    members.push(Member {
                        transport,
                        slot,
                        family,
                        cookie,
                    });
                }
            }
        }
        members
    }

    /// The members that are there of every group, by what rules call it.
    #[must_use]
    pub fn members_by_name(&self) -> HashMap<GroupName, Vec<Member>> {
        let groups = self.groups().into_iter();
        groups
            .map(|(index, name)| (name, self.members(index)))
            .collect()
    }

    /// Makes a socket a member of a group, if it is none yet. Says whether it was none.
    ///
    /// # Errors
    ///
    /// The group is full, or the kernel does not take the socket.
    pub fn add(
        &self,
        index: u32,
        transport: Transport,
        family: Family,
        cookie: u64,
        socket: impl AsFd,
    ) -> Result<bool> {
        for slot in slots() {
            let at = map_index(index, transport, slot);
            match syscalls::socket_cookie(&self.sockets, at) {
                Some(there) if there == cookie => {
                    // Whoever put it there may have been stopped before the next step.
                    self.give(index, transport, family, slot);
                    return Ok(false);
                }
                Some(_) => {}
                None => match syscalls::put_socket(&self.sockets, at, &socket) {
                    Ok(()) => {
                        self.give(index, transport, family, slot);
                        return Ok(true);
                    }
                    // One that began to listen has come first.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error).context("hand the socket to the kernel"),
                },
            }
        }
        bail!(
            "at most {MEMBER_SLOTS} {} sockets share what comes",
            transport.name()
        )
    }

    /// Takes a member out of a group. What it has is its own to the end; nothing new comes to it.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn remove(&self, index: u32, member: &Member) -> Result<()> {
        let at = map_index(index, member.transport, member.slot);
        // Another may have taken its place, if it was closed.
        if syscalls::socket_cookie(&self.sockets, at) == Some(member.cookie) {
            syscalls::take_socket(&self.sockets, at).context("take the socket from the kernel")?;
        }
        Ok(())
    }

    fn take_out(&self, index: u32, transport: Transport, slot: u32) {
        let [v4, v6] = self.given(index, transport);
        if (v4 | v6) >> slot & 1 != 0 {
            let _ = syscalls::take_socket(&self.sockets, map_index(index, transport, slot));
        }
        for version in [Version::V4, Version::V6] {
            let members = self.memory.word(members_offset(index, transport, version));
            members.fetch_and(!(1 << slot), Ordering::AcqRel);
        }
    }

    /// Notes that a slot was given to a socket.
    fn give(&self, index: u32, transport: Transport, family: Family, slot: u32) {
        for version in [Version::V4, Version::V6] {
            let members = self.memory.word(members_offset(index, transport, version));
            if family.takes(version) {
                members.fetch_or(1 << slot, Ordering::AcqRel);
            } else {
                members.fetch_and(!(1 << slot), Ordering::AcqRel);
            }
        }
    }

    /// The slots that were given to a socket of a protocol: those for packets of IPv4, and of IPv6.
    fn given(&self, index: u32, transport: Transport) -> [u64; 2] {
        [Version::V4, Version::V6].map(|version| {
            let members = self.memory.word(members_offset(index, transport, version));
            members.load(Ordering::Acquire)
        })
    }
}

fn slots() -> impl DoubleEndedIterator<Item = u32> {
    0..u32::try_from(MEMBER_SLOTS).unwrap_or_default()
}

fn members_offset(index: u32, transport: Transport, version: Version) -> usize {
    let transport = usize::from(transport == Transport::Udp);
    let version = usize::from(version == Version::V6);
    group_offset(index) + offset_of!(Group, members) + (2 * transport + version) * size_of::<u64>()
}

/// A group without members.
fn group(name: &GroupName) -> Group {
    let mut group: Group = bytemuck::Zeroable::zeroed();
    match name {
        SocketName::Address(ListenAddress::Localhost(port)) => {
            group.key = Group::on_localhost(port.to_be_bytes());
        }
        SocketName::Address(ListenAddress::One(address)) => {
            group.address = words(address.ip());
            let version = match address {
                SocketAddr::V4(_) => Version::V4,
                SocketAddr::V6(_) => Version::V6,
            };
            group.key = Group::listening(version, address.port().to_be_bytes());
        }
        SocketName::Name(name) => {
            group.key = Group::NAMED;
            for (to, from) in group.name.iter_mut().zip(name.bytes()) {
                *to = from;
            }
        }
    }
    group
}

/// What a group is called, if it is one.
fn name(group: &Group) -> Option<GroupName> {
    const _: () = assert!(GROUP_NAME_LENGTH >= crate::rules::destination::MAX_DESTINATION_NAME);
    match group.key {
        0 => None,
        Group::NAMED => Some(SocketName::Name(text(&group.name))),
        key => {
            let [a, b, version, ..] = key.to_le_bytes();
            let port = u16::from_le_bytes([a, b]);
            if u64::from(version) == Group::LOCALHOST {
                return Some(SocketName::Address(ListenAddress::Localhost(port)));
            }
            let octets: [u8; 16] = bytemuck::cast(group.address);
            let address = if version == Version::V4 as u8 {
                let [a, b, c, d, ..] = octets;
                IpAddr::V4(Ipv4Addr::from([a, b, c, d]))
            } else {
                IpAddr::V6(Ipv6Addr::from(octets))
            };
            let address = SocketAddr::new(address, port);
            Some(SocketName::Address(ListenAddress::One(address)))
        }
    }
}
