//! Where things stand in the maps of an instance, as the binary says that made it.
//!
//! From ABI 6 on every instance has a map that says it, so that a later binary reads the counters and names of an
//! instance whatever has moved since. Of ABI 5 it is written down in [`abi5`], and what ABI 6 did not say in
//! [`abi6`].

pub(super) mod abi5;
mod abi6;
mod buckets;
mod runs;
mod slots;
mod translated;

use std::{mem::offset_of, path::Path};

use anyhow::{Context as _, Result, bail};
use aya::maps::MapInfo;
use bytemuck::{Pod, Zeroable};
use portdemux_common::{
    ABI,
    blocks::{self, Counter},
    capacity::{
        DESTINATION_NAME_LENGTH, DESTINATION_SLOTS, EVENT_SLOTS, MAX_INTERFACES, PORT_COUNT,
        REASON_SLOTS, REPLIED_SLOTS, RULE_NAME_LENGTH, RULE_SLOTS, VERDICT_SLOTS,
    },
    conntrack::Shape,
    counters::{self, FlowLayout, TALLIES, Tallies},
    ids::Generation,
    ruleset::{RulesetImage, Rulesets},
    state::{Interface, Ledger},
};

pub(super) use self::{runs::Runs, slots::AddressLayout, translated::Translated};
use crate::maps::{
    self, ANSWERS, CPUS, DEVICES, FRAGMENTS, LIMITS, MACS, REDIRECT_DROPS, SOCKETS, STEERING,
    TARGET_PLACES, XSKS,
    flow_directory::{FLOWS, HALF_OPEN},
    mapped::Mapped,
};

/// The first ABI whose instances can be read and taken over.
pub(crate) const OLDEST: u32 = 5;

/// Where the words of this binary's buckets of flows stand in those of another.
pub(super) type BucketWords = fn(usize) -> usize;

/// Name of the map that says where things stand in the others.
pub const LAYOUT: &str = "LAYOUT";

/// The maps that a newer instance goes on with as they are, if what they hold has not changed: each with the number
/// of its contents, which changes with their layout or meaning. A new map stands behind the others.
pub(crate) const KEPT: [(&str, u32); 13] = [
    (FRAGMENTS, 1),
    (LIMITS, 1),
    (ANSWERS, 1),
    (DEVICES, 1),
    (MACS, 1),
    (CPUS, 1),
    (XSKS, 1),
    (SOCKETS, 1),
    (STEERING, 1),
    (REDIRECT_DROPS, 1),
    (TARGET_PLACES, 1),
    (FLOWS, 2),
    (HALF_OPEN, 2),
];
/// Slots for the numbers of their contents: more than there are maps.
const KEPT_SLOTS: usize = 32;

/// Where things stand in the maps of an instance: offsets, sizes and counts in bytes and elements. A newer one has
/// more behind these; what an older one does not say is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct MapLayout {
    /// The ABI of the instance.
    pub(super) abi: u64,
    /// Of the counters.
    pub(super) counters: CounterMaps,
    /// Of the counters of flows.
    pub(super) flow_counters: FlowCounters,
    /// Of what only the control plane reads and writes.
    pub(super) ledger: LedgerLayout,
    /// The numbers of the contents of [`KEPT`] maps; 0 for a map that the instance does not have.
    pub(super) kept: [u64; KEPT_SLOTS],
    /// Of the blocks of counters that each CPU has.
    pub(super) own_blocks: OwnBlocks,
    /// Of the tables of rulesets.
    pub(super) tables: TableMaps,
    /// Of the directory of the blocks of a CPU.
    pub(super) directory: PinDirectory,
}

/// Where things stand among the blocks of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct OwnBlocks {
    pub(super) bytes: u64,
    pub(super) directory: u64,
    pub(super) blocks: u64,
}

/// What a CPU's directory says of a block that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct PinDirectory {
    /// 1 if it says where the block begins, in bytes from the beginning of what the CPU has; 0 if it says the index of
    /// the block and 1.
    pub(super) has_offsets: u64,
}

/// What the map of the tables of rulesets consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct TableMaps {
    pub(super) value_bytes: u64,
}

