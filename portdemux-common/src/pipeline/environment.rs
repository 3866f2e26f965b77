//! What the steps of a packet ask for.

use core::{borrow::Borrow, ops::DerefMut};

use super::Scratch;
use crate::{
    conntrack,
    decide::Metadata,
    decision::{Decision, Outcome},
    fragments,
    limits::Limits,
    packet::Packet,
    policy::TICK_SHIFT,
    ruleset::RulesetTables,
    sockets::Lookup,
    sources,
    target::Target,
};

/// The tables and the clock of a hook.
///
/// What says `None` is a map without an element, which cannot happen; the packet then has no verdict.
pub trait Environment: Copy {
    /// The tables of a ruleset.
    type Rules: RulesetTables;
    /// A ruleset, as it is held on to.
    type Ruleset: Borrow<Self::Rules> + Copy;
    /// The tables beside the ruleset: sources, rates, flows, fragments.
    type Tables: sources::SourceTable + Limits + conntrack::Tables + fragments::FragmentTable;

    /// The ruleset in force.
    fn ruleset(self) -> Option<Self::Ruleset>;

    /// The tables.
    fn tables(&self) -> &Self::Tables;

    /// Has what was written to the scratch space read from there again, as if nothing were known of it.
    #[inline(always)]
    fn barrier(self) {}

    /// The time in ticks, from which on flows and fragments are forgotten.
    #[inline(always)]
    fn tick(self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "ticks wrap around after 18 years"
        )]
        let tick = (sources::SourceTable::now(self.tables()) >> TICK_SHIFT) as u32;
        tick
    }
}

/// A hook that sees packets.
pub trait Hook: Environment {
    /// The scratch space of a packet, as it is held on to.
    type Scratch: DerefMut<Target = Scratch>;
    /// What of the packet can be read at once.
    type Frame: Packet;

    /// The scratch space of the packet that the hook is busy with.
    fn scratch(self) -> Option<Self::Scratch>;

    /// What of the packet can be read at once.
    fn frame(self) -> Self::Frame;
}

/// A frame that came in.
pub trait Ingress: Hook {
    /// The frame in all its buffers.
    type Whole: Packet;

    /// Whether flows are tracked.
    const TRACKS_FLOWS: bool;
    /// Whether a frame can lie in several buffers.
    const SCATTERS: bool;

    /// The frame in all its buffers.
    fn whole(self) -> Self::Whole;

    /// The length of the whole frame in bytes, of which `frame` is what can be read at once.
    fn length(self, frame: &Self::Frame) -> usize;

    /// Whether it can be told which destinations are there.
    fn knows_destinations(self) -> bool;

    /// Whether a socket is there for a packet that goes to this target.
    fn has_socket(self, metadata: &Metadata, target: &Target) -> bool;

    /// Sends the packet to the target of the rule that redirects it; returns what becomes of it, which is something else
    /// where the target is missing.
    fn redirect(self, metadata: &Metadata, outcome: Outcome) -> Outcome;

    /// Counts a frame of `bytes` bytes: for its interface, verdict and reason, for its port, given by its index, and for
    /// its rule.
    fn count(self, bytes: u64, port: Option<usize>, decision: &Decision);

    /// Counts a frame with a port of whose index the verifier knows nothing.
    fn count_known(self, bytes: u64, port: usize, decision: &Decision);

    /// Counts a frame by the word of its decision. A port beyond all is none.
    fn count_outcome(self, bytes: u64, port: usize, outcome: Outcome);

    /// Counts a packet for the rule whose shadow it has.
    fn count_shadow(self, bytes: u64, would: &Decision);

    /// Counts a packet for its port, by how it stands to the flows: the index of a [`conntrack::Relation`].
    fn count_relation(self, port: usize, relation: usize);

    /// Sees what was decided about the frame, and again what became of that where its target is missing and that is known.
    /// For the shadow program and its like.
    #[inline(always)]
    fn see(self, _outcome: Outcome) {}
}

/// A packet that goes out.
pub trait Egress: Hook {
    /// Whether something was to be read that `frame` does not have and the packet does.
    fn is_short(self, frame: &Self::Frame) -> bool;

    /// Has more of the packet read at once: the headers of the longest ones.
    fn pull(self, frame: &Self::Frame);

    /// How many packets become of it on the wire.
    fn segments(self) -> u32;

    /// Counts it for its port, given by its index, which is beyond all if it has none.
    fn count(self, port: usize, packets: u64, bytes: u64);
}

/// A question of the kernel's which socket a packet is for.
pub trait SocketLookup: Environment {
    /// What it asks; nothing if the packet is neither TCP nor UDP.
    fn lookup(self) -> Option<Lookup>;

    /// Whether the packet was decided about when it came in.
    fn is_guarded(self) -> Option<bool>;

    /// Answers with a socket of this target; whether one is there.
    fn assign(self, metadata: &Metadata, lookup: &Lookup, target: &Target) -> bool;

    /// Sees what was decided.
    #[inline(always)]
    fn see(self, _decision: &Decision) {}

    /// Counts the lookup for its port, given by its index, and its rule.
    fn count(self, port: usize, decision: &Decision);
}
