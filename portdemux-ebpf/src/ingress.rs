//! The hook on the way in: XDP.

use core::hint::cold_path;

use aya_ebpf::programs::XdpContext;
use portdemux_common::{
    decide::{Decision, Metadata, Outcome},
    destination::Target,
    flows::Direction,
    packet::Packet as _,
    parse::Parsed,
    pipeline::{self, Environment, Ingress, Scratch},
};

use crate::{
    Maps, counting, flows,
    frame::{LinearFrame, WholeFrame},
    ruleset::{self, Ruleset},
    scratch, sockets, targets, verifier,
};

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

/// A frame that an XDP program was handed.
///
/// With `FRAGS` it can lie in several buffers (`xdp.frags`, Linux 5.18 and newer). With `FLOWS` flows are tracked.
#[derive(Clone, Copy)]
pub(crate) struct Hook<'c, W, const FRAGS: bool, const FLOWS: bool> {
    pub(crate) ctx: &'c XdpContext,
    pub(crate) witness: W,
}

impl<W: Witness, const FRAGS: bool, const FLOWS: bool> Environment for Hook<'_, W, FRAGS, FLOWS> {
    type Rules = Ruleset;
    type Ruleset = Ruleset;
    type Tables = Maps;

    #[inline(always)]
    fn ruleset(self) -> Option<Ruleset> {
        ruleset::in_force()
    }

    #[inline(always)]
    fn tables(&self) -> &Maps {
        &Maps
    }
}

impl<W: Witness, const FRAGS: bool, const FLOWS: bool> pipeline::Hook
    for Hook<'_, W, FRAGS, FLOWS>
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

impl<'c, W: Witness, const FRAGS: bool, const FLOWS: bool> Ingress for Hook<'c, W, FRAGS, FLOWS> {
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
    fn finds_sockets(self) -> bool {
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
    fn see(self, parsed: &Parsed, decision: &Decision) {
        self.witness.see(self.ctx, parsed, decision);
    }

    #[inline(always)]
    fn see_decided(self, outcome: Outcome) {
        self.witness.see_decided(outcome);
    }
}
