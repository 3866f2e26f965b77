//! The maps that hold flows and what is counted of them.

use core::mem::offset_of;

use aya_ebpf::{Global, btf_maps::Array, macros::btf_map};
use portdemux_common::{
    blocks as layout,
    capacity::PORT_COUNT,
    conntrack::{Event, Relation, Shape, Tables, Which, table::FlowBucket},
    counters::{BLOCKS, FlowLayout},
};

use crate::{
    blocks::{self, At, Blocks, Set},
    variant::{Maps, Variant},
    verifier::Lookup as _,
    words::Shared,
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// The flows; the loader sets how many buckets there are.
#[btf_map]
static FLOWS: Array<FlowBucket<u64>, 1, MMAPABLE> = Array::new();

/// The flows that peers have begun and that are not complete.
#[btf_map]
static HALF_OPEN: Array<FlowBucket<u64>, 1, MMAPABLE> = Array::new();

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

impl<V: Variant> Tables for Maps<V> {
    #[inline(always)]
    fn shape(&self) -> Shape {
        Shape {
            known: FLOWS_MASK.load(),
            half_open: HALF_OPEN_MASK.load(),
            seed: FLOWS_SEED.load(),
        }
    }

    #[inline(always)]
    fn bucket(&self, which: Which, at: u32) -> Option<&FlowBucket<Shared>> {
        let bucket = match which {
            Which::Known => FLOWS.find(at)?,
            Which::HalfOpen => HALF_OPEN.find(at)?,
        };
        // SAFETY: both are the same words, and a map's memory stays while the program runs.
        Some(unsafe { &*bucket.cast() })
    }

    #[inline(always)]
    fn count(&self, event: Event) {
        if let Some(mine) = blocks::mine() {
            blocks::count_half::<Tracking>(mine, (EVENTS, event as usize));
        }
    }
}

/// Counts a packet for its port, by how it stands to the flows.
#[inline(always)]
pub(crate) fn count_relation(port: usize, relation: usize) {
    let at = port % RELATED * Relation::ALL.len() + relation % Relation::ALL.len();
    if port < PORT_COUNT
        && let Some(mine) = blocks::mine()
    {
        blocks::count_half::<Tracking>(mine, (RELATIONS + port / RELATED, at));
    }
}

/// Counts a packet that goes out for its port.
#[inline(always)]
pub(crate) fn count_sent(port: usize, packets: u64, bytes: u64) {
    if port < PORT_COUNT
        && let Some(mine) = blocks::mine()
    {
        let counter = (SENT + port / layout::COUNTERS, port % layout::COUNTERS);
        blocks::count::<Tracking>(mine, counter, [packets, bytes], false);
    }
}
