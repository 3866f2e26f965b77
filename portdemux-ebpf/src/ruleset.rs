//! The map that holds the rulesets.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use portdemux_common::{
    ruleset::{RulesetImage, Rulesets},
    state::Generation,
};

use crate::verifier::Lookup as _;

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// The rulesets; the control plane writes the idle one, then the generation with one 8-byte store.
#[btf_map]
static RULESETS: Array<Rulesets, 1, MMAPABLE> = Array::new();

/// The ruleset of a generation that was in force when the packet came.
#[inline(always)]
#[must_use]
pub(crate) fn of(generation: Generation) -> Option<&'static RulesetImage> {
    Some(RULESETS.find_ref(0)?.of(generation))
}

/// The generation in force, and its ruleset, for the packet that is being looked at.
#[inline(always)]
#[must_use]
pub(crate) fn in_force() -> Option<(Generation, &'static RulesetImage)> {
    let rulesets = RULESETS.find_ref(0)?;
    let generation = rulesets.generation;
    Some((generation, rulesets.of(generation)))
}
