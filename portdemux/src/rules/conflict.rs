//! Claims of which neither is more specific.
//!
//! An exact address beats any address, so only claims at the same address, or both at any, can
//! conflict. They do unless one strictly contains the other or they have no port in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    error::{Diagnostic, Evidence},
    intervals::{Interval, Intervals},
    port::PortRange,
    rule::{Layer, Rule},
};

/// How many pairs of rules are reported.
const REPORTED: usize = 10;

/// How many overlaps are looked for: enough to say what is wrong, few enough to count.
const FOUND: usize = 10_000;

/// Ports that two rules claim at the same address with equal right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// One rule, by its index.
    pub first: u32,
    /// The other rule, further down.
    pub second: u32,
    /// The address, or `None` if both claim any.
    pub address: Option<IpAddr>,
    /// The claim of the one.
    pub first_ports: PortRange,
    /// The claim of the other.
    pub second_ports: PortRange,
    /// What both claim.
    pub overlap: PortRange,
}

/// Finds what conflicts, up to a limit that says enough.
pub(super) fn find(intervals: &Intervals) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for (address, site) in intervals.sites() {
        if !is_nested(site) {
            find_at(address, site, &mut conflicts);
        }
    }
    conflicts.sort_unstable();
    conflicts
}

/// Whether of any two intervals that overlap one strictly contains the other; they must be in the
/// order of [`Intervals`].
fn is_nested(intervals: &[Interval]) -> bool {
    let mut open: Vec<Interval> = Vec::new();
    intervals.iter().all(|interval| {
        while open.pop_if(|inner| inner.last < interval.first).is_some() {}
        let fits = open.last().is_none_or(|around| {
            interval.last < around.last
                || (interval.last == around.last && interval.first > around.first)
        });
        open.push(*interval);
        fits
    })
}

fn find_at(address: Option<IpAddr>, intervals: &[Interval], conflicts: &mut Vec<Conflict>) {
    // The intervals that began before and may go on, by where they end.
    let mut open: BTreeSet<(u32, u32, usize)> = BTreeSet::new();
    for (index, interval) in intervals.iter().enumerate() {
        let Interval { first, last, .. } = *interval;
        while open.first().is_some_and(|&(end, ..)| end < first) {
            open.pop_first();
        }
        let shorter = open.range(..(last, 0, 0));
        let equal = open.range((last, first, 0)..=(last, first, usize::MAX));
        for &(_, _, other) in shorter.chain(equal) {
            if conflicts.len() == FOUND {
                return;
            }
            conflicts.push(Conflict::between(address, intervals[other], *interval));
        }
        open.insert((last, first, index));
    }
}

impl Conflict {
    fn between(address: Option<IpAddr>, one: Interval, other: Interval) -> Self {
        let (first, second) = if one.rule <= other.rule {
            (one, other)
        } else {
            (other, one)
        };
        let overlap = Interval {
            first: one.first.max(other.first),
            last: one.last.min(other.last),
            rule: one.rule,
        };
        Self {
            first: first.rule,
            second: second.rule,
            address,
            first_ports: first.ports(),
            second_ports: second.ports(),
            overlap: overlap.ports(),
        }
    }
}

/// Tells the author of the rules about conflicts, once for each pair of rules.
pub(super) fn report(conflicts: &[Conflict], rules: &[Rule]) -> Vec<Diagnostic> {
    let mut pairs: BTreeMap<(u32, u32), Vec<&Conflict>> = BTreeMap::new();
    for conflict in conflicts {
        pairs
            .entry((conflict.first, conflict.second))
            .or_default()
            .push(conflict);
    }
    let mut diagnostics: Vec<_> = pairs
        .values()
        .take(REPORTED)
        .map(|pair| describe(pair, rules))
        .collect();
    if let (Some(more @ 1..), Some(last)) =
        (pairs.len().checked_sub(REPORTED), diagnostics.last_mut())
    {
        let least = if conflicts.len() == FOUND {
            "at least "
        } else {
            ""
        };
        last.evidence.push(Evidence {
            columns: vec![format!("… and {least}{more} more pairs of rules")],
            line: 0,
        });
    }
    diagnostics
}

fn describe(pair: &[&Conflict], rules: &[Rule]) -> Diagnostic {
    let conflict = pair[0];
    let evidence = |index: u32, ports: PortRange| {
        let rule = &rules[index as usize];
        (rule.line, [rule.name.clone(), ports.to_string()])
    };
    let (first_line, first) = evidence(conflict.first, conflict.first_ports);
    let (second_line, second) = evidence(conflict.second, conflict.second_ports);
    let at = conflict
        .address
        .map_or(String::new(), |address| format!(" at {address}"));
    let more = match pair.len() - 1 {
        0 => String::new(),
        1 => ", and so in one more place".into(),
        more => format!(", and so in {more} more places"),
    };
    let layer = rules[conflict.first as usize].layer();
    // A rule that claims the ports of peers has no address.
    let has_address = conflict.address.is_some() || layer == Layer::Source;
    let help = match (conflict.first_ports == conflict.second_ports, has_address) {
        (true, false) => "remove one, or give one an address",
        (true, true) => "remove one",
        (false, false) => "give one an address or split a range",
        (false, true) => "split a range",
    };
    Diagnostic::new(match layer {
        Layer::Destination => "two rules claim the same entry points",
        Layer::Source => "two rules claim the same ports of peers",
        Layer::Shadow => "two shadows claim the same entry points",
    })
    .at(first_line, first)
    .at(second_line, second)
    .note(format!(
        "both claim {}{at} and neither is more specific{more}",
        conflict.overlap
    ))
    .help(help)
}