/// Where counters stand in a set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct CounterMaps {
    pub(super) bytes: u64,
    pub(super) interfaces: u64,
    pub(super) interface_slots: u64,
    pub(super) verdict_slots: u64,
    pub(super) reason_slots: u64,
    pub(super) rules: u64,
    pub(super) rules_dropped: u64,
    pub(super) rule_slots: u64,
    pub(super) ports: u64,
    pub(super) ports_dropped: u64,
    pub(super) replied: u64,
    pub(super) replied_slots: u64,
    pub(super) lookups: u64,
    /// How many rules or ports share a block, in which what was dropped of them follows what came; 0 if all that
    /// was dropped stands apart.
    pub(super) tallies: u64,
}

/// Where counters stand in a set of those of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct FlowCounters {
    pub(super) bytes: u64,
    pub(super) relations: u64,
    pub(super) relation_slots: u64,
    pub(super) sent: u64,
    pub(super) events: u64,
    pub(super) event_slots: u64,
}

/// Where names stand in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LedgerLayout {
    pub(super) bytes: u64,
    pub(super) interfaces: u64,
    pub(super) interface_slots: u64,
    pub(super) interface_bytes: u64,
    pub(super) rules: u64,
    pub(super) rule_slots: u64,
    pub(super) rule_name_bytes: u64,
    pub(super) destinations: u64,
    pub(super) destination_slots: u64,
    pub(super) destination_name_bytes: u64,
    pub(super) flows: u64,
}

/// The layout of this binary's instances.
pub(super) const OWN: MapLayout = MapLayout {
    abi: ABI as u64,
    counters: CounterMaps {
        bytes: size_of::<counters::Layout>() as u64,
        interfaces: offset_of!(counters::Layout, interfaces) as u64,
        interface_slots: MAX_INTERFACES as u64,
        verdict_slots: VERDICT_SLOTS as u64,
        reason_slots: REASON_SLOTS as u64,
        rules: offset_of!(counters::Layout, rules) as u64,
        rules_dropped: (offset_of!(counters::Layout, rules) + offset_of!(Tallies, dropped)) as u64,
        rule_slots: RULE_SLOTS as u64,
        ports: offset_of!(counters::Layout, ports) as u64,
        ports_dropped: (offset_of!(counters::Layout, ports) + offset_of!(Tallies, dropped)) as u64,
        replied: offset_of!(counters::Layout, replied) as u64,
        replied_slots: REPLIED_SLOTS as u64,
        lookups: offset_of!(counters::Layout, lookups) as u64,
        tallies: TALLIES as u64,
    },
    flow_counters: FlowCounters {
        bytes: size_of::<FlowLayout>() as u64,
        relations: offset_of!(FlowLayout, relations) as u64,
        relation_slots: 4,
        sent: offset_of!(FlowLayout, sent) as u64,
        events: offset_of!(FlowLayout, events) as u64,
        event_slots: EVENT_SLOTS as u64,
    },
    ledger: LedgerLayout {
        bytes: size_of::<Ledger>() as u64,
        interfaces: offset_of!(Ledger, interfaces) as u64,
        interface_slots: MAX_INTERFACES as u64,
        interface_bytes: size_of::<Interface>() as u64,
        rules: offset_of!(Ledger, rules) as u64,
        rule_slots: RULE_SLOTS as u64,
        rule_name_bytes: RULE_NAME_LENGTH as u64,
        destinations: offset_of!(Ledger, destinations) as u64,
        destination_slots: DESTINATION_SLOTS as u64,
        destination_name_bytes: DESTINATION_NAME_LENGTH as u64,
        flows: offset_of!(Ledger, flows) as u64,
    },
    kept: contents(),
    own_blocks: OwnBlocks {
        bytes: size_of::<blocks::Own>() as u64,
        directory: offset_of!(blocks::Own, directory) as u64,
        blocks: offset_of!(blocks::Own, blocks) as u64,
    },
    tables: TableMaps {
        value_bytes: maps::tables::LINE_BYTES as u64,
    },
    directory: PinDirectory { has_offsets: 1 },
};

const fn contents() -> [u64; KEPT_SLOTS] {
    let mut numbers = [0; KEPT_SLOTS];
    let mut at = 0;
    while at < KEPT.len() {
        numbers[at] = KEPT[at].1 as u64;
        at += 1;
    }
    numbers
}

impl MapLayout {
    /// Whether it is that of this binary's instances.
    #[must_use]
    pub(super) fn is_own(&self) -> bool {
        *self == OWN
    }

