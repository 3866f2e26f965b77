//! The maps that hold flows and what is counted of them.

use core::{hint::cold_path, mem::offset_of};

use aya_ebpf::{
    Global,
    btf_maps::{Array, PerCpuArray},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::btf_map,
    programs::XdpContext,
};
use portdemux_common::{
    blocks as layout,
    counters::{BLOCKS, FlowLayout, PORT_PLACES},
    decide::{Metadata, Outcome},
    flows::{self, Direction, Event, Relation, Shape, Tables, Tracked, Which, table::Bucket},
    policy::TICK_SHIFT,
    reason::Verdict,
    ruleset::RulesetTables as _,
};

use crate::{
    Maps, Witness,
    blocks::{self, At, Blocks, Set},
    fragments,
    frame::LinearFrame,
    ruleset::Ruleset,
    sockets, targets,
    verifier::{Lookup as _, barrier, launder},
    words::Shared,
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// The flows; the loader sets how many buckets there are.
#[btf_map]
static FLOWS: Array<Bucket<u64>, 1, MMAPABLE> = Array::new();

/// The flows that peers have begun and that are not complete.
#[btf_map]
static HALF_OPEN: Array<Bucket<u64>, 1, MMAPABLE> = Array::new();

/// What is counted of flows where no CPU has a block of its own for it.
#[btf_map]
static FLOW_COUNTERS: Blocks = Array::new();

const RELATIONS: usize = offset_of!(FlowLayout, relations) / layout::BYTES;
const SENT: usize = offset_of!(FlowLayout, sent) / layout::BYTES;
const EVENTS: usize = offset_of!(FlowLayout, events) / layout::BYTES;
/// How many ports share a block of [`RELATIONS`].
const RELATED: usize = layout::BYTES / size_of::<[u64; Relation::ALL.len()]>();

/// What is counted of flows, by [`FlowLayout`].
struct Tracking;

impl Set for Tracking {
    const FIRST: usize = BLOCKS;

    #[inline(always)]
    fn count_apart(at: At, [packets, bytes]: [u64; 2], is_reserved: bool) {
        portdemux_count_flow(blocks::packed(at), packets, bytes, is_reserved.into());
    }
}

/// As the one for what is counted of every frame.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_count_flow(at: u64, packets: u64, bytes: u64, is_reserved: u32) -> u32 {
    let add = [packets, bytes];
    let counted = blocks::count_rarely::<Tracking>(&FLOW_COUNTERS, at, add, is_reserved != 0);
    u32::from(counted.is_some())
}

/// How large the tables are, set by the loader.
#[unsafe(no_mangle)]
static FLOWS_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static HALF_OPEN_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FLOWS_SEED: Global<u64> = Global::new(0);

impl Tables for Maps {
    type Word = Shared;

    #[inline(always)]
    fn shape(&self) -> Shape {
        Shape {
            known: FLOWS_MASK.load(),
            half_open: HALF_OPEN_MASK.load(),
            seed: FLOWS_SEED.load(),
        }
    }

    #[inline(always)]
    fn bucket(&self, which: Which, at: u32) -> Option<&Bucket<Shared>> {
        let bucket = match which {
            Which::Known => FLOWS.find(at)?,
            Which::HalfOpen => HALF_OPEN.find(at)?,
        };
        // SAFETY: both are the same words, and a map's memory stays while the program runs.
        Some(unsafe { &*bucket.cast() })
    }

    #[inline(always)]
    fn launder(&self, number: u64) -> u64 {
        launder(number).unwrap_or(u64::MAX)
    }

    #[inline(always)]
    fn count(&self, event: Event) {
        if let Some(mine) = blocks::mine() {
            blocks::count_half::<Tracking>(mine, (EVENTS, event as usize));
        }
    }
}

/// The time in ticks.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail (Linux 5.11, kernel/bpf/helpers.c).
    let nanoseconds = unsafe { bpf_ktime_get_coarse_ns() };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "ticks wrap around after 18 years"
    )]
    let ticks = (nanoseconds >> TICK_SHIFT) as u32;
    ticks
}

/// The packets that a CPU is busy with: one on its way in, one on its way out.
#[btf_map]
static TRACKED: PerCpuArray<Tracked, 2> = PerCpuArray::new();

/// The packet that a CPU is busy with, taken up anew.
#[inline(always)]
fn packet(direction: Direction) -> Option<&'static mut Tracked> {
    let packet = TRACKED.find(direction as u32)?;
    // SAFETY: the value is this CPU's, of this hook, and taken up once in each step.
    Some(unsafe { &mut *packet })
}

