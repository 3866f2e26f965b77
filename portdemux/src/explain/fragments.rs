//! What came of first fragments, in the memory of this process.

use std::{iter, sync::atomic::AtomicU64};

use portdemux_common::fragments::{BUCKETS, Bucket, Table};

/// The table of first fragments, as the kernel has it.
pub(super) struct FirstFragments {
    buckets: Box<[Bucket<AtomicU64>]>,
}

impl Default for FirstFragments {
    fn default() -> Self {
        let buckets = iter::repeat_with(Bucket::default).take(BUCKETS);
        Self {
            buckets: buckets.collect(),
        }
    }
}

impl Table for FirstFragments {
    type Word = AtomicU64;

    /// Whoever has a capture explained aims at nobody's places.
    fn seed(&self) -> u64 {
        0
    }

    fn bucket(&self, at: u32) -> Option<&Bucket<AtomicU64>> {
        self.buckets.get(at as usize)
    }

    fn launder(&self, number: u64) -> u64 {
        number
    }
}
