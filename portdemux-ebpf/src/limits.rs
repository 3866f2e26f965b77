//! The map that holds what is left of rates.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use portdemux_common::{
    ids::RuleId,
    limits::{LimitWords, Limits, RateBucket, RateKind},
};

use crate::{
    variant::{Maps, Variant},
    verifier::{Elements as _, Lookup as _},
    words::Shared,
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// The words of all rates; every CPU changes them, one at a time.
#[btf_map]
static LIMITS: Array<LimitWords, 1, MMAPABLE> = Array::new();

impl<V: Variant> Limits for Maps<V> {
    #[inline(always)]
    fn instant(&self) -> u64 {
        V::precise()
    }

    #[inline(always)]
    fn of_rule(&self, rule: RuleId, kind: RateKind) -> Option<&Shared> {
        let limits = LIMITS.find_ref(0)?;
        let word: *const u64 = limits.rules.element(rule as usize)?.get(kind as usize)?;
        // SAFETY: it is a word of a map's memory, which stays while the program runs.
        Some(unsafe { &*word.cast() })
    }

    #[inline(always)]
    fn bucket(&self, at: u32) -> Option<&RateBucket<Shared>> {
        let bucket: *const RateBucket<u64> = LIMITS.find_ref(0)?.sources.element(at as usize)?;
        // SAFETY: both are the same words, as above.
        Some(unsafe { &*bucket.cast() })
    }
}