/// The packet that an ICMP error quotes.
#[btf_map]
static QUOTED: PerCpuArray<Metadata, 1> = PerCpuArray::new();

/// The packet that an ICMP error quotes, taken up anew.
#[inline(always)]
fn quoted() -> Option<&'static mut Metadata> {
    let quoted = QUOTED.find(0)?;
    // SAFETY: the value is this CPU's, of this hook, and taken up once in each step.
    Some(unsafe { &mut *quoted })
}

/// Looks for the flow of a packet that came in, if the ruleset has flows.
///
/// Between the steps here, and of those below, everything is taken up from map values again ([`barrier`]).
#[inline(always)]
pub(crate) fn look(
    ctx: &XdpContext,
    metadata: &mut Metadata,
    ruleset: &Ruleset,
) -> Option<&'static mut Tracked> {
    let tracked = packet(Direction::Received)?;
    if ruleset.header().defaults.flows == 0 {
        cold_path();
        *tracked = Tracked::OF_NO_FLOW;
        return Some(tracked);
    }
    if metadata.is_error() {
        cold_path();
        let frame = LinearFrame::new(ctx);
        metadata.read_quoted(&frame, quoted()?);
        quoted()?.read(&frame);
        *tracked = quoted()?.quoted();
    } else {
        *tracked = metadata.received();
    }
    barrier();
    if !tracked.key.is_none() {
        flows::seek(&Maps, tracked, now());
        barrier();
        flows::relate(&Maps, tracked);
        barrier();
        metadata.is_known = u8::from(tracked.is_known != 0);
    }
    Some(tracked)
}

/// Decides about a packet that came in, by its flow, which was looked for, and notes it there.
#[inline(always)]
pub(crate) fn receive<W: Witness>(
    ctx: &XdpContext,
    metadata: &Metadata,
    tracked: &mut Tracked,
    ruleset: &Ruleset,
    witness: W,
) -> Option<Verdict> {
    let decision = metadata.decide(ruleset, &Maps, Relation::of(tracked.relation));
    let decision = sockets::settle(metadata, ruleset, decision);
    tracked.outcome = decision.outcome().0;
    barrier();
    let outcome = Outcome(tracked.outcome);
    let passes = !outcome.verdict().is_dropped();
    let timeouts = &ruleset.header().defaults.timeouts;
    if !tracked.key.is_none() {
        if tracked.is_error == 0 {
            flows::receive(&Maps, tracked, passes, metadata.may_begin(), timeouts);
            barrier();
            flows::remember(&Maps, tracked, Direction::Received, timeouts);
            barrier();
        }
        if tracked.is_counted() {
            count(tracked.port, tracked.relation);
        }
    }

    let outcome = Outcome(tracked.outcome);
    if metadata.leads(ruleset) {
        cold_path();
        return fragments::lead(ctx, metadata, outcome, witness);
    }
    let (length, port) = (metadata.length, metadata.port as usize);
    Some(targets::count(ctx, length, port, outcome, witness))
}

/// Counts a packet for its port, by how it stands to the flows.
#[inline(always)]
fn count(port: u32, relation: u32) {
    let (port, relation) = (port as usize, relation as usize % Relation::ALL.len());
    let at = port % RELATED * Relation::ALL.len() + relation;
    if port < PORT_PLACES
        && let Some(mine) = blocks::mine()
    {
        blocks::count_half::<Tracking>(mine, (RELATIONS + port / RELATED, at));
    }
}

/// Notes what this host sends; `segments` is how many packets become of it on the wire.
#[inline(always)]
pub(crate) fn send(metadata: &Metadata, ruleset: &Ruleset, segments: u32) -> Option<()> {
    const OUT: Direction = Direction::Sent;
    let sent = packet(OUT)?;
    *sent = metadata.sent(segments);
    barrier();
    if sent.key.is_none() {
        return None;
    }
    let place = metadata.source_place() as usize;
    if place < PORT_PLACES
        && let Some(mine) = blocks::mine()
    {
        let counter = (SENT + place / layout::COUNTERS, place % layout::COUNTERS);
        blocks::count::<Tracking>(mine, counter, [sent.packets, sent.bytes], false);
    }
    flows::seek(&Maps, sent, now());
    barrier();
    let serves = match ruleset.port(place) {
        Some(entry) => entry.is_claimed(),
        None => false,
    };
    let timeouts = &ruleset.header().defaults.timeouts;
    flows::send(&Maps, sent, serves, metadata.may_begin(), timeouts);
    barrier();
    flows::remember(&Maps, sent, OUT, timeouts)
}
