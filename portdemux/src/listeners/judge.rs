//! Says how the rules in force reach a socket, by the code and the bytes that the kernel decides by.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Result;
use portdemux_common::{
    entry::{Action, Entry},
    ids::RuleId,
    policy::Policy,
    reason::Verdict,
    ruleset::RulesetImage,
    wire::{Port, Transport},
};

use super::reach::{Part, Reach};
use crate::{
    attached::{self, AttachState},
    clock::Clock,
    explain::packet,
    host,
    image::Compiled,
    instance::Instance,
    interface::{Watched, watched},
    presence::Present,
    recover,
    rules::{Destination, Layer, PortRange, Ruleset, destination::SocketName},
    sockets::Socket,
};

/// A rule that hands packets to sockets that may be bound elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SocketRule {
    rule: String,
    /// The ports that packets are sent to.
    ports: Vec<PortRange>,
    to: SocketName,
}

/// Says how rules reach sockets.
pub struct Judge {
    ruleset: Compiled,
    names: HashMap<RuleId, String>,
    steering: Vec<SocketRule>,
    present: Present,
    watched: Watched,
    /// The claims of peers' ports of each protocol, one for each rule.
    by_peers_port: [BTreeMap<RuleId, Entry>; Transport::COUNT],
    /// Which lists of sources hold anybody and everybody of IPv4 and IPv6, by list: they may be long.
    lists: RefCell<HashMap<u16, [Share; 2]>>,
}

/// How much of a family a list of sources holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Share {
    #[default]
    None,
    Some,
    All,
}

impl Judge {
    /// By the rules in force, on the interfaces of this network namespace that the instance is attached to.
    ///
    /// # Errors
    ///
    /// The kernel does not list interfaces or addresses.
    pub fn new(instance: &Instance, rules: Option<&Ruleset>) -> Result<Self> {
        let attached = attached::interfaces(instance)?.into_iter();
        let attached = attached.filter(|interface| interface.state == AttachState::Attached);
        let watched = watched(&attached.map(|interface| interface.index).collect())?;
        let ruleset = instance.maps.compiled();
        let names = instance.maps.rule_names(&ruleset);
        let present = Present::look(&instance.maps)?;
        Ok(Self::of(ruleset, names, rules, present, watched))
    }

    pub(super) fn of(
        ruleset: Compiled,
        names: HashMap<RuleId, String>,
        rules: Option<&Ruleset>,
        present: Present,
        watched: Watched,
    ) -> Self {
        Self {
            by_peers_port: Transport::ALL.map(|transport| claims_of_peers(&ruleset, transport)),
            ruleset,
            names,
            steering: rules.map(SocketRule::of).unwrap_or_default(),
            present,
            watched,
            lists: RefCell::default(),
        }
    }

