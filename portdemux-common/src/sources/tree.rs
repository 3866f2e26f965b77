//! How the class of an address is found: slots of equal width, then a short row of entries.
//!
//! A tree of a family divides keys into slots, a slot leads to a class, to a leaf or, where keys stand
//! close, to a node that divides them further. Keys are IPv4 addresses, or the upper 64 bits of IPv6
//! ones. What a key leads to in a tree of IPv6 may be a leaf or a node again, of the lower 64 bits.
//!
//! A slot is one word, so that everything below it is exchanged by one store.

use core::hint::cold_path;

use bytemuck::{Pod, Zeroable};

use super::{Reader, SourceClass, SourceTable};

/// Leaves and nodes begin at multiples of this many words.
pub const UNIT: u32 = 4;
/// How many entries a leaf has at most.
pub const LEAF_ENTRIES: usize = 62;
/// How many nodes follow each other at most: each divides what is left at least by 256.
pub const MAX_NODES: usize = 8;
/// Into how many parts a slot is divided that can be empty by themselves.
pub const SLICES: u32 = 32;
/// Words before the slots of a node: the first of its keys, and its shape.
pub const NODE_HEADER: u32 = 2;

/// Steps in which a binary search over a leaf ends.
const SEARCH_STEPS: usize = LEAF_ENTRIES.ilog2() as usize + 1;

/// Where keys lead to.
///
/// Bits 26 to 31: 0 for a class, whose number stands below; 63 for a node; else how many entries a
/// leaf has. Below stands where node or leaf begin, in [`UNIT`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct TreePointer(pub u32);

impl TreePointer {
    const COUNT: u32 = 26;
    const OFFSET: u32 = (1 << Self::COUNT) - 1;
    const NODE: u32 = 63;

    /// A class.
    #[must_use]
    pub const fn class(class: SourceClass) -> Self {
        Self(class & Self::OFFSET)
    }

    /// A leaf of `count` entries.
    #[must_use]
    pub const fn leaf(offset: u32, count: u32) -> Self {
        Self(((offset / UNIT) & Self::OFFSET) | (count << Self::COUNT))
    }

    /// A node.
    #[must_use]
    pub const fn node(offset: u32) -> Self {
        Self(((offset / UNIT) & Self::OFFSET) | (Self::NODE << Self::COUNT))
    }

    /// Whether it is a class.
    #[inline(always)]
    #[must_use]
    pub const fn is_class(self) -> bool {
        self.0 >> Self::COUNT == 0
    }

    /// Whether it is a node.
    #[inline(always)]
    #[must_use]
    pub const fn is_node(self) -> bool {
        self.0 >> Self::COUNT == Self::NODE
    }

    /// How many entries the leaf has.
    #[inline(always)]
    #[must_use]
    pub const fn entries(self) -> u32 {
        self.0 >> Self::COUNT
    }

    /// Where leaf or node begin.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self) -> u32 {
        (self.0 & Self::OFFSET) * UNIT
    }
}

/// How keys are divided into slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Division {
    /// The key at which the first slot begins; smaller ones are in it, too.
    pub base: u64,
    /// Where the slots begin; 0 if no list holds any key.
    pub first: u32,
    /// Bits 0 to 25: the last slice of the last slot, to which larger keys belong. Bits 26 to 31: a slice
    /// is 2 to this power wide.
    pub shape: u32,
}

impl Division {
    const SHIFT: u32 = 26;
    const LAST: u32 = (1 << Self::SHIFT) - 1;

    /// A division into `slots`, of which each slice is 2 to the power of `shift` wide.
    #[must_use]
    pub const fn new(base: u64, first: u32, slots: u32, shift: u32) -> Self {
        Self {
            base,
            first,
            shape: (slots * SLICES - 1) & Self::LAST | shift << Self::SHIFT,
        }
    }

