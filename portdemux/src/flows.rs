//! Flows as people ask about them: by port, by who is at the other end, by how far they have come.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use portdemux_common::{
    conntrack::{State, Tuple},
    decision::Outcome,
    ids::RuleId,
    policy::TICK_SHIFT,
    reason::{Reason, Verdict},
    wire::{IpProto, Port, Transport},
};

use crate::{
    clock::Clock,
    explain::packet,
    host,
    image::Compiled,
    maps::flows::Flow,
    rules::{PortRange, Word},
};

/// What a flow can be asked for by: how far it has come, or that it is half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowProgress {
    /// It has come so far, half-open or not.
    State(State),
    /// A peer began it, and it is not complete.
    HalfOpen,
}

impl Word for FlowProgress {
    const ALL: &'static [Self] = &[
        Self::State(State::Opening),
        Self::State(State::Answered),
        Self::State(State::Established),
        Self::State(State::Closing),
        Self::State(State::Closed),
        Self::HalfOpen,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::State(state) => state.name(),
            Self::HalfOpen => "half-open",
        }
    }
}

/// Which flows are meant: those that are of one of each, where any is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The ports of this host.
    pub ports: Vec<PortRange>,
    /// Where the peers are.
    pub sources: Vec<IpNet>,
    /// How far the flows have come.
    pub states: Vec<FlowProgress>,
}

impl Selection {
    /// Whether a flow is meant.
    #[must_use]
    pub fn holds(&self, flow: &Flow) -> bool {
        let port = || {
            let of_flow = flow.transport().zip(flow.local_port());
            let mut ports = self.ports.iter();
            of_flow.is_some_and(|(transport, port)| ports.any(|p| p.holds(transport, port)))
        };
        let source = || {
            let peer = flow.peer();
            self.sources.iter().any(|prefix| prefix.contains(&peer))
        };
        let state = || {
            self.states.iter().any(|state| match state {
                FlowProgress::State(state) => *state == flow.status.state(),
                FlowProgress::HalfOpen => flow.is_half_open,
            })
        };
        (self.ports.is_empty() || port())
            && (self.sources.is_empty() || source())
            && (self.states.is_empty() || state())
    }
}

/// The flows that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundFlows {
    /// How many there are.
    pub matching: u64,
    /// Those with the most packets, the busiest first; among equals the youngest.
    pub busiest: Vec<Flow>,
}

/// Looks for the busiest flows of a selection and keeps no more of them than are wanted, however many
/// there are.
pub fn busiest(
    flows: impl Iterator<Item = Flow>,
    selection: &Selection,
    most: usize,
    now: u32,
) -> FoundFlows {
    let mut matching = 0;
    let mut kept = BTreeMap::new();
    for flow in flows.filter(|flow| selection.holds(flow)) {
        matching += 1;
        let packets = flow.received.packets.saturating_add(flow.sent.packets);
        let rank = (
            packets,
            Reverse(since(flow.begun, now)),
            Reverse(flow.tuple.words()),
        );
        let is_among_them = kept.len() < most
            || kept
                .first_key_value()
                .is_some_and(|(least, _)| *least < rank);
        if is_among_them {
            kept.insert(rank, flow);
            if kept.len() > most {
                kept.pop_first();
            }
        }
    }
    FoundFlows {
        matching,
        busiest: kept.into_values().rev().collect(),
    }
}

impl Flow {
    /// The address of this host's end.
    #[must_use]
    pub fn local(&self) -> IpAddr {
        address(self.tuple.local, &self.tuple)
    }

    /// The address of the other end.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        address(self.tuple.remote, &self.tuple)
    }

    /// Its protocol, if that has ports.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        let mut all = Transport::ALL.into_iter();
        all.find(|transport| transport.ip_proto().0 == self.tuple.protocol())
    }

    /// The name of its protocol.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        match (self.transport(), IpProto(self.tuple.protocol())) {
            (Some(transport), _) => transport.name(),
            (None, IpProto::ICMPV6) => "icmpv6",
            (None, _) => "icmp",
        }
    }

    /// The port of this host's end.
    #[must_use]
    pub fn local_port(&self) -> Option<u16> {
        self.transport()
            .map(|_| Port(self.tuple.local_port()).number())
    }

    /// The port of the other end.
    #[must_use]
    pub fn peer_port(&self) -> Option<u16> {
        self.transport()
            .map(|_| Port(self.tuple.remote_port()).number())
    }

    /// The identifier of ICMP echo.
    #[must_use]
    pub fn identifier(&self) -> Option<u16> {
        match self.transport() {
            None => Some(Port(self.tuple.local_port()).number()),
            Some(_) => None,
        }
    }

    /// How long it has been known.
    #[must_use]
    pub fn known_for(&self, now: u32) -> Duration {
        ticks(since(self.begun, now))
    }

    /// In how long it is forgotten if no packet comes.
    #[must_use]
    pub fn forgotten_in(&self, now: u32) -> Duration {
        ticks(since(now, self.until))
    }

    /// What came of the last packet of the peer, and why; nothing if none was decided about.
    #[must_use]
    pub fn judgement(&self) -> Option<(Verdict, Reason)> {
        let outcome = Outcome(self.outcome);
        let reason = Reason::from_index(outcome.reason())?;
        (self.outcome != 0).then_some((outcome.verdict(), reason))
    }

    /// The rule that its next packet from the peer meets under a ruleset.
    ///
    /// What its slot says about the last one may be from a ruleset whose rules had other ids.
    #[must_use]
    pub fn rule(&self, ruleset: &Compiled) -> Option<RuleId> {
        let peer = (self.peer(), self.peer_port()?).into();
        let local = (self.local(), self.local_port()?).into();
        let frame = packet::frame(self.transport()?, peer, local).ok()?;
        host::decide(&frame, ruleset, Clock::now().monotonic).rule()
    }
}

