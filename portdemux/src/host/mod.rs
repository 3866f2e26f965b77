//! The pipeline on the host: the code that the programs in the kernel run, on slices and collections.
//!
//! A [`Host`] is an environment of [`portdemux_common::pipeline`]: a ruleset, the tables of what is remembered from packet
//! to packet ([`State`]), which destinations are there, and a time. It parses and decides nothing itself, so that what it
//! says about a packet is what the attached programs would.

mod seen;
mod state;

use std::{
    cell::{Cell, RefMut},
    sync::atomic::AtomicU64,
};

use portdemux_common::{
    blocks::Counter,
    conntrack::{self, Event, Relation, Shape, Which},
    decide::Metadata,
    decision::{Decision, Outcome},
    destination,
    entry::Entry,
    fragments,
    ids::RuleId,
    limits::{self, Limits, RateKind},
    memory::Memory,
    packet::Packet as _,
    pipeline::{self, Egress, Environment, Hook, Ingress, Scratch, SocketLookup},
    ruleset::RulesetImage,
    sockets::Lookup,
    sources::SourceTable,
    target::Target,
};

pub use self::{
    seen::Seen,
    state::{Bucket, BucketSource, Buckets, RuleRates, State},
};
use crate::image::{Compiled, Words};

/// Says whether the destination of an entry that a ruleset claims is there for a packet.
pub type Presence<'h> = dyn Fn(&Compiled, Entry, &Metadata) -> bool + 'h;

/// Everything that the steps of a packet ask for.
pub struct Host<'h> {
    /// The ruleset.
    ruleset: &'h Compiled,
    /// What lies beside the ruleset.
    tables: Tables<'h>,
    /// Which destinations are there.
    presence: &'h Presence<'h>,
}

/// The tables beside a ruleset.
pub struct Tables<'h> {
    sources: Words<'h>,
    state: &'h State<'h>,
}

impl<'h> Host<'h> {
    /// A host where every destination is there; `now` is `CLOCK_MONOTONIC` in nanoseconds.
    #[must_use]
    pub fn new(ruleset: &'h Compiled, state: &'h State<'h>, now: u64) -> Self {
        let sources = ruleset.table(now);
        Self {
            ruleset,
            tables: Tables { sources, state },
            presence: &|_, _, _| true,
        }
    }

    /// This host where a destination is there if `presence` says so.
    #[must_use]
    pub const fn with_presence(mut self, presence: &'h Presence<'h>) -> Self {
        self.presence = presence;
        self
    }

    /// What becomes of a frame that comes in.
    #[must_use]
    pub fn receive(&self, bytes: &[u8]) -> Seen {
        let seen = Seen::default();
        // As one of two programs is attached.
        seen.verdict
            .set(if self.ruleset.header.defaults.flows != 0 {
                pipeline::receive(self.frame::<true>(bytes, 1, &seen))
            } else {
                pipeline::receive(self.frame::<false>(bytes, 1, &seen))
            });
        seen
    }

    /// Notes a frame that goes out, of which `segments` become on the wire.
    #[must_use]
    pub fn send(&self, bytes: &[u8], segments: u32) -> Seen {
        let seen = Seen::default();
        pipeline::send(self.frame::<true>(bytes, segments, &seen));
        seen
    }

    /// What comes of a socket lookup: whether the kernel goes on, and what was decided about it. Nothing if no rule is
    /// about it. `is_guarded` says that the packet was decided about when it came in.
    #[must_use]
    pub fn lookup(&self, lookup: Lookup, is_guarded: bool) -> Option<(bool, Decision)> {
        let decision = Cell::new(None);
        let asked = AskedSocket {
            lookup,
            is_guarded,
            decision: &decision,
        };
        let goes_on = pipeline::lookup(On {
            host: self,
            what: asked,
        })?;
        Some((goes_on, decision.get()?))
    }

    /// Whether the destination of an entry is there for a packet.
    fn has(&self, entry: Entry, metadata: &Metadata) -> bool {
        (self.presence)(self.ruleset, entry.closed(), metadata)
    }

    const fn frame<'f, const FLOWS: bool>(
        &'f self,
        bytes: &'f [u8],
        segments: u32,
        seen: &'f Seen,
    ) -> On<'f, HostFrame<'f, FLOWS>> {
        On {
            host: self,
            what: HostFrame {
                bytes,
                segments,
                seen,
            },
        }
    }
}

/// What becomes of a frame that no state says anything about: the first of its kind, with all destinations there.
#[must_use]
pub fn decide(bytes: &[u8], ruleset: &Compiled, now: u64) -> Decision {
    let state = State::empty(Shape::default());
    Host::new(ruleset, &state, now).receive(bytes).decision()
}

/// What the steps of something on the host are asked for.
#[derive(Clone, Copy)]
struct On<'h, T> {
    host: &'h Host<'h>,
    what: T,
}

impl<'h, T: Copy> Environment for On<'h, T> {
    type Rules = RulesetImage;
    type Ruleset = &'h RulesetImage;
    type Tables = Tables<'h>;

