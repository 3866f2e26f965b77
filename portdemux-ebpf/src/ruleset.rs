//! The maps that hold the ruleset.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use portdemux_common::{ruleset::RulesetImage, state::Generation};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// Which generation is in force; written by the control plane with one 8-byte store.
#[btf_map]
static GENERATION: Array<Generation, 1, MMAPABLE> = Array::new();

/// Two compiled rulesets, of which [`Generation::half`] names the one in force.
#[btf_map]
static RULESETS: Array<RulesetImage, 2, MMAPABLE> = Array::new();

/// The ruleset that is in force, for the packet that is being looked at.
#[inline(always)]
#[must_use]
pub fn in_force() -> Option<&'static RulesetImage> {
    let generation = GENERATION.get(0)?;
    RULESETS.get(generation.half())
}
