//! The map that holds the rulesets.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use portdemux_common::ruleset::{RulesetImage, Rulesets};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// The rulesets; the control plane writes the idle one, then the generation with one 8-byte store.
#[btf_map]
static RULESETS: Array<Rulesets, 1, MMAPABLE> = Array::new();

/// The ruleset that is in force, for the packet that is being looked at.
#[inline(always)]
#[must_use]
pub(crate) fn in_force() -> Option<&'static RulesetImage> {
    RULESETS.get(0).map(Rulesets::in_force)
}