    fn ruleset(self) -> Option<&'h RulesetImage> {
        Some(&self.host.ruleset.image)
    }

    fn tables(&self) -> &Tables<'h> {
        &self.host.tables
    }
}

/// A frame on its way in or out.
#[derive(Clone, Copy)]
struct HostFrame<'f, const FLOWS: bool> {
    bytes: &'f [u8],
    segments: u32,
    seen: &'f Seen,
}

impl<'f, const FLOWS: bool> Hook for On<'f, HostFrame<'f, FLOWS>> {
    type Scratch = RefMut<'f, Scratch>;
    type Frame = &'f [u8];

    fn scratch(self) -> Option<RefMut<'f, Scratch>> {
        self.what.seen.is_deferred.set(true);
        self.what.seen.scratch.try_borrow_mut().ok()
    }

    fn frame(self) -> &'f [u8] {
        self.what.bytes
    }
}

impl<'f, const FLOWS: bool> Ingress for On<'f, HostFrame<'f, FLOWS>> {
    type Whole = &'f [u8];

    const TRACKS_FLOWS: bool = FLOWS;
    const SCATTERS: bool = false;

    fn whole(self) -> &'f [u8] {
        self.what.bytes
    }

    fn length(self, frame: &&'f [u8]) -> usize {
        frame.length()
    }

    fn knows_destinations(self) -> bool {
        true
    }

    fn has_socket(self, metadata: &Metadata, _target: &Target) -> bool {
        self.host.has(metadata.entry, metadata)
    }

    fn redirect(self, metadata: &Metadata, outcome: Outcome) -> Outcome {
        let entry = outcome.entry();
        let Some(target) = self.host.ruleset.targets.get(entry.rule() as usize) else {
            return outcome;
        };
        destination::settle(outcome, target, self.host.has(entry, metadata))
    }

    fn count(self, _bytes: u64, _port: Option<usize>, _decision: &Decision) {}

    fn count_known(self, _bytes: u64, _port: usize, _decision: &Decision) {}

    fn count_outcome(self, _bytes: u64, _port: usize, _outcome: Outcome) {}

    fn count_shadow(self, _bytes: u64, would: &Decision) {
        self.what.seen.shadow.set(Some(*would));
    }

    fn count_relation(self, port: usize, relation: usize) {
        let relation = Relation::ALL.get(relation).copied();
        self.what
            .seen
            .relation
            .set(relation.map(|relation| (port, relation)));
    }

    fn see(self, outcome: Outcome) {
        self.what.seen.decision.set(outcome.decision());
    }
}

impl<'f, const FLOWS: bool> Egress for On<'f, HostFrame<'f, FLOWS>> {
    fn is_short(self, _frame: &Self::Frame) -> bool {
        false
    }

    fn pull(self, _frame: &Self::Frame) {}

    fn segments(self) -> u32 {
        self.what.segments
    }

    fn count(self, port: usize, packets: u64, bytes: u64) {
        self.what
            .seen
            .sent
            .set(Some((port, Counter { packets, bytes })));
    }
}

/// A socket lookup.
#[derive(Clone, Copy)]
struct AskedSocket<'a> {
    lookup: Lookup,
    is_guarded: bool,
    decision: &'a Cell<Option<Decision>>,
}

impl<'a> SocketLookup for On<'a, AskedSocket<'a>> {
    fn lookup(self) -> Option<Lookup> {
        Some(self.what.lookup)
    }

    fn is_guarded(self) -> Option<bool> {
        Some(self.what.is_guarded)
    }

    fn assign(self, metadata: &Metadata, _lookup: &Lookup, _target: &Target) -> bool {
        self.host.has(metadata.entry, metadata)
    }

    fn see(self, decision: &Decision) {
        self.what.decision.set(Some(*decision));
    }

    fn count(self, _port: usize, _decision: &Decision) {}
}

impl Memory for Tables<'_> {
    type Word = AtomicU64;
}

impl SourceTable for Tables<'_> {
    fn word(&self, slot: u32) -> Option<u64> {
        self.sources.word(slot)
    }

    fn now(&self) -> u64 {
        self.sources.now
    }
}

impl Limits for Tables<'_> {
    fn instant(&self) -> u64 {
        self.sources.now
    }

    fn of_rule(&self, rule: RuleId, kind: RateKind) -> Option<&AtomicU64> {
        self.state.rate(rule, kind)
    }

    fn bucket(&self, at: u32) -> Option<&limits::RateBucket<AtomicU64>> {
        Some(self.state.source_rates.get(at))
    }
}

impl fragments::FragmentTable for Tables<'_> {
    fn seed(&self) -> u64 {
        self.state.fragments_seed
    }

    fn bucket(&self, at: u32) -> Option<&fragments::FragmentBucket<AtomicU64>> {
        Some(self.state.fragments.get(at))
    }
}

impl conntrack::Tables for Tables<'_> {
    fn shape(&self) -> Shape {
        self.state.shape
    }

    fn bucket(&self, which: Which, at: u32) -> Option<&conntrack::table::FlowBucket<AtomicU64>> {
        Some(self.state.flows(which).get(at))
    }

    fn count(&self, event: Event) {
        self.state.note(event);
    }
}
