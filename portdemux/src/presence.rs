//! Which of the destinations that rules name are there.

use std::{collections::HashMap, net::IpAddr};

use anyhow::Result;
use portdemux_common::{parse::Version, wire::Transport};

use crate::{
    dataplane::{
        destinations::{self, State},
        maps::Maps,
        steering::Member,
    },
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
        let missing = states.filter(|reached| reached.state != State::Ready);
        Ok(Self {
            sockets: maps.steering.members_by_name(),
            missing: missing.map(|reached| reached.destination).collect(),
        })
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
