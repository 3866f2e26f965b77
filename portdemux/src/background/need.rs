//! What of a ruleset takes a process that looks.

use portdemux_common::wire::Transport;

use crate::{
    dataplane::steering::{self, Followed},
    instance::Instance,
    rules::{
        Destination, Ruleset,
        destination::{ListenAddress, SocketName},
    },
};

/// What the rules in force name that comes back without the kernel saying so to its programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Addresses, and the protocols whose sockets at them are to be found again.
    pub(crate) sockets: Vec<(ListenAddress, Vec<Transport>)>,
    /// Whether there are interfaces that packets are sent out of.
    pub(crate) interfaces: bool,
    /// Whether socket lookups have to know by which interfaces packets come that were decided about.
    pub(crate) guarded: bool,
}

impl Need {
    /// That of a ruleset in force.
    #[must_use]
    pub fn of(instance: &Instance, ruleset: &Ruleset) -> Self {
        Self::with(
            ruleset,
            steering::followed(&instance.paths),
            instance.maps.is_attached(),
        )
    }

    fn with(ruleset: &Ruleset, followed: Followed, is_attached: bool) -> Self {
        let mut need = Self::default();
        for rule in ruleset.rules() {
            match &rule.to {
                Destination::Interface(_) => need.interfaces = true,
                Destination::Socket(name) => {
                    need.guarded = is_attached;
                    let SocketName::Address(address) = name else {
                        continue;
                    };
                    let is_needed = |transport: &Transport| match transport {
                        Transport::Tcp => followed == Followed::No,
                        Transport::Udp => true,
                        Transport::Sctp => false,
                    };
                    let transports = rule.ports.iter().map(|range| range.transport);
                    let mut transports: Vec<Transport> = transports.filter(is_needed).collect();
                    transports.sort_unstable();
                    transports.dedup();
                    if !transports.is_empty() {
                        need.sockets.push((*address, transports));
                    }
                }
                Destination::Local
                | Destination::Drop
                | Destination::Reject
                | Destination::Cpus(_)
                | Destination::Xsk(_) => {}
            }
        }
        need
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there are sockets to be found again.
    #[must_use]
    pub const fn finds_sockets(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// What does not happen while nobody looks, if there is a need.
    #[must_use]
    pub fn lack(&self) -> Option<&'static str> {
        match (self.sockets.is_empty(), self.interfaces, self.guarded) {
            (false, false, _) => Some(
                "nothing finds the sockets of rules again when their processes are started anew",
            ),
            (true, true, _) => {
                Some("nothing gives packets back to interfaces of rules that are made anew")
            }
            (false, true, _) => Some(
                "nothing finds the sockets and interfaces of rules again that are gone for a while",
            ),
            (true, false, true) => Some(
                "packets for sockets that come by VLANs made from here on are decided about twice",
            ),
            (true, false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::file;

    fn need(to: &str, ports: &str, followed: Followed, is_attached: bool) -> Need {
        let text = format!("[[rule]]\nname = \"web\"\nport = [{ports}]\nto = \"{to}\"\n");
        Need::with(
            &file::parse("rules.toml", &text).unwrap(),
            followed,
            is_attached,
        )
    }

    #[test]
    fn only_what_the_kernel_does_not_tell_its_programs_takes_a_process() {
        const TCP: &str = "\"80/tcp\"";
        const BOTH: &str = "\"80/tcp\", \"80/udp\", \"81-90/udp\"";
        let address = "127.0.0.1:8080".parse().unwrap();
        let sockets = |transports: &[Transport]| vec![(address, transports.to_vec())];
        let to = "socket:127.0.0.1:8080";
        let (tcp, udp) = (Transport::Tcp, Transport::Udp);
        for (to, ports, followed, found) in [
            ("local", BOTH, Followed::No, vec![]),
            ("socket:web", BOTH, Followed::No, vec![]),
            (to, TCP, Followed::ByKernel, vec![]),
            (to, TCP, Followed::No, sockets(&[tcp])),
            (to, BOTH, Followed::ByKernel, sockets(&[udp])),
            (to, BOTH, Followed::No, sockets(&[tcp, udp])),
        ] {
            let is_lookup = to != "local";
            for is_attached in [false, true] {
                let need = need(to, ports, followed, is_attached);
                assert_eq!(need.sockets, found, "{to} {ports}");
                assert_eq!(need.guarded, is_lookup && is_attached);
                assert_eq!(need.is_none(), need.lack().is_none());
            }
        }
        let need = need("interface:veth0", TCP, Followed::ByKernel, true);
        assert!(need.interfaces && !need.guarded && need.sockets.is_empty());
    }
}
