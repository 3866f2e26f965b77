//! ABI 5, the last one whose instances do not say where things stand.
//!
//! The numbers are those of the binaries that made them, whatever this one has: none is derived from its types.

use portdemux_common::{
    ids::Generation,
    ruleset::{Part, RulesetImage},
};

use crate::{
    image,
    maps::{
        layout::{
            AddressLayout, CounterMaps, FlowCounters, KEPT_SLOTS, LedgerLayout, MapLayout,
            OwnBlocks, PinDirectory, TableMaps,
        },
        mapped::Mapped,
    },
};

/// Its number.
pub(crate) const ABI: u32 = 5;

/// Name of the map of the tables of sources.
pub(super) const SOURCES: &str = "SOURCES";

/// How many bytes an image has, with all tables as large as they can be.
const IMAGE: usize = 19_710_208;
/// How many bytes the two of them have, the generation before them.
pub(super) const RULESETS: usize = 64 + 2 * IMAGE;
const HEADER: usize = 256;
/// Where the tables of an image begin, in the order of [`Part`].
const TABLES: [usize; Part::COUNT] = [
    1_065_216, 1_196_288, 1_327_360, 2_900_224, 6_045_952, 10_240_256, 11_288_832, 12_337_408,
    17_580_288, 19_677_440,
];
const V4: usize = Part::V4 as usize;
const V6: usize = Part::V6 as usize;
const SLOTS: AddressLayout = AddressLayout {
    v4: (12, 4),
    v6: (24, 16),
};

/// Where the image of a generation begins.
const fn half(generation: Generation) -> usize {
    64 + generation.half() as usize * IMAGE
}

/// Reads an image.
pub(super) fn read_image(rulesets: &Mapped, generation: Generation) -> Box<RulesetImage> {
    const WORD: usize = size_of::<u64>();
    let start = half(generation);
    let mut image: Box<RulesetImage> = bytemuck::zeroed_box();
    let mut header = [0_u64; HEADER / WORD];
    rulesets.read(start, &mut header);
    let new: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut image.header));
    new[..header.len()].copy_from_slice(&header);
    let [head, tables @ ..] = image::parts(&image.header);
    let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *image));
    let new_header = size_of::<portdemux_common::ruleset::Header>() / WORD;
    rulesets.read(start + HEADER, &mut words[new_header..head.end]);
    for (part, (table, from)) in tables.into_iter().zip(TABLES).enumerate() {
        if part != V4 && part != V6 {
            rulesets.read(start + from, &mut words[table]);
        }
    }
    SLOTS.read(
        rulesets,
        [V4, V6].map(|part| start + TABLES[part]),
        &mut image,
    );
    image
}

/// The layout of an instance of ABI 5.
pub(super) const LAYOUT: MapLayout = MapLayout {
    abi: ABI as u64,
    counters: CounterMaps {
        bytes: 10_756_096,
        interfaces: 0,
        interface_slots: 64,
        verdict_slots: 4,
        reason_slots: 64,
        rules: 262_144,
        rules_dropped: 2_359_296,
        rule_slots: 131_072,
        ports: 4_456_448,
        ports_dropped: 7_602_176,
        replied: 10_747_904,
        replied_slots: 512,
        lookups: 10_752_000,
        tallies: 0,
    },
    flow_counters: FlowCounters {
        bytes: 9_441_280,
        relations: 0,
        relation_slots: 4,
        sent: 6_291_456,
        events: 9_437_184,
        event_slots: 512,
    },
    ledger: LedgerLayout {
        bytes: LEDGER_BYTES,
        interfaces: 0,
        interface_slots: 64,
        interface_bytes: 56,
        rules: 3_584,
        rule_slots: 131_072,
        rule_name_bytes: 64,
        destinations: 8_392_192,
        destination_slots: 8_192,
        destination_name_bytes: 64,
        flows: LEDGER_BYTES - 16,
    },
    kept: kept(),
    own_blocks: OwnBlocks {
        bytes: 0,
        directory: 0,
        blocks: 0,
    },
    tables: TableMaps { value_bytes: 8 },
    directory: PinDirectory { has_offsets: 0 },
};

const LEDGER_BYTES: u64 = 8_392_192 + 8_192 * 64 + 16;

/// All maps that a newer instance can go on with hold what they held when their contents were first numbered.
const fn kept() -> [u64; KEPT_SLOTS] {
    let mut numbers = [0; KEPT_SLOTS];
    let mut at = 0;
    while at < 13 {
        numbers[at] = 1;
        at += 1;
    }
    numbers
}
