//! What is remembered from packet to packet.

use std::{
    array, fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use elsa::FrozenMap;
use portdemux_common::{
    flows::{self, Event, Shape, Which},
    fragments, limits,
    ruleset::RuleId,
};

/// Where the buckets of a table come from that were not asked for before: a copy of what stands there.
pub type Source<'s, B> = Box<dyn Fn(u32) -> B + 's>;

/// A table of buckets, each made when it is first asked for.
pub struct Buckets<'s, B> {
    buckets: FrozenMap<u32, Box<B>>,
    source: Source<'s, B>,
}

impl<'s, B> Buckets<'s, B> {
    /// A table whose buckets come from a source.
    #[must_use]
    pub fn new(source: Source<'s, B>) -> Self {
        Self {
            buckets: FrozenMap::new(),
            source,
        }
    }

    /// A bucket.
    #[must_use]
    pub fn get(&self, at: u32) -> &B {
        match self.buckets.get(&at) {
            Some(bucket) => bucket,
            None => self.buckets.insert(at, Box::new((self.source)(at))),
        }
    }

    /// Forgets what became of them: they come from the source again.
    pub fn clear(&mut self) {
        self.buckets.as_mut().clear();
    }

    /// The buckets that were asked for, by their number.
    pub fn touched(&mut self) -> impl Iterator<Item = (u32, &B)> {
        let buckets = self.buckets.as_mut().iter();
        buckets.map(|(&at, bucket)| (at, &**bucket))
    }
}

impl<B> fmt::Debug for Buckets<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets")
            .field("touched", &self.buckets.len())
            .finish_non_exhaustive()
    }
}

/// What programs remember from packet to packet: flows, first fragments, what is left of rates.
#[derive(Debug)]
pub struct State<'s> {
    /// How large the tables of flows are.
    pub shape: Shape,
    /// The flows that are known.
    pub known: Buckets<'s, flows::table::Bucket<AtomicU64>>,
    /// The flows that peers have begun and that are not complete.
    pub half_open: Buckets<'s, flows::table::Bucket<AtomicU64>>,
    /// The secret of the tags of first fragments.
    pub fragments_seed: u64,
    /// What came of first fragments.
    pub fragments: Buckets<'s, fragments::Bucket<AtomicU64>>,
    /// What is left of the rates of rules, by rule id and [`limits::RateKind`].
    pub rates: Buckets<'s, [AtomicU64; 2]>,
    /// What is left of the rates of sources.
    pub source_rates: Buckets<'s, limits::Bucket<AtomicU64>>,
    events: [AtomicU64; Event::ALL.len()],
}

impl State<'_> {
    /// Nothing is remembered yet; the tables of flows have this shape.
    #[must_use]
    pub fn empty(shape: Shape) -> Self {
        Self {
            shape,
            known: Buckets::new(Box::new(|_| free_flows())),
            half_open: Buckets::new(Box::new(|_| free_flows())),
            fragments_seed: 0,
            fragments: Buckets::new(Box::new(|_| fragments::Bucket::default())),
            rates: Buckets::new(Box::new(|_| <[AtomicU64; 2]>::default())),
            source_rates: Buckets::new(Box::new(|_| limits::Bucket::default())),
            events: Default::default(),
        }
    }

    /// Forgets what packets have made of flows and rates. First fragments stay.
    pub fn forget_flows(&mut self) {
        self.known.clear();
        self.half_open.clear();
        self.rates.clear();
        self.source_rates.clear();
    }

    /// How often something happened to flows.
    #[must_use]
    pub fn count(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn flows(&self, which: Which) -> &Buckets<'_, flows::table::Bucket<AtomicU64>> {
        match which {
            Which::Known => &self.known,
            Which::HalfOpen => &self.half_open,
        }
    }

    pub(super) fn rate(&self, rule: RuleId, kind: limits::RateKind) -> Option<&AtomicU64> {
        self.rates.get(rule).get(kind as usize)
    }
}

/// A bucket without flows.
fn free_flows() -> flows::table::Bucket<AtomicU64> {
    flows::table::Bucket {
        owners: array::from_fn(|_| AtomicU64::new(flows::table::FREE)),
        places: array::from_fn(|_| flows::table::Place(array::from_fn(|_| AtomicU64::new(0)))),
    }
}
