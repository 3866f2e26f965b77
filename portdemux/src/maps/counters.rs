//! Counters, summed over all CPUs.

use std::{mem::offset_of, ops::Range, sync::Arc};

use bytemuck::Zeroable as _;
use portdemux_common::{
    blocks::Counter,
    capacity::{MAX_INTERFACES, PORT_COUNT, REASON_SLOTS, VERDICT_SLOTS},
    counters::{Layout, Outcomes, TALLIES, Tallies},
    ids::RuleId,
    reason::{Reason, Verdict},
    reject::Replied,
    wire::{Port, Transport},
};

use crate::maps::{blocks::Blocks, earlier::Earlier};

const INTERFACES: usize = offset_of!(Layout, interfaces);
const RULES: usize = offset_of!(Layout, rules);
const PORTS: usize = offset_of!(Layout, ports);
const REPLIED: usize = offset_of!(Layout, replied);
const LOOKUPS: usize = offset_of!(Layout, lookups);
const COUNTER: usize = size_of::<Counter>();
const OUTCOMES: usize = size_of::<Outcomes>();

/// The counters map.
#[derive(Debug)]
pub struct Counters {
    /// Those of this binary's layout; an older instance has none.
    pub(crate) own: Option<Arc<Blocks>>,
    /// Those of other layouts.
    pub(crate) earlier: Earlier,
}

/// What came for a port or a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Everything that came, dropped or not.
    pub received: Counter,
    /// The part of it that was dropped.
    pub dropped: Counter,
}

/// What an interface's frames came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happened.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// To how much.
    pub counter: Counter,
}

impl Counters {
    pub(crate) fn memory(&self) -> usize {
        self.own.as_ref().map_or(0, |own| own.bytes()) + self.earlier.memory()
    }

    /// Says how many blocks of counters each CPU can have for itself ([`portdemux_common::blocks`]); with none, all
    /// count in those that they share. No program may run.
    pub fn allot(&self, count: usize) {
        if let Some(own) = &self.own {
            own.allot(count);
        }
    }

    /// The traffic of one port.
    #[must_use]
    pub fn port(&self, transport: Transport, port: u16) -> Traffic {
        let index = Port::new(port).index(transport);
        self.traffic(PORTS, index..index + 1)[0]
    }

    /// The traffic of every port, by [`Port::index`].
    #[must_use]
    pub fn ports(&self) -> Vec<Traffic> {
        self.traffic(PORTS, 0..PORT_COUNT)
    }

    /// The traffic of the first `count` rules, by rule id.
    #[must_use]
    pub fn rules(&self, count: usize) -> Vec<Traffic> {
        self.traffic(RULES, 0..count)
    }

    /// What the frames of the interface at `slot` came to, nothing left out but what is zero.
    #[must_use]
    pub fn interface(&self, slot: usize) -> Vec<Outcome> {
        self.outcomes_at(INTERFACES + slot * OUTCOMES)
    }

    /// What socket lookups came to whose packets no program had decided about, likewise; bytes are not
    /// known of them.
    #[must_use]
    pub fn lookups(&self) -> Vec<Outcome> {
        self.outcomes_at(LOOKUPS)
    }

    fn outcomes_at(&self, offset: usize) -> Vec<Outcome> {
        let mut sums = [Counter::default(); VERDICT_SLOTS * REASON_SLOTS];
        self.sum(offset, bytemuck::cast_slice_mut(&mut sums));
        let mut outcomes = Vec::new();
        for verdict in Verdict::ALL {
            for &reason in Reason::ALL {
                let counter = sums[verdict as usize * REASON_SLOTS + reason as usize];
                if counter.packets != 0 {
                    outcomes.push(Outcome {
                        verdict,
                        reason,
                        counter,
                    });
                }
            }
        }
        outcomes
    }

    /// What all interfaces' frames came to, those that are detached included, and what socket lookups
    /// came to whose packets no program had seen before.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let mut sums: Vec<Outcome> = Vec::new();
        let frames = (0..MAX_INTERFACES).flat_map(|slot| self.interface(slot));
        for outcome in frames.chain(self.lookups()) {
            let known = sums
                .iter_mut()
                .find(|sum| (sum.verdict, sum.reason) == (outcome.verdict, outcome.reason));
            match known {
                Some(sum) => {
                    sum.counter.packets += outcome.counter.packets;
                    sum.counter.bytes += outcome.counter.bytes;
                }
                None => sums.push(outcome),
            }
        }
        sums.sort_by_key(|sum| (sum.verdict, sum.reason));
        sums
    }

    /// What became of rejected packets, by [`Replied`].
    #[must_use]
    pub fn replied(&self) -> [u64; Replied::ALL.len()] {
        let mut sums = [0; Replied::ALL.len()];
        self.sum(REPLIED, &mut sums);
        sums
    }

    /// Sets a rule's counters to zero. No program may use the rule.
    pub(crate) fn reset_rule(&self, rule: RuleId) {
        let (block, at) = (rule as usize / TALLIES, rule as usize % TALLIES);
        let block = RULES + block * size_of::<Tallies>();
        for part in [offset_of!(Tallies, received), offset_of!(Tallies, dropped)] {
            self.reset(block + part + at * COUNTER, COUNTER);
        }
    }

    /// Sets an interface's counters to zero. No program may be attached to it.
    pub(crate) fn reset_interface(&self, slot: usize) {
        self.reset(INTERFACES + slot * OUTCOMES, OUTCOMES);
    }

    fn reset(&self, offset: usize, bytes: usize) {
        let zeros = vec![0; bytes / size_of::<u64>()];
        if let Some(own) = &self.own {
            own.shared.write(offset, &zeros);
            own.zero_own(0, offset, zeros.len());
        }
        self.earlier.reset(offset, bytes);
    }

    /// The traffic of some ports or rules, of which the tallies begin at `offset`.
    fn traffic(&self, offset: usize, which: Range<usize>) -> Vec<Traffic> {
        let first = which.start / TALLIES * TALLIES;
        let mut tallies = vec![Tallies::zeroed(); which.end.div_ceil(TALLIES) - first / TALLIES];
        let begin = offset + first * size_of::<Tallies>() / TALLIES;
        self.sum(begin, bytemuck::cast_slice_mut(&mut tallies));
        let all = tallies.iter().flat_map(|tallies| {
            let both = tallies.received.iter().zip(&tallies.dropped);
            both.map(|(&received, &dropped)| Traffic { received, dropped })
        });
        all.skip(which.start - first).take(which.len()).collect()
    }

    /// Adds up what every CPU has at `offset`.
    fn sum(&self, offset: usize, sums: &mut [u64]) {
        if let Some(own) = &self.own {
            own.add(&own.shared, 0, offset, sums);
        }
        self.earlier.add(offset, sums);
    }
}
