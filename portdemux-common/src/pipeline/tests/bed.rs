//! A ruleset, tables and a clock for the pipeline.

use std::{
    cell::{Cell, RefCell, RefMut},
    sync::atomic::{AtomicU64, Ordering},
};

use bytemuck::Zeroable as _;

use super::frames::HERE;
use crate::{
    bucket,
    conntrack::{self, Event, Relation, Shape, Which, table},
    decide::Metadata,
    decision::{Decision, Outcome},
    destination,
    entry::{Action, Entry},
    fragments, hash,
    ids::RuleId,
    limits::{self, Limits, RateKind},
    memory::Memory,
    packet::Packet as _,
    pipeline::{self, Egress, Environment, Hook, Ingress, Scratch},
    policy::{Policy, TICK_SHIFT, Timeouts},
    reason::{Reason, Verdict},
    ruleset::{self, Claims, RulesetImage, Span, V4Slot, span_key},
    sources,
    target::Target,
    wire::{Port, Transport},
};

/// What happens to a packet, and why.
pub(super) type Said = (Verdict, Reason);

/// A second in nanoseconds.
pub(super) const SECOND: u64 = 1_000_000_000;

/// How long flows are remembered, in ticks.
pub(super) const TIMEOUTS: Timeouts = Timeouts {
    handshake: 10,
    tcp: 1_000,
    closing: 20,
    one_way: 30,
    udp: 300,
    sctp: 900,
    echo: 40,
};

/// A ruleset and what is remembered under it, and whether destinations are there.
pub(super) struct Bed {
    pub(super) image: Box<RulesetImage>,
    pub(super) has_destinations: bool,
    tables: Tables,
}

/// Tables of one bucket each, but for those of fragments, whose size is fixed.
struct Tables {
    now: Cell<u64>,
    known: table::FlowBucket<AtomicU64>,
    half_open: table::FlowBucket<AtomicU64>,
    fragments: Vec<fragments::FragmentBucket<AtomicU64>>,
    rules: [[AtomicU64; 2]; 8],
    sources: limits::RateBucket<AtomicU64>,
}

/// What was seen of a packet.
#[derive(Debug)]
pub(super) struct Seen {
    scratch: RefCell<Scratch>,
    said: Cell<Option<Said>>,
    /// Its bytes, the port and what was decided, as it was counted.
    pub(super) counted: Cell<Option<(u64, Option<usize>, Decision)>>,
    /// What the shadow would do.
    pub(super) shadow: Cell<Option<Decision>>,
    /// The port for whose flows it was counted, and how it stands to them.
    pub(super) relation: Cell<Option<(usize, Relation)>>,
    /// The port that it goes out from, the packets and the bytes that it becomes.
    pub(super) sent: Cell<Option<(usize, u64, u64)>>,
}

impl Seen {
    fn new() -> Self {
        Self {
            scratch: RefCell::new(Scratch::zeroed()),
            said: Cell::default(),
            counted: Cell::default(),
            shadow: Cell::default(),
            relation: Cell::default(),
            sent: Cell::default(),
        }
    }
}

impl Bed {
    /// Without rules, where everything passes and nothing is tracked.
    pub(super) fn new() -> Self {
        let bucket = || table::FlowBucket::of(|_| AtomicU64::new(0));
        Self {
            image: bytemuck::zeroed_box(),
            has_destinations: true,
            tables: Tables {
                now: Cell::new(1_000 * SECOND),
                known: bucket(),
                half_open: bucket(),
                fragments: (0..fragments::BUCKETS)
                    .map(|_| fragments::FragmentBucket::of(|_| AtomicU64::new(0)))
                    .collect(),
                rules: Default::default(),
                sources: limits::RateBucket::of(|_| AtomicU64::new(0)),
            },
        }
    }

    /// The same where flows are tracked and what no rule claims meets this.
    pub(super) fn tracking(inbound: Action) -> Self {
        let mut bed = Self::new();
        let defaults = &mut bed.image.header.defaults;
        (defaults.flows, defaults.portless_open) = (1, 1);
        defaults.inbound = inbound as u32;
        defaults.timeouts = TIMEOUTS;
        for entry in &mut bed.image.ports[..Transport::COUNT << 16] {
            *entry = entry.open();
        }
        bed
    }

    /// Claims a port of this host at any address.
    pub(super) fn claim(&mut self, transport: Transport, port: u16, entry: Entry) {
        self.image.ports[Port::new(port).index(transport)] = entry.open();
    }

