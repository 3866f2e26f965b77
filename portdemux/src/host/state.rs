//! What is remembered from packet to packet.

use std::{
    array,
    cell::{Ref, RefCell},
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use elsa::FrozenMap;
use portdemux_common::{
    bucket::{self, Slots},
    conntrack::{self, Event, Shape, Which},
    fragments,
    ids::RuleId,
    limits,
};

/// A bucket of a table, as words in the order in which they lie in the map.
pub trait Bucket {
    /// How many words.
    const WORDS: usize;

    /// The bucket of these words; what is missing is zero.
    fn of_words(words: &[u64]) -> Self;

    /// Its words.
    fn words(&self) -> Vec<u64>;
}

/// Where the buckets of a table come from that were not asked for before: a copy of what stands there.
pub type BucketSource<'s, B> = Box<dyn Fn(u32) -> B + 's>;

/// A table of buckets, each made when it is first asked for.
pub struct Buckets<'s, B> {
    asked: FrozenMap<u32, Box<B>>,
    source: BucketSource<'s, B>,
    /// What stood in the buckets that the last packet asked for, before it did.
    before: RefCell<Vec<(u32, Vec<u64>)>>,
}

impl<'s, B: Bucket> Buckets<'s, B> {
    /// A table whose buckets come from a source.
    #[must_use]
    pub fn new(source: BucketSource<'s, B>) -> Self {
        Self {
            asked: FrozenMap::new(),
            source,
            before: RefCell::default(),
        }
    }

    /// A table in which nothing stands.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Box::new(|_| B::of_words(&[])))
    }

    /// A bucket.
    #[must_use]
    pub fn get(&self, at: u32) -> &B {
        let bucket = match self.asked.get(&at) {
            Some(bucket) => bucket,
            None => self.asked.insert(at, Box::new((self.source)(at))),
        };
        let mut before = self.before.borrow_mut();
        if before.iter().all(|&(other, _)| other != at) {
            before.push((at, bucket.words()));
        }
        bucket
    }

    /// What stood in the buckets that the last packet asked for, before it did, by their number.
    #[must_use]
    pub fn before(&self) -> Ref<'_, [(u32, Vec<u64>)]> {
        Ref::map(self.before.borrow(), Vec::as_slice)
    }

    /// What stood in one of them; nothing if it was not asked for.
    #[must_use]
    pub fn before_in(&self, at: u32) -> Option<B> {
        let before = self.before();
        let mut asked = before.iter().filter(|&&(other, _)| other == at);
        asked.next().map(|(_, words)| B::of_words(words))
    }

    /// The buckets that were asked for, by their number.
    pub fn touched(&mut self) -> impl Iterator<Item = (u32, &B)> {
        let buckets = self.asked.as_mut().iter();
        buckets.map(|(&at, bucket)| (at, &**bucket))
    }

    /// Begins with another packet; if that is to find nothing of what others did, the buckets come from the source again.
    fn next(&mut self, keeps: bool) {
        self.before.get_mut().clear();
        if !keeps {
            self.asked.as_mut().clear();
        }
    }
}

impl<B> fmt::Debug for Buckets<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets")
            .field("touched", &self.asked.len())
            .finish_non_exhaustive()
    }
}

/// The words of one of the rates of a rule, by [`limits::RateKind`].
pub type RuleRates = [AtomicU64; 2];

/// What programs remember from packet to packet: flows, first fragments, what is left of rates.
#[derive(Debug)]
pub struct State<'s> {
    /// How large the tables of flows are.
    pub shape: Shape,
    /// The flows that are known.
    pub known: Buckets<'s, conntrack::table::FlowBucket<AtomicU64>>,
    /// The flows that peers have begun and that are not complete.
    pub half_open: Buckets<'s, conntrack::table::FlowBucket<AtomicU64>>,
    /// The secret of the tags of first fragments.
    pub fragments_seed: u64,
    /// What came of first fragments.
    pub fragments: Buckets<'s, fragments::FragmentBucket<AtomicU64>>,
    /// What is left of the rates of rules, by rule id.
    pub rates: Buckets<'s, RuleRates>,
    /// What is left of the rates of sources.
    pub source_rates: Buckets<'s, limits::RateBucket<AtomicU64>>,
    events: [AtomicU64; Event::ALL.len()],
}

impl<'s> State<'s> {
    /// Nothing is remembered yet; the tables of flows have this shape.
    #[must_use]
    pub fn empty(shape: Shape) -> Self {
        Self {
            shape,
            known: Buckets::empty(),
            half_open: Buckets::empty(),
            fragments_seed: 0,
            fragments: Buckets::empty(),
            rates: Buckets::empty(),
            source_rates: Buckets::empty(),
            events: Default::default(),
        }
    }

    /// Begins with another packet. First fragments are remembered for it, flows and rates only if it `follows` the packets
    /// before it.
    pub fn next(&mut self, follows: bool) {
        self.known.next(follows);
        self.half_open.next(follows);
        self.rates.next(follows);
        self.source_rates.next(follows);
        self.fragments.next(true);
    }

    /// How often something happened to flows.
    #[must_use]
    pub fn count(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) const fn flows(
        &self,
        which: Which,
    ) -> &Buckets<'s, conntrack::table::FlowBucket<AtomicU64>> {
        match which {
            Which::Known => &self.known,
            Which::HalfOpen => &self.half_open,
        }
    }

    pub(super) fn rate(&self, rule: RuleId, kind: limits::RateKind) -> Option<&AtomicU64> {
        self.rates.get(rule).get(kind as usize)
    }
}

/// The word at a slot, for an array of them.
fn word(words: &[u64], at: usize) -> AtomicU64 {
    AtomicU64::new(words.get(at).copied().unwrap_or_default())
}

fn loaded<'w>(words: impl IntoIterator<Item = &'w AtomicU64>) -> Vec<u64> {
    let words = words.into_iter();
    words.map(|word| word.load(Ordering::Acquire)).collect()
}

impl<S: Slots<Word = AtomicU64>> Bucket for bucket::Bucket<AtomicU64, S> {
    const WORDS: usize = Self::WORDS;

    fn of_words(words: &[u64]) -> Self {
        Self::of(|at| word(words, at))
    }

    fn words(&self) -> Vec<u64> {
        loaded(self.words())
    }
}

impl Bucket for RuleRates {
    const WORDS: usize = 2;

    fn of_words(words: &[u64]) -> Self {
        array::from_fn(|at| word(words, at))
    }

    fn words(&self) -> Vec<u64> {
        loaded(self)
    }
}
