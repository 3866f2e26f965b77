//! Which programs have sockets behind a port, for the tables of rules and ports.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use anyhow::Result;
use portdemux_common::wire::Transport;

use crate::{
    maps::{Maps, steering::Member},
    rules::{Destination, PortRange, Role, Rule, destination::SocketName},
    sockets::{self, Holders, Socket},
};

/// The listeners of this network namespace by port, and the names of their processes.
#[derive(Debug, Default)]
pub struct Behind {
    sockets: BTreeMap<(Transport, u16), Vec<Socket>>,
    holders: Holders,
    /// The sockets whose processes were looked for.
    known: HashSet<u64>,
    /// The sockets that rules hand packets to.
    groups: HashMap<SocketName, Vec<Member>>,
}

impl Behind {
    /// It as it is by now; nothing if the kernel lists no sockets.
    pub fn again(&mut self, maps: &Maps) -> Option<&Self> {
        self.groups = maps.steering.members_by_name();
        self.look_again().ok()?;
        Some(self)
    }

    /// Looks again. Processes are searched for only if there are sockets that were not there before, or if
    /// somebody has let go of one.
    ///
    /// # Errors
    ///
    /// The kernel lists no sockets.
    fn look_again(&mut self) -> Result<()> {
        let mut found: BTreeMap<_, Vec<Socket>> = BTreeMap::new();
        let mut inodes = HashSet::new();
        for socket in sockets::listening()? {
            inodes.insert(socket.inode);
            let key = (socket.transport, socket.port);
            found.entry(key).or_default().push(socket);
        }
        let is_known = inodes.is_subset(&self.known);
        if !is_known || !self.holders.still_hold(&inodes) {
            self.holders = Holders::find(&inodes);
            self.known = inodes;
        }
        self.sockets = found;
        Ok(())
    }

    /// The programs that have sockets on some ports at some addresses of this host, or wherever packets of
    /// other hosts can come if none are given: each name once, nothing for processes that are not known.
    #[must_use]
    pub fn names(&self, ports: &[PortRange], addresses: &[IpAddr]) -> Vec<Option<&str>> {
        let mut names = Vec::new();
        for range in ports {
            let keys = (range.transport, range.first)..=(range.transport, range.last);
            for socket in self.sockets.range(keys).flat_map(|(_, sockets)| sockets) {
                let is_meant = if addresses.is_empty() {
                    !socket.is_loopback_only()
                } else {
                    addresses.iter().any(|&address| socket.takes(address))
                };
                if !is_meant {
                    continue;
                }
                self.push(&mut names, socket);
            }
        }
        names
    }

    /// Adds the programs that have a socket.
    fn push<'a>(&'a self, names: &mut Vec<Option<&'a str>>, socket: &Socket) {
        let holders = self.holders.of(socket.inode);
        if holders.is_empty() {
            push(names, None);
        }
        for holder in holders {
            push(names, Some(holder.name.as_str()));
        }
    }

    /// The programs that have the sockets of a name for the protocols of some ports.
    fn members(&self, name: &SocketName, ports: &[PortRange]) -> Vec<Option<&str>> {
        let is_meant = |member: &&Member| {
            let mut protocols = ports.iter().map(|range| range.transport);
            protocols.any(|transport| transport == member.transport)
        };
        let members = self.groups.get(name).into_iter().flatten();
        let cookies: HashSet<u64> = members
            .filter(is_meant)
            .map(|member| member.cookie)
            .collect();
        let mut names = Vec::new();
        if cookies.is_empty() {
            return names;
        }
        for socket in self.sockets.values().flatten() {
            if socket.cookie.is_some_and(|own| cookies.contains(&own)) {
                self.push(&mut names, socket);
            }
        }
        names
    }

    /// The programs behind a rule: those on its ports at its addresses, or whom it hands packets to.
    #[must_use]
    pub fn rule(&self, rule: &Rule) -> Vec<Option<&str>> {
        match rule.role {
            Role::Destination => self.at(&rule.ports, &rule.addresses, &rule.to),
            // The ports are those of peers.
            Role::Source => Vec::new(),
        }
    }

    /// The programs that get what comes for some ports and addresses, as in [`Behind::names`], and is sent
    /// to a destination.
    #[must_use]
    pub fn at(
        &self,
        ports: &[PortRange],
        addresses: &[IpAddr],
        to: &Destination,
    ) -> Vec<Option<&str>> {
        match to {
            Destination::Local | Destination::Drop | Destination::Reject | Destination::Cpus(_) => {
                self.names(ports, addresses)
            }
            Destination::Socket(name) => self.members(name, ports),
            Destination::Interface(_) | Destination::Xsk(_) => Vec::new(),
        }
    }
}

fn push<'a>(names: &mut Vec<Option<&'a str>>, name: Option<&'a str>) {
    if !names.contains(&name) {
        names.push(name);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn sockets_that_come_are_found_with_their_processes() {
        let first = UdpSocket::bind("0.0.0.0:0").unwrap();
        let loopback = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = |socket: &UdpSocket| {
            PortRange::single(Transport::Udp, socket.local_addr().unwrap().port())
        };
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        let own = [Some(own.trim_end())];
        let mut behind = Behind::default();
        behind.look_again().unwrap();
        assert_eq!(behind.names(&[port(&first)], &[]), own);
        assert_eq!(
            behind.names(&[port(&first)], &["192.0.2.1".parse().unwrap()]),
            own
        );
        // Nothing comes to these from elsewhere.
        assert!(behind.names(&[port(&loopback)], &[]).is_empty());
        assert!(
            behind
                .names(&[port(&first)], &["2001:db8::1".parse().unwrap()])
                .is_empty()
        );

        let second = UdpSocket::bind("[::]:0").unwrap();
        assert!(behind.names(&[port(&second)], &[]).is_empty());
        behind.look_again().unwrap();
        assert_eq!(behind.names(&[port(&first), port(&second)], &[]), own);
        let at = ["192.0.2.1".parse().unwrap()];
        assert_eq!(behind.names(&[port(&second)], &at), own);
    }
}
