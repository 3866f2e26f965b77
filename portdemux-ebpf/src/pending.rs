//! Packets that more than their port decides about.
//!
//! What is known of such a packet goes through a map value. The verifier knows nothing of what it reads
//! back from there, so that the rest of the decision is verified once and not for every way through the
//! parser.

use core::hint::cold_path;

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map, programs::XdpContext};
use portdemux_common::{
    decide::Pending,
    flows::Relation,
    packet::Packet,
    parse::Parsed,
    reason::{Reason, Verdict},
    ruleset::Entry,
};

use crate::{
    Maps, WholeFrame, Witness, counting, flows, fragments,
    frame::LinearFrame,
    ruleset::Ruleset,
    sockets, targets,
    verifier::{self, Lookup as _},
};

/// The packet that a CPU is busy with.
#[btf_map]
static PENDING: PerCpuArray<Pending, 1> = PerCpuArray::new();

/// A packet that was left to [`decide`].
pub(crate) struct Left {
    pending: &'static mut Pending,
    ruleset: Ruleset,
}

/// Leaves a packet to [`decide`]; nothing if a map has no element.
#[inline(always)]
pub(crate) fn leave(
    parsed: &Parsed,
    entry: Entry,
    ruleset: Ruleset,
    length: u64,
    scattered: bool,
) -> Option<Left> {
    let pending = PENDING.find(0)?;
    // SAFETY: the value is this CPU's, and no other program uses the map.
    let pending = unsafe { &mut *pending };
    pending.write_down(parsed, entry, ruleset.generation(), length, scattered);
    Some(Left { pending, ruleset })
}

/// The packet that was left, taken up anew.
#[inline(always)]
pub(crate) fn left() -> Option<&'static Pending> {
    let pending = PENDING.find(0)?;
    // SAFETY: the value is this CPU's, and nothing writes it while this is used.
    Some(unsafe { &*pending })
}

/// Reads what the packet that was left signals, for its answer.
#[inline(always)]
pub(crate) fn read_signal(ctx: &XdpContext) -> Option<()> {
    let pending = PENDING.find(0)?;
    // SAFETY: the value is this CPU's, and nothing else uses it here.
    unsafe { &mut *pending }.read_signal(&LinearFrame::new(ctx));
    Some(())
}

/// Decides about the packet that was left, and counts it; nothing if a map has no element.
///
/// Between the steps everything is taken up from the map value again ([`verifier::barrier`]).
#[inline(always)]
pub(crate) fn decide<const FRAGS: bool, const FLOWS: bool, W: Witness>(
    ctx: &XdpContext,
    Left { pending, ruleset }: Left,
    witness: W,
) -> Option<Verdict> {
    let ruleset = &ruleset;
    verifier::barrier();
    if FRAGS && pending.scattered != 0 {
        cold_path();
        read::<FLOWS, _>(pending, &WholeFrame::new(ctx));
    } else {
        read::<FLOWS, _>(pending, &LinearFrame::new(ctx));
    }
    verifier::barrier();
    if pending.is_fragment() {
        cold_path();
        if pending.follows(ruleset) {
            return fragments::follow(ctx, pending, ruleset, witness);
        }
    }
    pending.claim(ruleset);
    verifier::barrier();
    if FLOWS {
        let tracked = flows::look(ctx, pending, ruleset)?;
        verifier::barrier();
        cast_shadow(pending, ruleset, Relation::of(tracked.relation));
        verifier::barrier();
        return flows::receive(ctx, pending, tracked, ruleset, witness);
    }
    cast_shadow(pending, ruleset, Relation::New);
    verifier::barrier();
    let mut decision = pending.decide(ruleset, &Maps, Relation::New);
    if matches!(decision.reason, Reason::RuleSocket) {
        cold_path();
        pending.read_signal(&LinearFrame::new(ctx));
        decision = sockets::settle(pending, ruleset, decision);
    }
    if pending.is_fragment() {
        cold_path();
        if pending.leads(ruleset) {
            return fragments::lead(ctx, pending, decision.outcome(), witness);
        }
    }
    if matches!(decision.verdict, Verdict::Redirect) {
        cold_path();
        let (length, port) = (pending.length, pending.port as usize);
        return Some(targets::count(
            ctx,
            length,
            port,
            decision.outcome(),
            witness,
        ));
    }
    witness.see_decided(decision.outcome());
    counting::count(pending.length, Some(pending.port as usize), &decision);
    Some(decision.verdict)
}

/// Reads what matters of a packet. Without flows its signal only does if it has no ports; what answers a packet
/// reads it by itself.
#[inline(always)]
fn read<const FLOWS: bool, P: Packet>(pending: &mut Pending, packet: &P) {
    pending.read_addresses(packet);
    if FLOWS || !pending.has_ports() {
        pending.read_signal(packet);
    }
    pending.read_extent(packet);
}

/// Counts what the shadow would do that the packet has, if it has one.
#[inline(always)]
fn cast_shadow(pending: &Pending, ruleset: &Ruleset, relation: Relation) {
    if pending.shadow.is_claimed() {
        cold_path();
        let would = pending.shadow(ruleset, &Maps, relation);
        counting::count_rule(pending.length, would.entry, would.verdict.is_dropped());
    }
}
