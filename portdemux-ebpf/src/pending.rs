//! Packets that more than their port decides about.
//!
//! What is known of such a packet goes through a map value. The verifier knows nothing of what it reads
//! back from there, so that the rest of the decision is verified once and not for every way through the
//! parser.

use core::hint::cold_path;

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map, programs::XdpContext};
use portdemux_common::{decide::Pending, flows::Relation, reason::Verdict};

use crate::{
    WholeFrame, Witness, counting, flows, frame::LinearFrame, ruleset, sources::SourceWords,
};

/// The packet that a CPU is busy with.
#[btf_map]
static PENDING: PerCpuArray<Pending, 1> = PerCpuArray::new();

/// Leaves a packet to [`decide`].
#[inline(always)]
pub(crate) fn leave(now: Pending) {
    if let Some(pending) = PENDING.get_ptr_mut(0) {
        // SAFETY: the value is this CPU's, and no other program uses the map.
        unsafe { *pending = now };
    }
}

/// Decides about the packet that was left, and counts it; nothing if a map has no element.
#[inline(always)]
pub(crate) fn decide<const FRAGS: bool, const FLOWS: bool, W: Witness>(
    ctx: &XdpContext,
    witness: W,
) -> Option<Verdict> {
    let pending = PENDING.get_ptr_mut(0)?;
    // SAFETY: as above.
    let pending = unsafe { &mut *pending };
    if FRAGS && pending.scattered != 0 {
        cold_path();
        pending.read(&WholeFrame::new(ctx));
    } else {
        pending.read(&LinearFrame::new(ctx));
    }
    if FLOWS && ruleset::of(pending.generation)?.header.defaults.flows != 0 {
        flows::look(ctx, pending)?;
        let pending = PENDING.get_ptr(0)?;
        // SAFETY: as above.
        let pending = unsafe { &*pending };
        return flows::receive(pending, ruleset::of(pending.generation)?, witness);
    }
    let decision = pending.decide(
        ruleset::of(pending.generation)?,
        &SourceWords,
        Relation::New,
    );
    witness.see_decided(&decision);
    counting::count(pending.length, Some(pending.port() as usize), &decision);
    Some(decision.verdict)
}
