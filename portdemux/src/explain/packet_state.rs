//! How a packet stands to what is remembered of others: its flow, and what is left of the rates of its rule.

use std::sync::atomic::AtomicU64;

use portdemux_common::{
    bucket,
    conntrack::{Direction, Relation, TrackedPacket, table::FlowBucket},
    decide::Metadata,
    limits::{self, RateKey, RateKind},
    memory::Word,
    policy::Rate,
    ruleset::RulesetImage,
};
use serde::Serialize;

use crate::host::{Bucket as _, Buckets, Seen, State};

/// How a packet stands to what is remembered of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketState {
    /// How it stands to the flows that are known; nothing if it is of a kind without flows, or none are tracked.
    pub relation: Option<Relation>,
    /// Its flow, as it was before the packet came.
    pub flow: Option<FlowReport>,
    /// What was left of the rates that were asked, before the packet came.
    pub rates: Vec<RateReport>,
}

/// A flow that a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FlowReport {
    /// `opening`, `answered`, `established`, `closing` or `closed`.
    pub state: &'static str,
    /// `host` or `peer`.
    pub begun_by: &'static str,
    /// Whether it is one that a peer has begun and that is not complete.
    pub half_open: bool,
    /// Packets that came in.
    pub packets_in: u64,
    /// Packets that went out.
    pub packets_out: u64,
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RateReport {
    /// The key of the rules file: `rate` or `new_rate`.
    pub key: &'static str,
    /// `rule` or `source`.
    pub per: &'static str,
    /// How many packets could come one right after the other.
    pub left: u64,
    /// How many could at most.
    pub burst: u64,
}

impl PacketState {
    /// How the packet stands that was just seen at `now`, in nanoseconds of `CLOCK_MONOTONIC`. One that goes out has a
    /// flow and no relation.
    pub(super) fn of(seen: &Seen, state: &State<'_>, image: &RulesetImage, now: u64) -> Self {
        let tracked = seen.tracked().filter(|_| image.header.defaults.flows != 0);
        Self {
            relation: tracked
                .filter(|_| seen.verdict().is_some())
                .map(|tracked| Relation::of(tracked.relation)),
            flow: tracked.and_then(|tracked| flow(&tracked, state)),
            rates: match seen.metadata() {
                Some(metadata) => rates(seen, &metadata, state, image, now),
                None => Vec::new(),
            },
        }
    }
}

fn flow(tracked: &TrackedPacket, state: &State<'_>) -> Option<FlowReport> {
    in_table(tracked, &state.known, false).or_else(|| in_table(tracked, &state.half_open, true))
}

fn in_table(
    tracked: &TrackedPacket,
    table: &Buckets<'_, FlowBucket<AtomicU64>>,
    half_open: bool,
) -> Option<FlowReport> {
    let before = table.before();
    let (_, words) = before.first()?;
    let bucket = FlowBucket::of_words(words);
    let slot = bucket.find_tuple(&tracked.tuple, bucket::mark(tracked.hash))?;
    let known = bucket.entry(slot)?;
    if known.is_over(tracked.now) {
        return None;
    }
    let status = known.status();
    let packets = |direction| {
        let [packets, _] = bucket.counts(slot, direction)?.load();
        Some(packets)
    };
    Some(FlowReport {
        state: status.state().name(),
        begun_by: if status.is_from_here() {
            "host"
        } else {
            "peer"
        },
        half_open,
        packets_in: packets(Direction::Received)?,
        packets_out: packets(Direction::Sent)?,
    })
}

fn rates(
    seen: &Seen,
    metadata: &Metadata,
    state: &State<'_>,
    image: &RulesetImage,
    now: u64,
) -> Vec<RateReport> {
    let Some(rule) = seen.decision().rule() else {
        return Vec::new();
    };
    let policy = &image.policies[rule as usize];
    let kinds: [(_, _, &Rate); 2] = [
        ("rate", RateKind::Packets, &policy.rate),
        ("new_rate", RateKind::Flows, &policy.new_rate),
    ];
    let limited = kinds.into_iter().filter(|(_, _, rate)| rate.interval != 0);
    let reports = limited.filter_map(|(key, kind, rate)| {
        let (per, expected) = if policy.is_per_source() {
            let of = RateKey {
                rule,
                kind,
                source: metadata.source(),
                version: metadata.version(),
                seed: image.header.limits_seed,
            };
            ("source", of_source(&state.source_rates, of.hash())?)
        } else {
            let [packets, flows] = state.rates.before_in(rule)?;
            let of_kind = match kind {
                RateKind::Packets => packets,
                RateKind::Flows => flows,
            };
            ("rule", Word::load(&of_kind))
        };
        Some(RateReport {
            key,
            per,
            left: limits::left(expected, rate, now),
            burst: limits::left(0, rate, now),
        })
    });
    reports.collect()
}

/// The word of a source, if it was asked for; zero if it has none yet.
fn of_source(table: &Buckets<'_, limits::RateBucket<AtomicU64>>, hash: u64) -> Option<u64> {
    let (at, mark) = limits::slot(hash);
    let bucket = table.before_in(at)?;
    let own = bucket.slots.get(bucket.find(mark) as usize);
    Some(own.map_or(0, Word::load))
}
