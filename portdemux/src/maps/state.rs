//! What an instance remembers from packet to packet, to be asked without changing it.

use std::mem::offset_of;

use portdemux_common::{
    capacity::RULE_SLOTS,
    conntrack::{Shape, Which},
    fragments::{self, Buckets as Fragments},
    limits::LimitWords,
};

use crate::{
    host::{Bucket, Buckets, State},
    maps::{Maps, flows::FlowTables, mapped::Mapped},
};

impl Maps {
    /// Copies of what the programs remember, made as they are asked for; `flows` are the tables of flows.
    #[must_use]
    pub fn state<'s>(&'s self, flows: Option<&'s FlowTables>) -> State<'s> {
        const SIZE: usize = size_of::<fragments::FragmentBucket<u64>>();
        const SOURCE: usize = size_of::<portdemux_common::limits::RateBucket<u64>>();
        let mut state = State::empty(Shape::default());
        if let Some(flows) = flows {
            state.shape = flows.shape;
            state.known = Buckets::new(Box::new(|at| flows.copy(Which::Known, at)));
            state.half_open = Buckets::new(Box::new(|at| flows.copy(Which::HalfOpen, at)));
        }
        let mut seed = [0];
        self.fragments
            .read(offset_of!(Fragments<u64>, seed), &mut seed);
        [state.fragments_seed] = seed;
        let first = offset_of!(Fragments<u64>, buckets);
        state.fragments = Buckets::new(Box::new(move |at| {
            copy(&self.fragments, first + at as usize * SIZE)
        }));
        state.rates = Buckets::new(Box::new(|rule| {
            let slot = rule as usize % RULE_SLOTS;
            copy(&self.limits, slot * size_of::<[u64; 2]>())
        }));
        let first = offset_of!(LimitWords, sources);
        state.source_rates = Buckets::new(Box::new(move |at| {
            copy(&self.limits, first + at as usize * SOURCE)
        }));
        state
    }
}

/// A copy of a bucket that begins at so many bytes.
pub(crate) fn copy<B: Bucket>(map: &Mapped, byte: usize) -> B {
    let mut words = vec![0; B::WORDS];
    map.read(byte, &mut words);
    B::of_words(&words)
}
