//! Packets that more than their port decides about.
//!
//! What is known of such a packet goes through a map value. The verifier knows nothing of what it reads
//! back from there, so that the rest of the decision is verified once and not for every way through the
//! parser.

use core::hint::cold_path;

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map, programs::XdpContext};
use portdemux_common::{decide::Pending, flows::Relation, reason::Verdict, ruleset::RulesetImage};

use crate::{
    Maps, WholeFrame, Witness, counting, flows, fragments, frame::LinearFrame, ruleset, words,
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

/// The packet that was left, taken up anew.
#[inline(always)]
pub(crate) fn left() -> Option<&'static Pending> {
    let pending = PENDING.get_ptr(0)?;
    // SAFETY: the value is this CPU's, and nothing writes it once the packet is decided about.
    Some(unsafe { &*pending })
}

/// Decides about the packet that was left, and counts it; nothing if a map has no element.
///
/// Between the steps everything is taken up from the map value again ([`words::meet`]).
#[inline(always)]
pub(crate) fn decide<const FRAGS: bool, const FLOWS: bool, W: Witness>(
    ctx: &XdpContext,
    witness: W,
) -> Option<Verdict> {
    let pending = PENDING.get_ptr_mut(0)?;
    // SAFETY: as above.
    let pending = unsafe { &mut *pending };
    let ruleset = ruleset::of(pending.generation)?;
    if FRAGS && pending.scattered != 0 {
        cold_path();
        pending.read(&WholeFrame::new(ctx));
        pending.read_extent(&WholeFrame::new(ctx));
    } else {
        pending.read(&LinearFrame::new(ctx));
        pending.read_extent(&LinearFrame::new(ctx));
    }
    words::meet();
    if pending.follows(ruleset) {
        cold_path();
        return fragments::follow(pending, ruleset, witness);
    }
    pending.claim(ruleset);
    words::meet();
    if FLOWS {
        flows::look(ctx, pending)?;
        words::meet();
        cast_shadow(pending, ruleset, flows::relation()?);
        words::meet();
        return flows::receive(pending, ruleset, witness);
    }
    cast_shadow(pending, ruleset, Relation::New);
    words::meet();
    let decision = pending.decide(ruleset, &Maps, Relation::New);
    if pending.leads(ruleset) {
        cold_path();
        return fragments::lead(pending, decision.outcome(), witness);
    }
    witness.see_decided(decision.outcome());
    counting::count(pending.length, Some(pending.port() as usize), &decision);
    Some(decision.verdict)
}

/// Counts what the shadow would do that the packet has, if it has one.
#[inline(always)]
fn cast_shadow(pending: &Pending, ruleset: &RulesetImage, relation: Relation) {
    if pending.shadow.is_claimed() {
        cold_path();
        let would = pending.shadow(ruleset, &Maps, relation);
        let is_dropped = !matches!(would.verdict, Verdict::Pass);
        counting::count_rule(pending.length, would.entry, is_dropped);
    }
}
