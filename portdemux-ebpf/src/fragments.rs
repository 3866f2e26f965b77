//! The map that says what came of first fragments.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use portdemux_common::{
    fragments::{Buckets, FragmentBucket, FragmentTable},
    memory::Word as _,
};

use crate::{
    variant::{Maps, Variant},
    verifier::{Elements as _, Lookup as _},
    words::Shared,
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// What came of first fragments; whoever makes the map writes the secret of its tags.
#[btf_map]
static FRAGMENTS: Array<Buckets<u64>, 1, MMAPABLE> = Array::new();

/// The table in the map.
#[inline(always)]
fn buckets() -> Option<&'static Buckets<Shared>> {
    let buckets = FRAGMENTS.find(0)?;
    // SAFETY: both are the same words, and a map's memory stays while the program runs.
    Some(unsafe { &*buckets.cast() })
}

impl<V: Variant> FragmentTable for Maps<V> {
    #[inline(always)]
    fn seed(&self) -> u64 {
        match buckets() {
            Some(buckets) => buckets.seed.load(),
            None => 0,
        }
    }

    #[inline(always)]
    fn bucket(&self, at: u32) -> Option<&FragmentBucket<Shared>> {
        buckets()?.buckets.element(at as usize)
    }
}
