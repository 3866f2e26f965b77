//! Packets that more than their port decides about.
//!
//! What is known of such a packet goes through a map value. The verifier knows nothing of what it reads
//! back from there, so that the rest of the decision is verified once and not for every way through the
//! parser.

use core::hint::cold_path;

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map, programs::XdpContext};
use portdemux_common::{decide::Pending, flows::Relation, reason::Verdict};

use crate::{Maps, WholeFrame, Witness, counting, flows, fragments, frame::LinearFrame, ruleset};

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

/// The packet that was left, taken up anew.
#[inline(always)]
pub(crate) fn left() -> Option<&'static Pending> {
    let pending = PENDING.get_ptr(0)?;
    // SAFETY: the value is this CPU's, and nothing writes it once the packet is decided about.
    Some(unsafe { &*pending })
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
        pending.read_extent(&WholeFrame::new(ctx));
    } else {
        pending.read(&LinearFrame::new(ctx));
        pending.read_extent(&LinearFrame::new(ctx));
    }
    if pending.follows(ruleset::of(pending.generation)?) {
        cold_path();
        return fragments::follow(pending, ruleset::of(pending.generation)?, witness);
    }
    pending.claim(ruleset::of(pending.generation)?);
    if FLOWS {
        flows::look(ctx, pending)?;
        cast_shadow(flows::relation()?)?;
        let pending = left()?;
        return flows::receive(pending, ruleset::of(pending.generation)?, witness);
    }
    cast_shadow(Relation::New)?;
    let pending = left()?;
    let decision = pending.decide(ruleset::of(pending.generation)?, &Maps, Relation::New);
    if pending.leads(ruleset::of(pending.generation)?) {
        cold_path();
        return fragments::lead(pending, decision.outcome(), witness);
    }
    witness.see_decided(decision.outcome());
    counting::count(pending.length, Some(pending.port() as usize), &decision);
    Some(decision.verdict)
}

/// Counts what the shadow would do that the packet has, if it has one.
#[inline(always)]
fn cast_shadow(relation: Relation) -> Option<()> {
    let pending = left()?;
    if pending.shadow.is_claimed() {
        cold_path();
        let would = pending.shadow(ruleset::of(pending.generation)?, &Maps, relation);
        let is_dropped = !matches!(would.verdict, Verdict::Pass);
        counting::count_rule(pending.length, would.entry, is_dropped);
    }
    Some(())
}
