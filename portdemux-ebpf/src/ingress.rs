//! The hook on the way in: XDP.

use core::{hint::cold_path, marker::PhantomData};

use aya_ebpf::{
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    programs::XdpContext,
};
use portdemux_common::{
    decide::{Decision, Metadata, Outcome},
    destination::Target,
    flows::Direction,
    packet::Packet as _,
    pipeline::{self, Environment, Ingress, Scratch},
};

use crate::{
    Maps, counting, flows,
    frame::{LinearFrame, WholeFrame},
    ruleset::{self, Ruleset},
    scratch, sockets, targets, verifier,
};

/// What is different where nobody but user space runs a program, to compare it with the host.
pub trait Variant: Copy {
    /// The time in nanoseconds of `CLOCK_MONOTONIC`, to a few milliseconds.
    fn coarse() -> u64;

    /// The same to the nanosecond.
    fn precise() -> u64;

    /// Sees what was decided about a frame.
    fn see(outcome: Outcome);
}

/// The program that is attached.
#[derive(Clone, Copy)]
pub struct Attached;

impl Variant for Attached {
    #[inline(always)]
    fn coarse() -> u64 {
        // SAFETY: the helper takes nothing and cannot fail (Linux 5.11, kernel/bpf/helpers.c).
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn precise() -> u64 {
        // SAFETY: the helper takes nothing and cannot fail.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn see(_outcome: Outcome) {}
}

/// A frame that an XDP program was handed.
///
/// With `FRAGS` it can lie in several buffers (`xdp.frags`, Linux 5.18 and newer). With `FLOWS` flows are tracked.
#[derive(Clone, Copy)]
pub(crate) struct Hook<'c, V, const FRAGS: bool, const FLOWS: bool> {
    ctx: &'c XdpContext,
    variant: PhantomData<V>,
}

impl<'c, V, const FRAGS: bool, const FLOWS: bool> Hook<'c, V, FRAGS, FLOWS> {
    #[inline(always)]
    pub(crate) const fn new(ctx: &'c XdpContext) -> Self {
        Self {
            ctx,
            variant: PhantomData,
        }
    }
}

impl<V: Variant, const FRAGS: bool, const FLOWS: bool> Environment for Hook<'_, V, FRAGS, FLOWS> {
    type Rules = Ruleset;
    type Ruleset = Ruleset;
    type Tables = Maps<V>;

    #[inline(always)]
    fn ruleset(self) -> Option<Ruleset> {
        ruleset::in_force()
    }

    #[inline(always)]
    fn tables(&self) -> &Maps<V> {
        &Maps(PhantomData)
    }
}

impl<V: Variant, const FRAGS: bool, const FLOWS: bool> pipeline::Hook
    for Hook<'_, V, FRAGS, FLOWS>
{
    type Scratch = &'static mut Scratch;
    type Frame = LinearFrame;

    #[inline(always)]
    fn frame(self) -> LinearFrame {
        LinearFrame::new(self.ctx)
    }

    #[inline(always)]
    fn scratch(self) -> Option<&'static mut Scratch> {
        scratch::of(Direction::Received)
    }

    #[inline(always)]
    fn barrier(self) {
        verifier::barrier();
    }
}

impl<'c, V: Variant, const FRAGS: bool, const FLOWS: bool> Ingress for Hook<'c, V, FRAGS, FLOWS> {
    type Whole = WholeFrame<'c>;

    const TRACKS_FLOWS: bool = FLOWS;
    const SCATTERS: bool = FRAGS;

    #[inline(always)]
    fn whole(self) -> WholeFrame<'c> {
        WholeFrame::new(self.ctx)
    }

    #[inline(always)]
    fn length(self, frame: &LinearFrame) -> usize {
        // The packet ends within the first buffer. What may lie beyond is padding, of which only
        // the length counts.
        if FRAGS && frame.may_have_more() {
            cold_path();
            WholeFrame::new(self.ctx).length()
        } else {
            frame.length()
        }
    }

    #[inline(always)]
    fn knows_destinations(self) -> bool {
        sockets::are_found()
    }

    #[inline(always)]
    fn has_socket(self, metadata: &Metadata, target: &Target) -> bool {
        sockets::is_there(metadata, target)
    }

    #[inline(always)]
    fn redirect(self, _metadata: &Metadata, outcome: Outcome) -> Outcome {
        // The function that does it takes the packet up by itself.
        targets::redirect(self.ctx, outcome)
    }

    #[inline(always)]
    fn count(self, bytes: u64, port: Option<usize>, decision: &Decision) {
        counting::count(bytes, port, decision);
    }

    #[inline(always)]
    fn count_known(self, bytes: u64, port: usize, decision: &Decision) {
        counting::count_known(bytes, port, decision);
    }

    #[inline(always)]
    fn count_outcome(self, bytes: u64, port: usize, outcome: Outcome) {
        counting::count_outcome(bytes, port, outcome);
    }

    #[inline(always)]
    fn count_shadow(self, bytes: u64, would: &Decision) {
        counting::count_rule(bytes, would.entry, would.verdict.is_dropped());
    }

    #[inline(always)]
    fn count_relation(self, port: usize, relation: usize) {
        flows::count_relation(port, relation);
    }

    #[inline(always)]
    fn see(self, decision: &Decision) {
        V::see(decision.outcome());
    }

    #[inline(always)]
    fn see_outcome(self, outcome: Outcome) {
        V::see(outcome);
    }
}