    /// How many slots there are.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        (self.shape & Self::LAST) / SLICES + 1
    }

    /// A slice is 2 to this power wide.
    #[inline(always)]
    #[must_use]
    pub const fn shift(&self) -> u32 {
        self.shape >> Self::SHIFT
    }

    /// The slice that a key is in, counted over all slots.
    #[inline(always)]
    #[must_use]
    pub fn slice(&self, key: u64) -> u64 {
        if key < self.base {
            // A branch of its own: the target has no subtraction that stops at 0.
            cold_path();
            return 0;
        }
        ((key - self.base) >> self.shift()).min(u64::from(self.shape & Self::LAST))
    }

    /// Where a key leads to.
    #[inline(always)]
    pub(super) fn enter<T: SourceTable>(&self, table: Reader<'_, T>, key: u64) -> Option<Way> {
        #[expect(clippy::cast_possible_truncation, reason = "a slice has 26 bits")]
        let slice = self.slice(key) as u32;
        let slot = table.word(self.first + slice / SLICES)?;
        let slices = (slot >> 32) as u32;
        let bit = 1 << (slice % SLICES);
        // Empty slices are told apart here: most strangers never get to a leaf.
        if slices & bit == 0 {
            return Some(Way::default());
        }
        Some(Way {
            target: slot_target(slot),
            before: slices & (bit - 1),
        })
    }
}

/// Where a key leads to, by the slot that it is in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    target: TreePointer,
    /// The slices of the slot that hold anything, of those before the key's.
    before: u32,
}

impl Way {
    /// Where the key stands in a leaf if each of the slices before it holds the beginning of one entry. That is so
    /// for most keys, and what stands there says whether it is.
    #[inline(always)]
    const fn guess(self) -> Option<u32> {
        let offset = self.before.count_ones();
        if offset < self.target.entries() {
            Some(self.target.offset() + offset)
        } else {
            None
        }
    }
}

/// A slot: where keys in it lead to, and which of its slices are not in class 0 as a whole.
#[must_use]
pub const fn slot(target: TreePointer, slices: u32) -> u64 {
    target.0 as u64 | (slices as u64) << 32
}

/// Where keys in a slot lead to.
#[inline(always)]
#[must_use]
pub const fn slot_target(slot: u64) -> TreePointer {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    TreePointer(slot as u32)
}

/// An entry of IPv4 in one word: the first address, the class, and how many addresses, which is 2 to the
/// power of `span`, or with [`Entry4::ON`] as many as there are before the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry4(pub u64);

impl Entry4 {
    /// For `span`: up to the next entry, or the end of the slot.
    pub const ON: u32 = 63;

    /// An entry.
    #[must_use]
    pub const fn new(start: u32, span: u32, class: SourceClass) -> Self {
        Self((start as u64) << 32 | (class << 6) as u64 | span as u64)
    }

    /// The first address.
    #[inline(always)]
    #[must_use]
    pub const fn start(self) -> u64 {
        self.0 >> 32
    }

    /// See above.
    #[inline(always)]
    #[must_use]
    pub const fn span(self) -> u32 {
        (self.0 & 63) as u32
    }

    /// Whether an address is surely one of its addresses; of one that goes on to the next entry that is not known.
    #[inline(always)]
    #[must_use]
    pub const fn holds(self, address: u64) -> bool {
        address >= self.start()
            && self.span() < Self::ON
            && (address - self.start()) >> self.span() == 0
    }

    /// The class of its addresses.
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> SourceClass {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        ((self.0 as u32) >> 6)
    }
}

/// What stands about a key of IPv6, in the second word of an entry: where it leads to, and to how many
/// keys that applies. In a leaf, the keys of all entries come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry6(pub u64);

impl Entry6 {
    /// For `span`: up to the next entry, or the end of the slot.
    pub const ON: u32 = 64;

    /// What stands about some keys.
    #[must_use]
    pub const fn new(span: u32, target: TreePointer) -> Self {
        Self((target.0 as u64) << 32 | span as u64)
    }

    /// The number of keys is 2 to this power.
    #[inline(always)]
    #[must_use]
    pub const fn span(self) -> u32 {
        (self.0 & 127) as u32
    }

