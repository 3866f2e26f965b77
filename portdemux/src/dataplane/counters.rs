//! Counters, summed over all CPUs.

use portdemux_common::{
    answer::Told,
    counters::{
        Counter, CpuCounters, MAX_INTERFACES, Outcomes, PORT_PLACES, REASON_PLACES, VERDICT_PLACES,
    },
    reason::{Reason, Verdict},
    ruleset::RuleId,
    wire::{Port, Transport},
};

use super::{layout::Earlier, mapped::Mapped};

const INTERFACES: usize = std::mem::offset_of!(CpuCounters, interfaces);
const RULES: usize = std::mem::offset_of!(CpuCounters, rules);
const RULES_DROPPED: usize = std::mem::offset_of!(CpuCounters, rules_dropped);
const PORTS: usize = std::mem::offset_of!(CpuCounters, ports);
const PORTS_DROPPED: usize = std::mem::offset_of!(CpuCounters, ports_dropped);
const TOLD: usize = std::mem::offset_of!(CpuCounters, told);
const LOOKUPS: usize = std::mem::offset_of!(CpuCounters, lookups);
const OUTCOMES: usize = size_of::<Outcomes>();

/// The counters map.
#[derive(Debug)]
pub struct Counters {
    /// Those of this binary's layout; an older instance has none.
    own: Option<Own>,
    /// Those of other layouts.
    earlier: Earlier,
}

/// A set for each CPU.
#[derive(Debug)]
struct Own {
    memory: Mapped,
    cpus: usize,
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
    pub(super) const fn new(memory: Mapped, cpus: usize, earlier: Earlier) -> Self {
        Self {
            own: Some(Own { memory, cpus }),
            earlier,
        }
    }

    /// Those of an older instance.
    pub(super) const fn older(earlier: Earlier) -> Self {
        Self { own: None, earlier }
    }

    pub(super) fn memory(&self) -> usize {
        let own = self.own.as_ref().map_or(0, |own| own.memory.bytes());
        own + self.earlier.memory()
    }

    /// The traffic of one port.
    #[must_use]
    pub fn port(&self, transport: Transport, port: u16) -> Traffic {
        let place = Port::new(port).index(transport) * size_of::<Counter>();
        self.traffic(PORTS + place, PORTS_DROPPED + place, 1)[0]
    }

    /// The traffic of every port, by [`Port::index`].
    #[must_use]
    pub fn ports(&self) -> Vec<Traffic> {
        self.traffic(PORTS, PORTS_DROPPED, PORT_PLACES)
    }

    /// The traffic of the first `count` rules, by rule id.
    #[must_use]
    pub fn rules(&self, count: usize) -> Vec<Traffic> {
        self.traffic(RULES, RULES_DROPPED, count)
    }

    /// What the frames of the interface at `place` came to, nothing left out but what is zero.
    #[must_use]
    pub fn interface(&self, place: usize) -> Vec<Outcome> {
        self.outcomes_at(INTERFACES + place * OUTCOMES)
    }

    /// What socket lookups came to whose packets no program had decided about, likewise; bytes are not
    /// known of them.
    #[must_use]
    pub fn lookups(&self) -> Vec<Outcome> {
        self.outcomes_at(LOOKUPS)
    }

    fn outcomes_at(&self, offset: usize) -> Vec<Outcome> {
        let mut sums = [Counter::default(); VERDICT_PLACES * REASON_PLACES];
        self.sum(offset, bytemuck::cast_slice_mut(&mut sums));
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

    /// What all interfaces' frames came to, those that are detached included, and what socket lookups
    /// came to whose packets no program had seen before.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let mut sums: Vec<Outcome> = Vec::new();
        let frames = (0..MAX_INTERFACES).flat_map(|place| self.interface(place));
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

    /// What became of rejected packets, by [`Told`].
    #[must_use]
    pub fn told(&self) -> [u64; Told::ALL.len()] {
        let mut sums = [0; Told::ALL.len()];
        self.sum(TOLD, &mut sums);
        sums
    }

    /// Sets a rule's counters to zero. No program may use the rule.
    pub(super) fn reset_rule(&self, rule: RuleId) {
        let place = rule as usize * size_of::<Counter>();
        self.reset(RULES + place, size_of::<Counter>());
        self.reset(RULES_DROPPED + place, size_of::<Counter>());
    }

    /// Sets an interface's counters to zero. No program may be attached to it.
    pub(super) fn reset_interface(&self, place: usize) {
        self.reset(INTERFACES + place * OUTCOMES, OUTCOMES);
    }

    fn reset(&self, offset: usize, bytes: usize) {
        let zeros = vec![0; bytes / size_of::<u64>()];
        if let Some(own) = &self.own {
            for cpu in 0..own.cpus {
                own.memory
                    .write(cpu * size_of::<CpuCounters>() + offset, &zeros);
            }
        }
        self.earlier.reset(offset, bytes);
    }

    fn traffic(&self, received: usize, dropped: usize, count: usize) -> Vec<Traffic> {
        let mut all = vec![Counter::default(); count];
        let mut lost = all.clone();
        self.sum(received, bytemuck::cast_slice_mut(&mut all));
        self.sum(dropped, bytemuck::cast_slice_mut(&mut lost));
        all.into_iter()
            .zip(lost)
            .map(|(received, dropped)| Traffic { received, dropped })
            .collect()
    }

    /// Adds up what every CPU has at `offset`.
    fn sum(&self, offset: usize, sums: &mut [u64]) {
        if let Some(own) = &self.own {
            for cpu in 0..own.cpus {
                let start = cpu * size_of::<CpuCounters>() + offset;
                own.memory.add(start, sums);
            }
        }
        self.earlier.add(offset, sums);
    }
}