    /// Claims a port of peers.
    pub(super) fn claim_source(&mut self, transport: Transport, port: u16, entry: Entry) {
        self.image.source_ports[Port::new(port).index(transport)] = entry;
        let header = &mut self.image.header;
        (header.source_claims, header.further_claims) = (1, 1);
    }

    /// Has a shadow of a port at any address.
    pub(super) fn cast_shadow(&mut self, transport: Transport, port: u16, shadow: Entry) {
        self.image.shadow_ports[Port::new(port).index(transport)] = shadow;
        let header = &mut self.image.header;
        (header.shadow_claims, header.further_claims) = (1, 1);
    }

    /// Claims a port at [`HERE`], and has a shadow of it there.
    pub(super) fn claim_here(
        &mut self,
        transport: Transport,
        port: u16,
        [entry, shadow]: [Entry; 2],
    ) {
        let key = span_key(transport, Port::new(port));
        let address = [192, 0, 2, HERE];
        let header = &mut self.image.header;
        (header.v4_mask, header.further_claims) = (1, 1);
        header.shadow_claims |= u32::from(shadow.is_claimed());
        let hashed = hash::v4(address, header.v4_seed);
        let span = Span {
            first: key,
            last: key,
            entry,
            shadow,
        };
        self.image.v4[ruleset::slot(hashed, 0, 1)] = V4Slot {
            address,
            reserved: 0,
            claims: Claims {
                first: 0,
                count: 1,
                span,
            },
        };
    }

    /// A claim by the rule of this id, which asks this.
    pub(super) fn on_terms(&mut self, rule: RuleId, action: Action, policy: Policy) -> Entry {
        self.image.policies[rule as usize] = policy;
        Entry::new(rule, action).conditional()
    }

    /// Lets time go by, in nanoseconds.
    pub(super) fn wait(&self, time: u64) {
        self.tables.now.set(self.tables.now.get() + time);
    }

    /// Lets time go by, in ticks.
    pub(super) fn wait_ticks(&self, ticks: u32) {
        self.wait(u64::from(ticks) << TICK_SHIFT);
    }

    /// What is said of a frame that comes in.
    pub(super) fn receive(&self, frame: &[u8]) -> Said {
        self.see(frame).said.get().expect("it was decided about")
    }

    /// What is seen of a frame that comes in.
    pub(super) fn see(&self, frame: &[u8]) -> Seen {
        let seen = Seen::new();
        let verdict = if self.image.header.defaults.flows != 0 {
            pipeline::receive(self.on::<true>(frame, 1, &seen))
        } else {
            pipeline::receive(self.on::<false>(frame, 1, &seen))
        };
        // Later fragments of what was rejected are dropped, and nobody is told.
        seen.said
            .set(seen.said.get().and_then(|(_, why)| Some((verdict?, why))));
        seen
    }

    /// How a packet that comes in stands to the flows.
    pub(super) fn relation(&self, frame: &[u8]) -> Option<Relation> {
        self.see(frame).relation.get().map(|(_, relation)| relation)
    }

    /// Notes a frame that goes out.
    pub(super) fn send(&self, frame: &[u8]) -> Seen {
        self.send_as(frame, 1)
    }

    /// Notes a frame that goes out as so many packets.
    pub(super) fn send_as(&self, frame: &[u8], segments: u32) -> Seen {
        let seen = Seen::new();
        pipeline::send(self.on::<true>(frame, segments, &seen));
        seen
    }

    /// In how many ticks the one flow that is known is forgotten.
    pub(super) fn left(&self) -> u32 {
        let tables = [&self.tables.known, &self.tables.half_open];
        let taken = tables.into_iter().flat_map(|bucket| {
            let owners = bucket.owners.iter().zip(&bucket.slots.entries);
            owners.filter(|(owner, _)| owner.load(Ordering::Relaxed) != bucket::FREE)
        });
        let [(_, slot)] = taken.collect::<Vec<_>>()[..] else {
            panic!("there is another number of flows than one");
        };
        slot.until()
            .wrapping_sub(Environment::tick(self.on::<true>(&[], 1, &Seen::new())))
    }

    const fn on<'b, const FLOWS: bool>(
        &'b self,
        frame: &'b [u8],
        segments: u32,
        seen: &'b Seen,
    ) -> On<'b, FLOWS> {
        On {
            bed: self,
            frame,
            segments,
            seen,
        }
    }
}

