//! The hook on the way in: XDP.

use core::hint::cold_path;

use aya_ebpf::programs::XdpContext;
use portdemux_common::{
    conntrack::Direction,
    decide::Metadata,
    decision::{Decision, Outcome},
    packet::Packet as _,
    pipeline::{self, Ingress, Scratch},
    target::Target,
};

use crate::{
    conntrack, counting,
    frame::{LinearFrame, WholeFrame},
    hook::Hook,
    scratch, sockets, targets,
    variant::Variant,
};

impl<V: Variant, const FRAGS: bool, const FLOWS: bool> pipeline::Hook
    for Hook<'_, XdpContext, V, FRAGS, FLOWS>
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
}

impl<'c, V: Variant, const FRAGS: bool, const FLOWS: bool> Ingress
    for Hook<'c, XdpContext, V, FRAGS, FLOWS>
{
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
        conntrack::count_relation(port, relation);
    }

    #[inline(always)]
    fn see(self, outcome: Outcome) {
        V::see(outcome);
    }
}
