//! Which rule gets each port: the rules' claims, laid flat.

use std::net::IpAddr;

use portdemux_common::{
    ruleset::span_key,
    wire::{Port, Transport},
};

use super::{
    port::PortRange,
    rule::{Layer, Rule},
};

/// Neighbouring ports of one protocol that one rule gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// The protocol.
    pub transport: Transport,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// The rule, by its index in [`super::Ruleset::rules`].
    pub rule: u32,
}

/// Which rule gets each port.
///
/// Each list of segments ascends by protocol, then port, without overlap; neighbouring segments
/// differ in their rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub(super) any: Vec<Segment>,
    /// The claimed addresses, ascending, and where the segments of each begin in `exact`.
    pub(super) addresses: Vec<(IpAddr, usize)>,
    pub(super) exact: Vec<Segment>,
}

/// One rule's claim of an entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'rules> {
    /// Who claims it.
    pub rule: &'rules Rule,
    /// As part of which ports: the narrowest range of the rule that holds it.
    pub ports: PortRange,
    /// At this very address, or at any.
    pub address: Option<IpAddr>,
}

/// Neighbouring ports of one protocol at an address, and who gets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first port, as a [`span_key`].
    pub first: u32,
    /// The last port, as a [`span_key`].
    pub last: u32,
    /// The rule that gets them, by its index.
    pub rule: Option<u32>,
    /// The shadow that would, by its index.
    pub shadow: Option<u32>,
}

impl Segment {
    fn keys(&self) -> (u32, u32) {
        let key = |port| span_key(self.transport, Port::new(port));
        (key(self.first), key(self.last))
    }
}

/// Lays the segments of shadows over those of rules at one address; both ascend, as the pieces do.
#[must_use]
pub fn overlay(rules: &[Segment], shadows: &[Segment]) -> Vec<Piece> {
    if shadows.is_empty() {
        return rules
            .iter()
            .map(|segment| {
                let (first, last) = segment.keys();
                Piece {
                    first,
                    last,
                    rule: Some(segment.rule),
                    shadow: None,
                }
            })
            .collect();
    }
    let mut edges: Vec<u32> = rules
        .iter()
        .chain(shadows)
        .flat_map(|segment| {
            let (first, last) = segment.keys();
            [first, last + 1]
        })
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let mut pieces = Vec::with_capacity(edges.len());
    let (mut rules, mut shadows) = (rules, shadows);
    for edge in edges.windows(2) {
        let (first, last) = (edge[0], edge[1] - 1);
        let piece = Piece {
            first,
            last,
            rule: holder(&mut rules, first),
            shadow: holder(&mut shadows, first),
        };
        if piece.rule.is_some() || piece.shadow.is_some() {
            pieces.push(piece);
        }
    }
    pieces
}

/// Whose segment holds a port; segments that end before it are passed by.
fn holder(segments: &mut &[Segment], port: u32) -> Option<u32> {
    while let [segment, rest @ ..] = segments {
        let (first, last) = segment.keys();
        if port <= last {
            return (first <= port).then_some(segment.rule);
        }
        *segments = rest;
    }
    None
}

impl Claims {
    /// The ports that rules claim at any address.
    #[must_use]
    pub fn any(&self) -> &[Segment] {
        &self.any
    }

    /// The ports that rules claim at one address, for every such address: IPv4 first, ascending.
    #[must_use]
    pub fn by_address(&self) -> impl ExactSizeIterator<Item = (IpAddr, &[Segment])> {
        (0..self.addresses.len()).map(|index| (self.addresses[index].0, self.exact_of(index)))
    }

    /// Whether nothing is claimed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.any.is_empty() && self.exact.is_empty()
    }

    /// How many segments all addresses together have.
    #[must_use]
    pub fn exact_segments(&self) -> usize {
        self.exact.len()
    }

    /// The ports that rules claim at this very address.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> &[Segment] {
        match self
            .addresses
            .binary_search_by_key(&address, |&(claimed, _)| claimed)
        {
            Ok(index) => self.exact_of(index),
            Err(_) => &[],
        }
    }

    /// The rule that gets an entry point, by its index in [`super::Ruleset::rules`].
    #[must_use]
    pub fn rule_at(&self, address: IpAddr, transport: Transport, port: u16) -> Option<u32> {
        find(self.at(address), transport, port).or_else(|| find(&self.any, transport, port))
    }

    fn exact_of(&self, index: usize) -> &[Segment] {
        let begin = self.addresses[index].1;
        let end = self
            .addresses
            .get(index + 1)
            .map_or(self.exact.len(), |next| next.1);
        &self.exact[begin..end]
    }
}

fn find(segments: &[Segment], transport: Transport, port: u16) -> Option<u32> {
    let after = segments.partition_point(|seg| (seg.transport, seg.first) <= (transport, port));
    let segment = segments.get(after.checked_sub(1)?)?;
    (segment.transport == transport && port <= segment.last).then_some(segment.rule)
}

/// All claims of an entry point, the most specific first.
///
/// The first is the one that counts, as in [`Claims::rule_at`].
#[must_use]
pub fn claiming(
    rules: &[Rule],
    address: IpAddr,
    transport: Transport,
    port: u16,
) -> Vec<Claim<'_>> {
    let mut claims: Vec<_> = rules
        .iter()
        .filter(|rule| rule.layer() == Layer::Destination)
        .filter(|rule| rule.addresses.is_empty() || rule.addresses.contains(&address))
        .filter_map(|rule| {
            let holding = rule
                .ports
                .iter()
                .filter(|ports| ports.holds(transport, port));
            let ports = *holding.min_by_key(|ports| ports.len())?;
            Some(Claim {
                rule,
                ports,
                address: (!rule.addresses.is_empty()).then_some(address),
            })
        })
        .collect();
    claims.sort_by_key(|claim| (claim.address.is_none(), claim.ports.len()));
    claims
}