#[derive(Clone, Copy)]
struct On<'b, const FLOWS: bool> {
    bed: &'b Bed,
    frame: &'b [u8],
    segments: u32,
    seen: &'b Seen,
}

impl<'b, const FLOWS: bool> Environment for On<'b, FLOWS> {
    type Rules = RulesetImage;
    type Ruleset = &'b RulesetImage;
    type Tables = Tables;

    fn ruleset(self) -> Option<&'b RulesetImage> {
        Some(&self.bed.image)
    }

    fn tables(&self) -> &Tables {
        &self.bed.tables
    }
}

impl<'b, const FLOWS: bool> Hook for On<'b, FLOWS> {
    type Scratch = RefMut<'b, Scratch>;
    type Frame = &'b [u8];

    fn scratch(self) -> Option<RefMut<'b, Scratch>> {
        Some(self.seen.scratch.borrow_mut())
    }

    fn frame(self) -> &'b [u8] {
        self.frame
    }
}

impl<'b, const FLOWS: bool> Ingress for On<'b, FLOWS> {
    type Whole = &'b [u8];

    const TRACKS_FLOWS: bool = FLOWS;
    const SCATTERS: bool = false;

    fn whole(self) -> &'b [u8] {
        self.frame
    }

    fn length(self, frame: &&'b [u8]) -> usize {
        frame.length()
    }

    fn knows_destinations(self) -> bool {
        true
    }

    fn has_socket(self, _metadata: &Metadata, _target: &Target) -> bool {
        self.bed.has_destinations
    }

    fn redirect(self, _metadata: &Metadata, outcome: Outcome) -> Outcome {
        let target = self.bed.image.targets[outcome.entry().rule() as usize];
        destination::settle(outcome, &target, self.bed.has_destinations)
    }

    fn count(self, bytes: u64, port: Option<usize>, decision: &Decision) {
        let before = self.seen.counted.replace(Some((bytes, port, *decision)));
        assert_eq!(before, None, "a packet is counted once");
    }

    fn count_known(self, bytes: u64, port: usize, decision: &Decision) {
        Ingress::count(self, bytes, Some(port), decision);
    }

    fn count_outcome(self, bytes: u64, port: usize, outcome: Outcome) {
        Ingress::count(self, bytes, Some(port), &outcome.decision());
    }

    fn count_shadow(self, _bytes: u64, would: &Decision) {
        self.seen.shadow.set(Some(*would));
    }

    fn count_relation(self, port: usize, relation: usize) {
        let relation = Relation::ALL[relation];
        self.seen.relation.set(Some((port, relation)));
    }

    fn see(self, outcome: Outcome) {
        let Decision {
            verdict, reason, ..
        } = outcome.decision();
        self.seen.said.set(Some((verdict, reason)));
    }
}

impl<const FLOWS: bool> Egress for On<'_, FLOWS> {
    fn is_short(self, _frame: &Self::Frame) -> bool {
        false
    }

    fn pull(self, _frame: &Self::Frame) {}

    fn segments(self) -> u32 {
        self.segments
    }

    fn count(self, port: usize, packets: u64, bytes: u64) {
        self.seen.sent.set(Some((port, packets, bytes)));
    }
}

impl Memory for Tables {
    type Word = AtomicU64;
}

impl sources::SourceTable for Tables {
    fn word(&self, _slot: u32) -> Option<u64> {
        None
    }

    fn now(&self) -> u64 {
        self.now.get()
    }
}

impl Limits for Tables {
    fn instant(&self) -> u64 {
        self.now.get()
    }

    fn of_rule(&self, rule: RuleId, kind: RateKind) -> Option<&AtomicU64> {
        self.rules.get(rule as usize)?.get(kind as usize)
    }

    fn bucket(&self, _at: u32) -> Option<&limits::RateBucket<AtomicU64>> {
        Some(&self.sources)
    }
}

impl fragments::FragmentTable for Tables {
    fn seed(&self) -> u64 {
        7
    }

    fn bucket(&self, at: u32) -> Option<&fragments::FragmentBucket<AtomicU64>> {
        self.fragments.get(at as usize)
    }
}

impl conntrack::Tables for Tables {
    fn shape(&self) -> Shape {
        Shape::default()
    }

    fn bucket(&self, which: Which, _at: u32) -> Option<&table::FlowBucket<AtomicU64>> {
        Some(match which {
            Which::Known => &self.known,
            Which::HalfOpen => &self.half_open,
        })
    }

    fn count(&self, _event: Event) {}
}