fn address(words: [u64; 2], key: &Tuple) -> IpAddr {
    let octets: [u8; 16] = bytemuck::cast(words);
    match (key.version(), octets) {
        (4, [a, b, c, d, ..]) => Ipv4Addr::from([a, b, c, d]).into(),
        (_, octets) => Ipv6Addr::from(octets).into(),
    }
}

/// How many ticks went by between two of them; none if the second is not the later one.
const fn since(before: u32, after: u32) -> u32 {
    let ticks = after.wrapping_sub(before);
    if ticks < 1 << 31 { ticks } else { 0 }
}

fn ticks(count: u32) -> Duration {
    Duration::from_nanos(u64::from(count) << TICK_SHIFT)
}

#[cfg(test)]
mod tests {
    use portdemux_common::{blocks::Counter, conntrack::Status};

    use super::*;
    use crate::sockets::words;

    fn flow(peer: &str, port: u16, packets: u64, begun: u32) -> Flow {
        let peer: IpAddr = peer.parse().unwrap();
        let (local, version): (IpAddr, u8) = match peer {
            IpAddr::V4(_) => ([203, 0, 113, 10].into(), 4),
            IpAddr::V6(_) => ("2001:db8::10".parse().unwrap(), 6),
        };
        let key = Tuple::new(
            (words(local), port.to_be_bytes()),
            (words(peer), 52_341_u16.to_be_bytes()),
            IpProto::TCP.0,
            version,
        );
        let received = Counter { packets, bytes: 0 };
        Flow::known(key, Status::established(false), begun, received)
    }

    #[test]
    fn ends_read_as_they_were_written() {
        let v4 = flow("198.51.100.7", 443, 0, 0);
        assert_eq!(v4.local().to_string(), "203.0.113.10");
        assert_eq!(v4.peer().to_string(), "198.51.100.7");
        assert_eq!((v4.local_port(), v4.peer_port()), (Some(443), Some(52_341)));
        assert_eq!((v4.protocol(), v4.identifier()), ("tcp", None));
        let v6 = flow("2001:db8::7", 443, 0, 0);
        assert_eq!(v6.local().to_string(), "2001:db8::10");
        assert_eq!(v6.peer().to_string(), "2001:db8::7");
    }

    #[test]
    fn a_flow_is_meant_if_it_is_one_of_each_kind_that_is_said() {
        let it = flow("198.51.100.7", 443, 0, 0);
        let https: PortRange = "443/tcp".parse().unwrap();
        let telnet: PortRange = "23/tcp".parse().unwrap();
        let quic: PortRange = "443/udp".parse().unwrap();
        let lan: IpNet = "198.51.100.0/24".parse().unwrap();
        let other: IpNet = "::/0".parse().unwrap();
        let established = FlowProgress::State(State::Established);
        let holds = |ports: &[_], sources: &[_], states: &[_]| {
            let selection = Selection {
                ports: ports.to_vec(),
                sources: sources.to_vec(),
                states: states.to_vec(),
            };
            selection.holds(&it)
        };
        assert!(holds(&[], &[], &[]));
        assert!(holds(&[telnet, https], &[lan], &[established]));
        assert!(!holds(&[telnet, quic], &[lan], &[established]));
        assert!(!holds(&[https], &[other], &[established]));
        assert!(!holds(&[https], &[lan], &[FlowProgress::HalfOpen]));
    }

    #[test]
    fn the_busiest_are_kept_and_among_equals_the_youngest() {
        let flows = [
            flow("192.0.2.1", 1, 5, 10),
            flow("192.0.2.2", 2, 9, 10),
            flow("192.0.2.3", 3, 5, 20),
            flow("192.0.2.4", 4, 1, 30),
        ];
        let found = |most| busiest(flows.into_iter(), &Selection::default(), most, 40);
        let ports = |found: &FoundFlows| -> Vec<_> {
            found.busiest.iter().filter_map(Flow::local_port).collect()
        };
        assert_eq!(ports(&found(2)), [2, 3]);
        assert_eq!(ports(&found(10)), [2, 3, 1, 4]);
        assert_eq!(found(1).matching, 4);
    }

    #[test]
    fn times_do_not_turn_round_when_another_cpu_is_a_tick_ahead() {
        let it = flow("192.0.2.1", 1, 5, 100);
        assert_eq!(it.known_for(99), Duration::ZERO);
        assert_eq!(it.known_for(100 + 8), Duration::from_nanos(8 << TICK_SHIFT));
    }
}
