//! Which rule gets each port: the rules' claims, laid flat.

use std::net::IpAddr;

use portdemux_common::{
    ruleset::{MAX_SPANS, span_key},
    wire::{Port, Transport},
};

use super::{port::PortRange, rule::Rule, ruleset::Ruleset};

/// How many claims at single addresses are laid flat before it is known how many spans they come to.
///
/// A claim that more specific ones cover needs no span, but then there are at least two of those.
const MAX_INTERVALS: usize = 4 * MAX_SPANS;

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
    any: Vec<Segment>,
    /// The claimed addresses, ascending, and where the segments of each begin in `exact`.
    addresses: Vec<(IpAddr, usize)>,
    exact: Vec<Segment>,
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

/// A claim of ports, as it is compared with others at the same address: ends are [`span_key`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) rule: u32,
}

/// All claims of all rules, those that contain others before these.
#[derive(Debug)]
pub(super) struct Intervals {
    any: Vec<Interval>,
    /// The claimed addresses, ascending, and where the claims of each begin in `exact`.
    addresses: Vec<(IpAddr, usize)>,
    exact: Vec<Interval>,
}

impl Interval {
    fn order(&self) -> (u32, u32, u32) {
        (self.first, u32::MAX - self.last, self.rule)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a key holds the port in its low 16 bits"
    )]
    pub(super) fn ports(self) -> PortRange {
        PortRange {
            transport: Transport::ALL[(self.first >> 16) as usize],
            first: self.first as u16,
            last: self.last as u16,
        }
    }
}

impl Intervals {
    /// Collects the claims of at most [`portdemux_common::ruleset::MAX_RULES`] rules.
    ///
    /// # Errors
    ///
    /// If they claim single addresses too often, how often.
    pub(super) fn of(rules: &[Rule]) -> Result<Self, usize> {
        let exact_count = rules
            .iter()
            .map(|rule| rule.addresses.len() * rule.ports.len())
            .sum();
        if exact_count > MAX_INTERVALS {
            return Err(exact_count);
        }
        let mut any = Vec::with_capacity(rules.len());
        let mut exact = Vec::with_capacity(exact_count);
        for (rule, place) in rules.iter().zip(0..) {
            for ports in &rule.ports {
                let first = span_key(ports.transport, Port::new(ports.first));
                let last = span_key(ports.transport, Port::new(ports.last));
                let interval = Interval {
                    first,
                    last,
                    rule: place,
                };
                if rule.addresses.is_empty() {
                    any.push(interval);
                }
                exact.extend(rule.addresses.iter().map(|&address| (address, interval)));
            }
        }
        any.sort_unstable_by_key(Interval::order);
        exact.sort_unstable_by_key(|(address, interval)| (*address, interval.order()));
        let mut addresses: Vec<(IpAddr, usize)> = Vec::new();
        for (place, &(address, _)) in exact.iter().enumerate() {
            if addresses
                .last()
                .is_none_or(|&(before, _)| before != address)
            {
                addresses.push((address, place));
            }
        }
        let exact = exact.into_iter().map(|(_, interval)| interval).collect();
        Ok(Self {
            any,
            addresses,
            exact,
        })
    }

    /// The claims at any address and those at each address.
    pub(super) fn sites(&self) -> impl Iterator<Item = (Option<IpAddr>, &[Interval])> {
        let addresses = (0..self.addresses.len()).map(|place| {
            let (address, begin) = self.addresses[place];
            let end = self
                .addresses
                .get(place + 1)
                .map_or(self.exact.len(), |next| next.1);
            (Some(address), &self.exact[begin..end])
        });
        std::iter::once((None, &self.any[..])).chain(addresses)
    }

    /// How many IPv4 and how many IPv6 addresses are claimed.
    pub(super) fn count_addresses(&self) -> (usize, usize) {
        let v4 = self
            .addresses
            .partition_point(|(address, _)| address.is_ipv4());
        (v4, self.addresses.len() - v4)
    }

    /// Gives each port to the rule that claims it most specifically, provided that no claims conflict.
    pub(super) fn flatten(&self) -> Claims {
        let mut claims = Claims::default();
        for (address, intervals) in self.sites() {
            let Some(address) = address else {
                flatten_site(intervals, &mut claims.any);
                continue;
            };
            claims.addresses.push((address, claims.exact.len()));
            flatten_site(intervals, &mut claims.exact);
        }
        claims
    }
}

/// Cuts nested intervals into disjoint segments, each of the innermost interval's rule.
fn flatten_site(intervals: &[Interval], segments: &mut Vec<Segment>) {
    let begin = segments.len();
    // The intervals around the current one, each within the one before it.
    let mut open: Vec<Interval> = Vec::new();
    // The first port that no segment holds yet.
    let mut next = 0;
    for &interval in intervals {
        while let Some(inner) = open.pop_if(|inner| inner.last < interval.first) {
            emit(
                segments,
                begin,
                Interval {
                    first: next,
                    ..inner
                },
            );
            next = inner.last + 1;
        }
        if let Some(&around) = open.last()
            && next < interval.first
        {
            emit(
                segments,
                begin,
                Interval {
                    first: next,
                    last: interval.first - 1,
                    ..around
                },
            );
        }
        next = interval.first;
        open.push(interval);
    }
    while let Some(inner) = open.pop() {
        emit(
            segments,
            begin,
            Interval {
                first: next,
                ..inner
            },
        );
        next = inner.last + 1;
    }
}

fn emit(segments: &mut Vec<Segment>, begin: usize, interval: Interval) {
    if interval.first > interval.last {
        return;
    }
    let ports = interval.ports();
    if let Some(before) = segments[begin..].last_mut()
        && before.rule == interval.rule
        && before.transport == ports.transport
        && before.last.checked_add(1) == Some(ports.first)
    {
        before.last = ports.last;
        return;
    }
    let PortRange {
        transport,
        first,
        last,
    } = ports;
    segments.push(Segment {
        transport,
        first,
        last,
        rule: interval.rule,
    });
}
