//! Claims in the order in which one sweep can compare them.

use std::net::IpAddr;

use portdemux_common::{
    capacity::MAX_SPANS,
    ruleset::span_key,
    wire::{Port, Transport},
};

use super::{
    claims::{Claims, Segment},
    port::PortRange,
    rule::{Layer, Rule},
};

/// How many claims at single addresses are laid flat before it is known how many spans they come to.
///
/// A claim that more specific ones cover needs no span, but then there are at least two of those.
const MAX_INTERVALS: usize = 4 * MAX_SPANS;

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
    /// Collects the claims that the rules of a layer, of at most
    /// [`portdemux_common::capacity::MAX_RULES`], make.
    ///
    /// # Errors
    ///
    /// If they claim single addresses too often, how often.
    pub(super) fn of(rules: &[Rule], layer: Layer) -> Result<Self, usize> {
        let of_layer = |rule: &&Rule| rule.layer() == layer;
        let exact_count = rules
            .iter()
            .filter(of_layer)
            .map(|rule| rule.addresses.len() * rule.ports.len())
            .sum();
        if exact_count > MAX_INTERVALS {
            return Err(exact_count);
        }
        let mut any = Vec::with_capacity(rules.len());
        let mut exact = Vec::with_capacity(exact_count);
        for (rule, index) in rules.iter().zip(0..).filter(|(rule, _)| of_layer(rule)) {
            for ports in &rule.ports {
                let first = span_key(ports.transport, Port::new(ports.first));
                let last = span_key(ports.transport, Port::new(ports.last));
                let interval = Interval {
                    first,
                    last,
                    rule: index,
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
        for (index, &(address, _)) in exact.iter().enumerate() {
            if addresses
                .last()
                .is_none_or(|&(before, _)| before != address)
            {
                addresses.push((address, index));
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
        let addresses = (0..self.addresses.len()).map(|index| {
            let (address, begin) = self.addresses[index];
            let end = self
                .addresses
                .get(index + 1)
                .map_or(self.exact.len(), |next| next.1);
            (Some(address), &self.exact[begin..end])
        });
        std::iter::once((None, &self.any[..])).chain(addresses)
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