    /// The size of the values of its ledger, and how many there are.
    pub(super) fn ledger_values(&self) -> (usize, usize) {
        let bytes = usize_of(self.ledger.bytes);
        if self.is_abi5() {
            (bytes, 1)
        } else {
            (maps::PAGE, bytes.div_ceil(maps::PAGE))
        }
    }

    /// How many bytes its rulesets have.
    pub(super) fn rulesets_bytes(&self) -> usize {
        if self.is_abi5() {
            abi5::RULESETS
        } else {
            size_of::<Rulesets>()
        }
    }

    /// Name of the map of its tables.
    pub(super) fn tables(&self) -> &'static str {
        if self.is_abi5() {
            abi5::SOURCES
        } else {
            maps::TABLES
        }
    }

    /// The size of the values of that map.
    pub(super) fn table_values(&self) -> usize {
        usize_of(self.tables.value_bytes)
    }

    /// How slots of addresses look in those tables, if not as in this binary's.
    pub(super) fn older_slots(&self) -> Option<AddressLayout> {
        (self.abi == u64::from(abi6::ABI)).then_some(abi6::SLOTS)
    }

    /// Reads the image of a generation where images are of another layout; none if they are of this binary's.
    pub(super) fn read_image(
        &self,
        rulesets: &Mapped,
        generation: Generation,
    ) -> Option<Box<RulesetImage>> {
        self.is_abi5()
            .then(|| abi5::read_image(rulesets, generation))
    }

    /// How many blocks its counters have.
    pub(super) fn counter_blocks(&self) -> usize {
        usize_of(self.counters.bytes) / blocks::BYTES
    }

    fn is_abi5(&self) -> bool {
        self.abi == u64::from(abi5::ABI)
    }

    /// Where what stands in its ledger stands in one of this binary's, unless that is the same.
    pub(super) fn ledger_runs(&self) -> Option<Runs> {
        (self.ledger != OWN.ledger).then(|| self.ledger.runs())
    }

    /// Where the words of this binary's buckets of flows stand in its own, from the beginning of a bucket.
    pub(super) fn bucket_words(&self) -> BucketWords {
        if self.keeps(FLOWS) {
            |own| own
        } else {
            buckets::word
        }
    }

    /// Whether a newer instance goes on with a map as it is.
    pub(super) fn keeps(&self, name: &str) -> bool {
        let at = KEPT.iter().position(|&(kept, _)| kept == name);
        at.is_some_and(|at| self.kept[at] == OWN.kept[at])
    }
}

impl CounterMaps {
    /// Where the counter of a rule or a port stands, from the first one on.
    const fn offset(&self, index: u64) -> u64 {
        const COUNTER: u64 = size_of::<Counter>() as u64;
        match self.tallies {
            0 => COUNTER * index,
            tallies => COUNTER * (2 * tallies * (index / tallies) + index % tallies),
        }
    }

    /// How many counters stand together from this one on.
    const fn together(&self, index: u64) -> u64 {
        match self.tallies {
            0 => u64::MAX,
            tallies => tallies - index % tallies,
        }
    }

    /// Where what stands in a set of this layout stands in one of this binary's.
    pub(super) fn runs(&self) -> Runs {
        const COUNTER: u64 = size_of::<Counter>() as u64;
        let own = &OWN.counters;
        let mut runs = Runs::default();
        let mut push = |from: u64, to: u64, bytes: u64| {
            runs.push(usize_of(from), usize_of(to), usize_of(bytes));
        };
        let reasons = COUNTER * self.reason_slots.min(own.reason_slots);
        let mut outcomes = |from: u64, to: u64| {
            for verdict in 0..self.verdict_slots.min(own.verdict_slots) {
                push(
                    from + verdict * self.reason_slots * COUNTER,
                    to + verdict * own.reason_slots * COUNTER,
                    reasons,
                );
            }
        };
        for slot in 0..self.interface_slots.min(own.interface_slots) {
            let bytes = |of: &Self| of.verdict_slots * of.reason_slots * COUNTER;
            outcomes(
                self.interfaces + slot * bytes(self),
                own.interfaces + slot * bytes(own),
            );
        }
        outcomes(self.lookups, own.lookups);
        let rules = self.rule_slots.min(own.rule_slots);
        for (from, to, count) in [
            (self.rules, own.rules, rules),
            (self.rules_dropped, own.rules_dropped, rules),
            (self.ports, own.ports, PORT_COUNT as u64),
            (self.ports_dropped, own.ports_dropped, PORT_COUNT as u64),
        ] {
            let mut index = 0;
            while index < count {
                let together = self
                    .together(index)
                    .min(own.together(index))
                    .min(count - index);
                let (from, to) = (from + self.offset(index), to + own.offset(index));
                push(from, to, COUNTER * together);
                index += together;
            }
        }
        let replied = self.replied_slots.min(own.replied_slots) * size_of::<u64>() as u64;
        push(self.replied, own.replied, replied);
        runs.sorted()
    }
}