    /// Whether a key is surely one of those from `start` on; of one that goes on to the next entry that is not
    /// known.
    #[inline(always)]
    #[must_use]
    pub const fn holds(self, start: u64, key: u64) -> bool {
        key >= start && self.span() < Self::ON && (key - start) >> (self.span() & 63) == 0
    }

    /// Where they lead to.
    #[inline(always)]
    #[must_use]
    pub const fn target(self) -> TreePointer {
        TreePointer((self.0 >> 32) as u32)
    }
}

/// The class of an IPv4 address.
#[inline(always)]
pub(super) fn class_of_v4<T: SourceTable>(
    table: Reader<'_, T>,
    division: &Division,
    address: u64,
) -> Option<SourceClass> {
    let way = descend(table, division.enter(table, address)?, address)?;
    if way.target.is_class() {
        return Some(way.target.0);
    }
    if let Some(offset) = way.guess() {
        let entry = Entry4(table.word(offset)?);
        if entry.holds(address) {
            return Some(entry.class());
        }
    }
    let probe = address << 32 | 0xffff_ffff;
    let offset = search(table, way.target, probe)?;
    let entry = Entry4(table.word(offset)?);
    if entry.0 > probe || (address - entry.start()) >> entry.span() != 0 {
        return Some(0);
    }
    Some(entry.class())
}

/// The class of an IPv6 address.
#[inline(always)]
pub(super) fn class_of_v6<T: SourceTable>(
    table: Reader<'_, T>,
    division: &Division,
    [high, low]: [u64; 2],
) -> Option<SourceClass> {
    let target = follow_v6(table, division.enter(table, high)?, high)?;
    if target.is_class() {
        return Some(target.0);
    }
    let way = Way { target, before: 0 };
    let target = follow_v6(table, way, low)?;
    Some(target.0)
}

/// Where a key of IPv6 leads to in the end.
#[inline(always)]
fn follow_v6<T: SourceTable>(table: Reader<'_, T>, way: Way, key: u64) -> Option<TreePointer> {
    let way = descend(table, way, key)?;
    if way.target.is_class() {
        return Some(way.target);
    }
    let entries = way.target.entries();
    if let Some(offset) = way.guess() {
        let start = table.word(offset)?;
        let entry = Entry6(table.word(offset + entries)?);
        if entry.holds(start, key) {
            return Some(entry.target());
        }
    }
    let offset = search(table, way.target, key)?;
    let start = table.word(offset)?;
    let entry = Entry6(table.word(offset + entries)?);
    let span = entry.span();
    if start > key || span < Entry6::ON && (key - start) >> (span & 63) != 0 {
        return Some(TreePointer::default());
    }
    Some(entry.target())
}

/// Follows nodes to a class or a leaf.
#[inline(always)]
fn descend<T: SourceTable>(table: Reader<'_, T>, mut way: Way, key: u64) -> Option<Way> {
    for _ in 0..MAX_NODES {
        if !way.target.is_node() {
            break;
        }
        way = node(table, way.target.offset())?.enter(table, key)?;
    }
    Some(way)
}

/// The division of a node.
#[inline(always)]
fn node<T: SourceTable>(table: Reader<'_, T>, offset: u32) -> Option<Division> {
    #[expect(clippy::cast_possible_truncation, reason = "a shape has 32 bits")]
    Some(Division {
        base: table.word(offset)?,
        first: offset + NODE_HEADER,
        shape: table.word(offset + 1)? as u32,
    })
}

/// The place of the last word of a leaf that is not larger than `probe`; the first if all are.
#[inline(always)]
fn search<T: SourceTable>(table: Reader<'_, T>, leaf: TreePointer, probe: u64) -> Option<u32> {
    let mut offset = leaf.offset();
    let mut left = leaf.entries();
    for _ in 0..SEARCH_STEPS {
        if left <= 1 {
            break;
        }
        let half = left / 2;
        if table.word(offset + half)? <= probe {
            offset += half;
        }
        left -= half;
    }
    Some(offset)
}
