//! What an instance counted, at one moment, under the names its rules have.

use std::{collections::HashMap, time::Instant};

use portdemux_common::{
    blocks::Counter,
    entry::Entry,
    ids::RuleId,
    ruleset::{RulesetImage, Span},
    wire::{Port, Transport},
};

use crate::{
    instance::Instance,
    maps::{
        Maps,
        counters::{Outcome, Traffic},
        flows::PortFlows,
        redirect_drops::Lost,
    },
    rules::Destination,
};

/// A port of a protocol.
pub type PortKey = (Transport, u16);

/// Counters and claims at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub taken: Instant,
    /// The generation in force.
    pub generation: u64,
    /// The names of the rules by id.
    pub names: HashMap<RuleId, String>,
    /// What came for each rule, by id.
    pub rules: Vec<Traffic>,
    /// What all frames came to.
    pub outcomes: Vec<Outcome>,
    /// What targets did not take, most first.
    pub lost: Vec<Lost>,
    traffic: Vec<Traffic>,
    /// What is counted of flows, where they are tracked.
    flows: Option<Vec<PortFlows>>,
    claims: PortClaims,
    /// Where rules send packets that do not go to the port's own sockets, by id.
    destinations: HashMap<RuleId, Destination>,
}

/// Which rules claim a port: at any address, and at some.
#[derive(Debug)]
struct PortClaims {
    any: Vec<Entry>,
    /// Ports claimed at some address only; the rule that comes first.
    exact: HashMap<usize, Entry>,
}

impl Instance {
    /// What the instance counted, as it is at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.maps)
    }
}

impl Snapshot {
    /// Reads everything.
    #[must_use]
    pub fn take(maps: &Maps) -> Self {
        let image = maps.image();
        let names = maps.rule_names(&image);
        let count = names.keys().max().map_or(0, |&last| last as usize + 1);
        Self {
            generation: image.header.generation,
            names,
            rules: maps.counters.rules(count),
            outcomes: maps.counters.outcomes(),
            lost: maps.lost_of(&image),
            traffic: maps.counters.ports(),
            // Where the tables are damaged, `status` says so; the other counters are there still.
            flows: maps.flows().ok().flatten().map(|flows| flows.ports()),
            claims: PortClaims::read(&image),
            destinations: destinations(maps, &image),
            taken: Instant::now(),
        }
    }

    /// Every port that saw traffic or is claimed, ascending.
    #[must_use]
    pub fn ports(&self) -> Vec<PortKey> {
        all_ports()
            .filter(|&key| self.is_of_interest(key))
            .collect()
    }

    /// Whether flows are tracked.
    #[must_use]
    pub const fn tracks_flows(&self) -> bool {
        self.flows.is_some()
    }

    /// What is counted of the flows of a port, where they are tracked.
    #[must_use]
    pub fn flows(&self, (transport, port): PortKey) -> Option<PortFlows> {
        let flows = self.flows.as_ref()?;
        Some(flows[Port::new(port).index(transport)])
    }

    /// Whether a port saw traffic or is claimed.
    #[must_use]
    pub fn is_of_interest(&self, (transport, port): PortKey) -> bool {
        let index = Port::new(port).index(transport);
        let sent = self.flows.as_ref().map(|flows| flows[index].sent.packets);
        self.traffic[index].received.packets != 0
            || sent.is_some_and(|packets| packets != 0)
            || self.claims.entry(index).is_claimed()
    }

    /// What came for a port.
    #[must_use]
    pub fn traffic(&self, (transport, port): PortKey) -> Traffic {
        self.traffic[Port::new(port).index(transport)]
    }

    /// What the rules say about a port: the claim at any address, or else the first of those at one.
    #[must_use]
    pub fn entry(&self, (transport, port): PortKey) -> Entry {
        self.claims.entry(Port::new(port).index(transport))
    }

    /// Where what comes for a port is sent, if that is neither to its own sockets nor nowhere.
    #[must_use]
    pub fn destination(&self, key: PortKey) -> Option<&Destination> {
        let entry = self.entry(key);
        if !entry.is_claimed() {
            return None;
        }
        self.destinations.get(&entry.rule())
    }

    /// The name of the rule that claims a port.
    #[must_use]
    pub fn rule(&self, key: PortKey) -> Option<&str> {
        let entry = self.entry(key);
        if !entry.is_claimed() {
            return None;
        }
        self.names.get(&entry.rule()).map(String::as_str)
    }

    /// The rules and what came for them, the busiest first.
    #[must_use]
    pub fn rules_by_traffic(&self) -> Vec<(&str, Traffic)> {
        let rules = self.names.iter();
        let mut rules: Vec<_> = rules
            .map(|(&id, name)| (name.as_str(), self.rules[id as usize]))
            .collect();
        rules.sort_by_key(|&(name, traffic)| (std::cmp::Reverse(traffic.received.packets), name));
        rules
    }

    /// What all frames came to, whatever was done with them: packets and bytes of each reason.
    #[must_use]
    pub fn reasons(&self) -> Vec<(&'static str, Counter)> {
        let mut reasons: Vec<(&'static str, Counter)> = Vec::new();
        for outcome in &self.outcomes {
            let name = outcome.reason.name();
            match reasons.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => {
                    sum.packets += outcome.counter.packets;
                    sum.bytes += outcome.counter.bytes;
                }
                None => reasons.push((name, outcome.counter)),
            }
        }
        reasons.sort_by_key(|(_, counter)| std::cmp::Reverse(counter.packets));
        reasons
    }
}

impl PortClaims {
    fn read(image: &RulesetImage) -> Self {
        let mut exact = HashMap::new();
        let spans = image
            .spans
            .get(..image.header.spans as usize)
            .unwrap_or(&image.spans);
        // At an address shadows can have spans of their own, which nobody owns.
        for span in spans.iter().filter(|span| span.entry.is_claimed()) {
            for (transport, port) in ports_of(span) {
                exact
                    .entry(Port::new(port).index(transport))
                    .or_insert(span.entry);
            }
        }
        Self {
            // Whose a port is does not depend on whether that is the last word about it.
            any: image.ports.iter().map(|entry| entry.closed()).collect(),
            exact,
        }
    }

    fn entry(&self, index: usize) -> Entry {
        let any = self.any[index];
        if any.is_claimed() {
            return any;
        }
        self.exact.get(&index).copied().unwrap_or(Entry::UNCLAIMED)
    }
}

fn destinations(maps: &Maps, image: &RulesetImage) -> HashMap<RuleId, Destination> {
    let known = maps.destinations(image);
    let targets = image.targets.iter().take(image.header.targets as usize);
    (0..)
        .zip(targets)
        .filter_map(|(rule, target)| Some((rule, known.get(&target.slot()?)?.clone())))
        .collect()
}

/// Every port of every protocol.
pub fn all_ports() -> impl Iterator<Item = PortKey> {
    Transport::ALL
        .into_iter()
        .flat_map(|transport| (0..=u16::MAX).map(move |port| (transport, port)))
}

fn ports_of(span: &Span) -> impl Iterator<Item = PortKey> + use<> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low 16 bits of a span's key are the port"
    )]
    let (first, last) = (span.first as u16, span.last as u16);
    let transport = Transport::ALL
        .into_iter()
        .find(|t| *t as u32 == span.first >> 16);
    transport
        .into_iter()
        .flat_map(move |transport| (first..=last).map(move |port| (transport, port)))
}
