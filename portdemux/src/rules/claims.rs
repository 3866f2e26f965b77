//! Which rule gets each port: the rules' claims, laid flat.

use std::net::IpAddr;

use portdemux_common::wire::Transport;

use super::{port::PortRange, rule::Rule, ruleset::Ruleset};

/// Neighbouring ports of one protocol that one rule gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// The protocol.
    pub transport: Transport,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// The rule, by its place in [`Ruleset::rules`].
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

impl Claims {
    /// The ports that rules claim at any address.
    #[must_use]
    pub fn any(&self) -> &[Segment] {
        &self.any
    }

    /// The ports that rules claim at one address, for every such address: IPv4 first, ascending.
    #[must_use]
    pub fn by_address(&self) -> impl ExactSizeIterator<Item = (IpAddr, &[Segment])> {
        (0..self.addresses.len()).map(|place| (self.addresses[place].0, self.exact_of(place)))
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
            Ok(place) => self.exact_of(place),
            Err(_) => &[],
        }
    }

    /// The rule that gets an entry point, by its place in [`Ruleset::rules`].
    #[must_use]
    pub fn rule_at(&self, address: IpAddr, transport: Transport, port: u16) -> Option<u32> {
        find(self.at(address), transport, port).or_else(|| find(&self.any, transport, port))
    }

    fn exact_of(&self, place: usize) -> &[Segment] {
        let begin = self.addresses[place].1;
        let end = self
            .addresses
            .get(place + 1)
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
    ruleset: &Ruleset,
    address: IpAddr,
    transport: Transport,
    port: u16,
) -> Vec<Claim<'_>> {
    let mut claims: Vec<_> = ruleset
        .rules()
        .iter()
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
