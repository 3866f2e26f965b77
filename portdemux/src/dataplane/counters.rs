//! Counters, summed over all CPUs.

use portdemux_common::{
    counters::{
        Counter, CpuCounters, MAX_INTERFACES, Outcomes, PORT_PLACES, REASON_PLACES, Traffic,
        VERDICT_PLACES,
    },
    reason::{Reason, Verdict},
    ruleset::RuleId,
    wire::{Port, Transport},
};

use super::mapped::Mapped;

const INTERFACES: usize = std::mem::offset_of!(CpuCounters, interfaces);
const RULES: usize = std::mem::offset_of!(CpuCounters, rules);
const PORTS: usize = std::mem::offset_of!(CpuCounters, ports);
const OUTCOMES: usize = size_of::<Outcomes>();

/// The counters map.
#[derive(Debug)]
pub struct Counters {
    memory: Mapped,
    cpus: usize,
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
    pub(super) const fn new(memory: Mapped, cpus: usize) -> Self {
        Self { memory, cpus }
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(self.memory.words())
    }

    /// The traffic of one port.
    #[must_use]
    pub fn port(&self, transport: Transport, port: u16) -> Traffic {
        let mut sum = [Traffic::default()];
        self.sum(
            PORTS + Port::new(port).index(transport) * size_of::<Traffic>(),
            &mut sum,
        );
        sum[0]
    }

    /// The traffic of every port, by [`Port::index`].
    #[must_use]
    pub fn ports(&self) -> Vec<Traffic> {
        let mut sums = vec![Traffic::default(); PORT_PLACES];
        self.sum(PORTS, &mut sums);
        sums
    }

    /// The traffic of the first `count` rules, by rule id.
    #[must_use]
    pub fn rules(&self, count: usize) -> Vec<Traffic> {
        let mut sums = vec![Traffic::default(); count];
        self.sum(RULES, &mut sums);
        sums
    }

    /// What the frames of the interface at `place` came to, nothing left out but what is zero.
    #[must_use]
    pub fn interface(&self, place: usize) -> Vec<Outcome> {
        let mut sums = [Counter::default(); VERDICT_PLACES * REASON_PLACES];
        self.sum(INTERFACES + place * OUTCOMES, &mut sums);
        let mut outcomes = Vec::new();
        for verdict in Verdict::ALL {
            for &reason in Reason::ALL {
                let counter = sums[verdict as usize * REASON_PLACES + reason as usize];
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

    /// What all interfaces' frames came to, those that are detached included.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let mut sums: Vec<Outcome> = Vec::new();
        for outcome in (0..MAX_INTERFACES).flat_map(|place| self.interface(place)) {
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

    /// Sets a rule's counters to zero. No program may use the rule.
    pub(super) fn reset_rule(&self, rule: RuleId) {
        self.reset(
            RULES + rule as usize * size_of::<Traffic>(),
            size_of::<Traffic>(),
        );
    }

    /// Sets an interface's counters to zero. No program may be attached to it.
    pub(super) fn reset_interface(&self, place: usize) {
        self.reset(INTERFACES + place * OUTCOMES, OUTCOMES);
    }

    fn reset(&self, offset: usize, bytes: usize) {
        let zeros = vec![0; bytes / size_of::<u64>()];
        for cpu in 0..self.cpus {
            self.memory
                .write(cpu * size_of::<CpuCounters>() + offset, &zeros);
        }
    }

    /// Adds up what every CPU has at `offset`.
    fn sum<T: bytemuck::Pod>(&self, offset: usize, into: &mut [T]) {
        let sums: &mut [u64] = bytemuck::cast_slice_mut(into);
        let words = self.memory.words();
        for cpu in 0..self.cpus {
            let start = (cpu * size_of::<CpuCounters>() + offset) / size_of::<u64>();
            for (sum, word) in sums.iter_mut().zip(&words[start..]) {
                *sum += word.load(std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
}
