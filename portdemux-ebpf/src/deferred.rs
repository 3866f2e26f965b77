//! Packets that more than their port decides about, whose decision is deferred.
//!
//! What is known of such a packet goes through a map value. The verifier knows nothing of what it reads
//! back from there, so that the rest of the decision is verified once and not for every way through the
//! parser.

use core::hint::cold_path;

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map, programs::XdpContext};
use portdemux_common::{
    decide::Metadata,
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
static METADATA: PerCpuArray<Metadata, 1> = PerCpuArray::new();

/// A packet that was deferred to [`decide`].
pub(crate) struct Deferred {
    metadata: &'static mut Metadata,
    ruleset: Ruleset,
}

/// Defers a packet to [`decide`]; nothing if a map has no element.
#[inline(always)]
pub(crate) fn defer(
    parsed: &Parsed,
    entry: Entry,
    ruleset: Ruleset,
    length: u64,
    scattered: bool,
) -> Option<Deferred> {
    let metadata = METADATA.find(0)?;
    // SAFETY: the value is this CPU's, and no other program uses the map.
    let metadata = unsafe { &mut *metadata };
    metadata.write_down(parsed, entry, ruleset.generation(), length, scattered);
    Some(Deferred { metadata, ruleset })
}

/// The packet that was deferred, taken up anew.
#[inline(always)]
pub(crate) fn current() -> Option<&'static Metadata> {
    let metadata = METADATA.find(0)?;
    // SAFETY: the value is this CPU's, and nothing writes it while this is used.
    Some(unsafe { &*metadata })
}

/// Reads what the packet that was deferred signals, for its answer.
#[inline(always)]
pub(crate) fn read_signal(ctx: &XdpContext) -> Option<()> {
    let metadata = METADATA.find(0)?;
    // SAFETY: the value is this CPU's, and nothing else uses it here.
    unsafe { &mut *metadata }.read_signal(&LinearFrame::new(ctx));
    Some(())
}

/// Decides about the packet that was deferred, and counts it; nothing if a map has no element.
///
/// Between the steps everything is taken up from the map value again ([`verifier::barrier`]).
#[inline(always)]
pub(crate) fn decide<const FRAGS: bool, const FLOWS: bool, W: Witness>(
    ctx: &XdpContext,
    Deferred { metadata, ruleset }: Deferred,
    witness: W,
) -> Option<Verdict> {
    let ruleset = &ruleset;
    verifier::barrier();
    if !FLOWS
        && metadata.scattered == 0
        && let Some(decision) = metadata.decide_by_address(&LinearFrame::new(ctx), ruleset)
    {
        witness.see_decided(decision.outcome());
        counting::count_known(metadata.length, metadata.port as usize, &decision);
        return Some(decision.verdict);
    }
    verifier::barrier();
    if FRAGS && metadata.scattered != 0 {
        cold_path();
        read::<FLOWS, _>(metadata, &WholeFrame::new(ctx));
    } else {
        read::<FLOWS, _>(metadata, &LinearFrame::new(ctx));
    }
    verifier::barrier();
    if metadata.is_fragment() {
        cold_path();
        if metadata.follows(ruleset) {
            return fragments::follow(ctx, metadata, ruleset, witness);
        }
    }
    metadata.claim(ruleset);
    verifier::barrier();
    if FLOWS {
        let tracked = flows::look(ctx, metadata, ruleset)?;
        verifier::barrier();
        cast_shadow(metadata, ruleset, Relation::of(tracked.relation));
        verifier::barrier();
        return flows::receive(ctx, metadata, tracked, ruleset, witness);
    }
    cast_shadow(metadata, ruleset, Relation::New);
    verifier::barrier();
    let mut decision = metadata.decide(ruleset, &Maps, Relation::New);
    if matches!(decision.reason, Reason::RuleSocket) {
        cold_path();
        metadata.read_signal(&LinearFrame::new(ctx));
        decision = sockets::settle(metadata, ruleset, decision);
    }
    if metadata.is_fragment() {
        cold_path();
        if metadata.leads(ruleset) {
            return fragments::lead(ctx, metadata, decision.outcome(), witness);
        }
    }
    if matches!(decision.verdict, Verdict::Redirect) {
        cold_path();
        let (length, port) = (metadata.length, metadata.port as usize);
        return Some(targets::count(
            ctx,
            length,
            port,
            decision.outcome(),
            witness,
        ));
    }
    witness.see_decided(decision.outcome());
    counting::count(metadata.length, Some(metadata.port as usize), &decision);
    Some(decision.verdict)
}

/// Reads what matters of a packet. Without flows its signal only does if it has no ports; what answers a packet
/// reads it by itself.
#[inline(always)]
fn read<const FLOWS: bool, P: Packet>(metadata: &mut Metadata, packet: &P) {
    metadata.read_addresses(packet);
    if FLOWS || !metadata.has_ports() {
        metadata.read_signal(packet);
    }
    metadata.read_extent(packet);
}

/// Counts what the shadow would do that the packet has, if it has one.
#[inline(always)]
fn cast_shadow(metadata: &Metadata, ruleset: &Ruleset, relation: Relation) {
    if metadata.shadow.is_claimed() {
        cold_path();
        let would = metadata.shadow(ruleset, &Maps, relation);
        counting::count_rule(metadata.length, would.entry, would.verdict.is_dropped());
    }
}