    /// The generation of the rules.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.ruleset.header.generation
    }

    /// How the rules reach a socket; several parts where that differs: what it is handed by
    /// rules, then by address; then what comes past the rules.
    #[must_use]
    pub fn judge(&self, socket: &Socket) -> Vec<Part> {
        let mut parts = DistinctParts::default();
        let transport = socket.transport;
        for steering in &self.steering {
            let mut handed = steering.ports.clone();
            handed.retain(|range| range.transport == transport);
            if !handed.is_empty() && self.present.is_member(socket, &steering.to) {
                let rule = steering.rule.clone();
                parts.add(
                    Reach::Socket {
                        rule,
                        ports: handed,
                    },
                    None,
                    None,
                );
            }
        }
        if socket.is_loopback_only() {
            // That nothing comes to its own port is no news where its rule hands it what comes for another.
            if parts.0.is_empty() {
                parts.add(Reach::Loopback, None, None);
            }
            return parts.0;
        }
        if let Some(reach) = self.past_the_rules(socket) {
            parts.add(reach, None, None);
            return parts.0;
        }
        for address in self.addresses(socket) {
            self.at(address, socket, &mut parts);
        }
        for (address, interface) in self.unwatched(socket) {
            let interface = self.watched.names.get(&interface).cloned();
            parts.add(Reach::Unwatched { interface }, Some(address), None);
        }
        parts.0
    }

    /// The addresses for which packets come to a socket past the rules too, and by which interfaces.
    fn unwatched(&self, socket: &Socket) -> Vec<(IpAddr, u32)> {
        let Watched {
            elsewhere,
            receiving,
            ..
        } = &self.watched;
        let elsewhere = elsewhere.iter().map(|(&address, &index)| (address, index));
        elsewhere
            .filter(|(address, index)| {
                let takes = if socket.is_wildcard() {
                    receiving.contains(index) && socket.takes(*address)
                } else {
                    socket.addresses.contains(address)
                };
                takes && socket.device.is_none()
            })
            .collect()
    }

    /// That packets come to a socket without the rules, if they come in no other way.
    fn past_the_rules(&self, socket: &Socket) -> Option<Reach> {
        let watched = &self.watched;
        let by = |index: &u32| Reach::Unwatched {
            interface: watched.names.get(index).cloned(),
        };
        if watched.interfaces.is_empty() {
            return Some(Reach::Unwatched { interface: None });
        }
        if let Some(device) = &socket.device {
            return (!watched.interfaces.contains(device)).then(|| by(device));
        }
        // An address that belongs to no interface can come by any.
        let owners = socket.addresses.iter();
        let mut owners = owners.map(|own| watched.elsewhere.get(own));
        let first = owners.next()??;
        owners.all(|owner| owner.is_some()).then(|| by(first))
    }

    /// The addresses for which packets come to a socket, as far as that is in its bind addresses.
    fn addresses(&self, socket: &Socket) -> Vec<IpAddr> {
        if !socket.is_wildcard() {
            let mut addresses = socket.addresses.clone();
            let elsewhere = &self.watched.elsewhere;
            addresses.retain(|own| !own.is_loopback() && !elsewhere.contains_key(own));
            return addresses;
        }
        let own = self.watched.addresses.iter().copied();
        let own: Vec<IpAddr> = own.filter(|&address| socket.takes(address)).collect();
        if own.is_empty() {
            // What holds for any address.
            let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
            return any.into_iter().filter(|&any| socket.takes(any)).collect();
        }
        own
    }

    fn at(&self, address: IpAddr, socket: &Socket, parts: &mut DistinctParts) {
        let transport = socket.transport;
        let entry = self.entry(address, transport, socket.port);
        let at = Some(address).filter(|address| !address.is_unspecified());
        let reach = self.by_entry(entry, address, transport);
        // The rule may hand what comes for the socket's own port to that very socket.
        let is_told = matches!(&reach, Reach::Elsewhere { rule, .. } if parts.steered_by(rule));
        if is_told {
            return;
        }
        if !entry.is_claimed() {
            for (rule, exception) in self.by_peers_port(transport, address) {
                // Replies come in by `inbound` too.
                let is_same = matches!(
                    (&exception, &reach),
                    (Reach::Direct { .. }, Reach::Direct { .. })
                        | (
                            Reach::Refused { .. } | Reach::Replies { .. },
                            Reach::Refused { .. }
                        )
                );
                if !is_same {
                    parts.add(exception, at, Some(rule));
                }
            }
        }
        parts.add(reach, at, None);
    }

    /// What the rules say about a new packet for an entry point, from a port that no rule claims.
    fn entry(&self, address: IpAddr, transport: Transport, port: u16) -> Entry {
        let image = &*self.ruleset;
        let peer = match address {
            IpAddr::V4(_) => IpAddr::from([192, 0, 2, 1]),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        };
        let is_free = |port: &u16| {
            let entry = image.source_ports.get(Port::new(*port).index(transport));
            entry.is_some_and(|entry| !entry.is_claimed())
        };
        let peer_port = (1..=u16::MAX).rev().find(is_free).unwrap_or(u16::MAX);
        let peer = SocketAddr::new(peer, peer_port);
        let Ok(frame) = packet::frame(transport, peer, SocketAddr::new(address, port)) else {
            return Entry::UNCLAIMED;
        };
        host::decide(&frame, &self.ruleset, Clock::now().monotonic).entry
    }

    /// What becomes of the packets of peers that have an entry.
    fn by_entry(&self, entry: Entry, address: IpAddr, transport: Transport) -> Reach {
        if !entry.is_claimed() {
            let inbound = self.ruleset.header.defaults.inbound;
            return match Action::from_code(inbound) {
                Action::Local => Reach::Direct { rule: None },
                Action::Reject => Reach::refused(Verdict::Reject, None),
                Action::Drop | Action::Socket | Action::Interface | Action::Cpu | Action::Xsk => {
                    Reach::refused(Verdict::Drop, None)
                }
            };
        }
        let rule = self.name(entry.rule());
        let mut action = entry.action();
        // From other CPUs packets come to the sockets that they would have come to.
        if action.has_target() && action != Action::Cpu {
            let to = recover::destination(&self.ruleset, entry);
            if self.present.has(&to, address, transport) {
                let to = to.to_string();
                return Reach::Elsewhere { rule, to };
            }
            action = self.ruleset.targets[entry.rule() as usize].fallback();
        }
        match action {
            Action::Local | Action::Cpu => {}
            Action::Reject => return Reach::refused(Verdict::Reject, Some(rule)),
            Action::Drop | Action::Socket | Action::Interface | Action::Xsk => {
                return Reach::refused(Verdict::Drop, Some(rule));
            }
        }
        let policy = entry
            .is_conditional()
            .then(|| self.ruleset.policies.get(entry.rule() as usize))
            .flatten()
            .copied()
            .unwrap_or_default();
        match self.admitted(&policy, address) {
            Share::None => Reach::refused(Verdict::Drop, Some(rule)),
            _ if policy.is_replies_only() => Reach::Replies { rule },
            Share::Some => Reach::Sources { rule },
            Share::All => Reach::Direct { rule: Some(rule) },
        }
    }

    /// How the rules that claim the ports of peers reach an unclaimed port, each with its name.
    fn by_peers_port(
        &self,
        transport: Transport,
        address: IpAddr,
    ) -> impl Iterator<Item = (String, Reach)> {
        let rules = self.by_peers_port[transport as usize].iter();
        rules.map(move |(&id, &entry)| (self.name(id), self.by_entry(entry, address, transport)))
    }

    /// How many of the sources of an address's version a rule admits.
    fn admitted(&self, policy: &Policy, address: IpAddr) -> Share {
        let held = |list: u16| {
            let list = list.checked_sub(1)?;
            let mut lists = self.lists.borrow_mut();
            let held = lists.entry(list).or_insert_with(|| {
                let mut held = [Share::None; 2];
                for prefix in self.ruleset.prefixes(list) {
                    let version = &mut held[usize::from(prefix.addr().is_ipv6())];
                    *version = match (*version, prefix.prefix_len()) {
                        (_, 0) | (Share::All, _) => Share::All,
                        _ => Share::Some,
                    };
                }
                held
            });
            Some(held[usize::from(address.is_ipv6())])
        };
        match (held(policy.from), held(policy.deny)) {
            (Some(Share::None), _) | (_, Some(Share::All)) => Share::None,
            (Some(Share::Some), _) | (_, Some(Share::Some)) => Share::Some,
            (None | Some(Share::All), None | Some(Share::None)) => Share::All,
        }
    }

    fn name(&self, rule: RuleId) -> String {
        let name = self.names.get(&rule).cloned();
        name.unwrap_or_else(|| "unknown rule".into())
    }
}

