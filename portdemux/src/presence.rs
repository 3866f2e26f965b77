//! Which of the destinations that rules name are there.

use std::{collections::HashMap, net::IpAddr};

use anyhow::Result;
use portdemux_common::{
    decide::Metadata,
    destination,
    entry::{Action, Entry},
    parse::Version,
    wire::Transport,
};

use crate::{
    explain::ip_address,
    image::Compiled,
    maps::{
        Maps,
        destinations::{self, Reachability},
        steering::Member,
    },
    recover,
    rules::{Destination, destination::SocketName},
    sockets::Socket,
};

/// What there is of the destinations that rules name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present {
    /// The sockets.
    pub(crate) sockets: HashMap<SocketName, Vec<Member>>,
    /// The interfaces that are not there.
    pub(crate) missing: Vec<Destination>,
}

impl Present {
    /// What there is by now.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub(crate) fn look(maps: &Maps) -> Result<Self> {
        let states = destinations::states(maps)?.into_iter();
        let missing = states.filter(|reached| reached.state != Reachability::Ready);
        Ok(Self {
            missing: missing.map(|reached| reached.destination).collect(),
            ..Self::of_sockets(maps)
        })
    }

    /// Which sockets there are by now, and of nothing else whether it is missing.
    pub(crate) fn of_sockets(maps: &Maps) -> Self {
        Self {
            sockets: maps.steering.members_by_name(),
            missing: Vec::new(),
        }
    }

    /// Whether the destination of an entry is there for a packet, as the maps have it that the program asks; true where that
    /// cannot be seen, as of an AF_XDP socket, which the kernel tells nobody but programs.
    pub(crate) fn takes(
        &self,
        maps: &Maps,
        ruleset: &Compiled,
        entry: Entry,
        metadata: &Metadata,
    ) -> bool {
        let Some(target) = ruleset.targets.get(entry.rule() as usize) else {
            return true;
        };
        match entry.action() {
            Action::Interface => maps
                .targets
                .device(target.first)
                .map_or(true, |device| device.is_some()),
            Action::Cpu => {
                let seed = ruleset.header.limits_seed;
                let slot = target.first + destination::spread(metadata, seed, target.count);
                let cpu = ruleset.cpus.get(slot as usize).copied();
                cpu.is_none_or(|cpu| {
                    maps.targets
                        .queue(cpu)
                        .map_or(true, |queue| queue.is_some())
                })
            }
            Action::Socket => metadata.transport().is_none_or(|transport| {
                let to = recover::destination(ruleset, entry);
                let address = ip_address(metadata.destination_address());
                self.has(&to, address, transport)
            }),
            Action::Local | Action::Drop | Action::Reject | Action::Xsk => true,
        }
    }

    /// Whether packets for an address of this host get to a destination.
    ///
    /// Of AF_XDP sockets that differs by the queue that a packet comes by.
    pub(crate) fn has(&self, to: &Destination, address: IpAddr, transport: Transport) -> bool {
        let Destination::Socket(name) = to else {
            return !self.missing.contains(to);
        };
        let version = match address {
            IpAddr::V4(_) => Version::V4,
            IpAddr::V6(_) => Version::V6,
        };
        let mut members = self.sockets.get(name).into_iter().flatten();
        members.any(|member| member.transport == transport && member.family.takes(version))
    }

    /// Whether a socket is one of those of a name.
    pub(crate) fn is_member(&self, socket: &Socket, name: &SocketName) -> bool {
        let mut members = self.sockets.get(name).into_iter().flatten();
        members.any(|member| socket.cookie == Some(member.cookie))
    }
}
