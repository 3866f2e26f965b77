//! The kernel side of portdemux: glue between the core in `portdemux-common` and XDP.
//!
//! A program hands the frame to the core, counts what came of it and turns the verdict into an XDP
//! action in one exhaustive match. Nothing deeper knows an XDP code, and nothing here decides.
#![no_std]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "atomic operations, which the BPF target has and the atomic types do not offer for it"
)]

mod blocks;
mod counting;
mod deferred;
mod egress;
mod flows;
mod fragments;
mod frame;
mod limits;
pub mod redirect_drops;
mod reject;
mod ruleset;
mod sockets;
mod tables;
mod targets;
mod verifier;
mod words;

use core::hint::cold_path;

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use deferred::Deferred;
pub use egress::notice;
use frame::LinearFrame;
pub use frame::WholeFrame;
use portdemux_common::{
    decide::{self, Decision, Outcome},
    packet::Packet,
    parse::{self, Continuation, Parsed},
    reason::Verdict,
};
pub use sockets::{listens, steer};

/// What the core asks for, in the maps.
pub(crate) struct Maps;

/// Sees every decision. The attached program has none, its twin writes them down.
pub trait Witness: Copy {
    /// Sees what was decided about a frame by its port.
    fn see(self, ctx: &XdpContext, parsed: &Parsed, decision: &Decision);

    /// Sees what came of the last frame if more than its port decided.
    fn see_decided(self, outcome: Outcome);
}

impl Witness for () {
    #[inline(always)]
    fn see(self, _ctx: &XdpContext, _parsed: &Parsed, _decision: &Decision) {}

    #[inline(always)]
    fn see_decided(self, _outcome: Outcome) {}
}

/// Reads a frame, decides about it, counts it and returns the XDP action.
///
/// With `FRAGS` a frame can lie in several buffers (`xdp.frags`, Linux 5.18 and newer). With `FLOWS`
/// flows are tracked.
#[inline(always)]
pub fn dispatch<const FRAGS: bool, const FLOWS: bool, W: Witness>(
    ctx: &XdpContext,
    witness: W,
) -> xdp_action::Type {
    let step = decide_by_port::<FRAGS, FLOWS, W>(ctx, witness);
    // Not by a closure, of which the compiler may make a program of its own, with a stack of its own.
    let decided = match step.deferred {
        Some(packet) => deferred::decide::<FRAGS, FLOWS, W>(ctx, packet, witness),
        None => step.verdict,
    };
    let Some(verdict) = decided else {
        // A map has no element: this cannot happen, and aborting drops.
        return xdp_action::XDP_ABORTED;
    };
    match verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Redirect => xdp_action::XDP_REDIRECT,
        Verdict::Reject => {
            cold_path();
            reject::to_sender(ctx)
        }
    }
}

/// How far a frame has come: it has its verdict, or it is [`deferred`], or, if there is neither, a map
/// has no element.
struct Step {
    verdict: Option<Verdict>,
    deferred: Option<Deferred>,
}

/// Decides about a frame and counts it, or defers it.
#[inline(always)]
fn decide_by_port<const FRAGS: bool, const FLOWS: bool, W: Witness>(
    ctx: &XdpContext,
    witness: W,
) -> Step {
    let finish = Finish::<W, FRAGS, FLOWS> { ctx, witness };
    let frame = LinearFrame::new(ctx);
    if let Some(step) = parse::parse_sound(&frame, finish) {
        return step;
    }
    cold_path();
    if !FRAGS {
        let parsed = parse::parse(&frame);
        return finish.with_length(frame.length(), &parsed, false);
    }
    // Malformed, or a frame in several buffers (jumbo MTU) that only looks cut off.
    let whole = WholeFrame::new(ctx);
    let parsed = parse::parse(&whole);
    finish.with_length(whole.length(), &parsed, true)
}

#[derive(Clone, Copy)]
struct Finish<'a, W, const FRAGS: bool, const FLOWS: bool> {
    ctx: &'a XdpContext,
    witness: W,
}

impl<W: Witness, const FRAGS: bool, const FLOWS: bool> Continuation<LinearFrame>
    for Finish<'_, W, FRAGS, FLOWS>
{
    type Output = Step;

    #[inline(always)]
    fn sound(self, frame: &LinearFrame, parsed: &Parsed) -> Step {
        // The packet ends within the first buffer. What may lie beyond is padding, of which only
        // the length counts.
        let length = if FRAGS && frame.may_have_more() {
            cold_path();
            WholeFrame::new(self.ctx).length()
        } else {
            frame.length()
        };
        self.with_length(length, parsed, false)
    }
}

impl<W: Witness, const FRAGS: bool, const FLOWS: bool> Finish<'_, W, FRAGS, FLOWS> {
    #[inline(always)]
    fn with_length(self, length: usize, parsed: &Parsed, scattered: bool) -> Step {
        let mut step = Step {
            verdict: None,
            deferred: None,
        };
        // Asked for only here, the ruleset takes no register from the parser.
        let Some(ruleset) = ruleset::in_force() else {
            return step;
        };
        let length = length as u64;
        let decision = match decide::by_port(parsed, &ruleset) {
            Ok(decision) => decision,
            Err(entry) => {
                cold_path();
                self.witness
                    .see(self.ctx, parsed, &Decision::undecided(entry));
                step.deferred = deferred::defer(parsed, entry, ruleset, length, scattered);
                return step;
            }
        };
        self.witness.see(self.ctx, parsed, &decision);
        let port = parsed
            .ports()
            .map(|ports| ports.destination.index(ports.transport));
        counting::count(length, port, &decision);
        step.verdict = Some(decision.verdict);
        step
    }
}