impl SocketRule {
    /// The rules of a ruleset that hand packets to sockets.
    fn of(ruleset: &Ruleset) -> Vec<Self> {
        let rules = ruleset.rules().iter();
        let rules = rules.filter(|rule| rule.layer() == Layer::Destination);
        rules
            .filter_map(|rule| {
                let Destination::Socket(to) = &rule.to else {
                    return None;
                };
                Some(Self {
                    rule: rule.name.clone(),
                    ports: rule.ports.clone(),
                    to: to.clone(),
                })
            })
            .collect()
    }
}

impl Reach {
    const fn refused(verdict: Verdict, rule: Option<String>) -> Self {
        Self::Refused { verdict, rule }
    }
}

/// The claims of peers' ports of a protocol, one for each rule.
fn claims_of_peers(ruleset: &RulesetImage, transport: Transport) -> BTreeMap<RuleId, Entry> {
    if ruleset.header.source_claims == 0 {
        return BTreeMap::new();
    }
    let ports = (0..=u16::MAX).map(|port| Port::new(port).index(transport));
    let entries = ports.filter_map(|index| ruleset.source_ports.get(index));
    let entries = entries.filter(|entry| entry.is_claimed());
    entries.map(|&entry| (entry.rule(), entry)).collect()
}

/// Parts in the order in which they were found; what is alike is one.
#[derive(Default)]
struct DistinctParts(Vec<Part>);

impl DistinctParts {
    fn steered_by(&self, by: &str) -> bool {
        let mut parts = self.0.iter();
        parts.any(|part| matches!(&part.reach, Reach::Socket { rule, .. } if rule == by))
    }

    fn add(&mut self, reach: Reach, address: Option<IpAddr>, peers: Option<String>) {
        let is_it = |part: &&mut Part| part.reach == reach && part.peers == peers;
        if let Some(part) = self.0.iter_mut().find(is_it) {
            part.addresses.extend(address);
            return;
        }
        self.0.push(Part {
            reach,
            addresses: address.into_iter().collect(),
            peers,
        });
    }
}

#[cfg(test)]
mod tests;