impl FlowCounters {
    /// Where what stands in a set of this layout stands in one of this binary's.
    pub(super) fn runs(&self) -> Runs {
        const WORD: u64 = size_of::<u64>() as u64;
        let own = &OWN.flow_counters;
        let mut runs = Runs::default();
        let relations = WORD * self.relation_slots.min(own.relation_slots);
        for port in 0..PORT_COUNT as u64 {
            runs.push(
                usize_of(self.relations + port * WORD * self.relation_slots),
                usize_of(own.relations + port * WORD * own.relation_slots),
                usize_of(relations),
            );
        }
        let sent = PORT_COUNT * size_of::<Counter>();
        runs.push(usize_of(self.sent), usize_of(own.sent), sent);
        let events = WORD * self.event_slots.min(own.event_slots);
        runs.push(
            usize_of(self.events),
            usize_of(own.events),
            usize_of(events),
        );
        runs.sorted()
    }
}

impl LedgerLayout {
    /// Where what stands in a ledger of this layout stands in one of this binary's.
    pub(super) fn runs(&self) -> Runs {
        let own = &OWN.ledger;
        let mut runs = Runs::default();
        for (from, to) in [
            (
                (self.interfaces, self.interface_slots, self.interface_bytes),
                (own.interfaces, own.interface_slots, own.interface_bytes),
            ),
            (
                (self.rules, self.rule_slots, self.rule_name_bytes),
                (own.rules, own.rule_slots, own.rule_name_bytes),
            ),
            (
                (
                    self.destinations,
                    self.destination_slots,
                    self.destination_name_bytes,
                ),
                (
                    own.destinations,
                    own.destination_slots,
                    own.destination_name_bytes,
                ),
            ),
        ] {
            for slot in 0..from.1.min(to.1) {
                runs.push(
                    usize_of(from.0 + slot * from.2),
                    usize_of(to.0 + slot * to.2),
                    usize_of(from.2.min(to.2)),
                );
            }
        }
        runs.push(
            usize_of(self.flows),
            usize_of(own.flows),
            size_of::<Shape>(),
        );
        runs.sorted()
    }
}

pub(super) fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Creates the map and pins it in a directory.
pub(super) fn create(directory: &Path) -> Result<()> {
    let path = directory.join(LAYOUT);
    maps::create(&path, LAYOUT, size_of::<MapLayout>(), 1)?;
    let map = maps::open(&path, size_of::<MapLayout>(), Some(1))?;
    map.write(0, bytemuck::cast_slice(std::slice::from_ref(&OWN)));
    Ok(())
}

/// The layout of the instance whose maps are pinned in a directory.
///
/// # Errors
///
/// The map that says it is damaged, or says what this binary does not understand.
pub(super) fn of(directory: &Path) -> Result<MapLayout> {
    let path = directory.join(LAYOUT);
    if maps::abi::abi_of(directory) == Some(abi5::ABI) {
        return Ok(abi5::LAYOUT);
    }
    let info = MapInfo::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    let bytes = info.value_size() as usize;
    if info.max_entries() != 1 || !bytes.is_multiple_of(size_of::<u64>()) {
        bail!("{} does not say where things stand", path.display());
    }
    let map = maps::open(&path, bytes, Some(1))?;
    let mut layout = MapLayout::zeroed();
    let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut layout));
    let known = words.len().min(bytes / size_of::<u64>());
    map.read(0, &mut words[..known]);
    if layout.abi == u64::from(abi6::ABI) {
        (layout.own_blocks, layout.tables) = (abi6::OWN_BLOCKS, abi6::TABLES);
    }
    Ok(layout)
}

#[cfg(test)]
mod tests;
