//! From ranges of keys to the tree in which they are searched.

use portdemux_common::sources::tree::{
    Division, Entry4, Entry6, LEAF_ENTRIES, MAX_NODES, NODE_HEADER, SLICES, TreePointer, slot,
};

use super::store::{NoRoom, Store};

/// Which keys a tree has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// IPv4 addresses.
    V4,
    /// Upper or lower halves of IPv6 addresses.
    V6,
}

/// Neighbouring keys that lead to the same; they end where the next begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: u64,
    pub(crate) target: TreePointer,
}

/// How many pieces a slot is to have on average. Every second one is as a rule nobody's, so that most slices hold
/// one entry at most, and where a key stands in a leaf is told by those before it.
const PER_SLOT: usize = 8;
/// More entries than this are divided by a node.
const SPLIT: usize = 32;
/// A root has at most 2 to this power slots, a node likewise.
const MAX_ROOT: u32 = 20;
const MAX_NODE: u32 = 16;
/// A node has at least 2 to this power slots, so that [`MAX_NODES`] of them tell any keys apart.
const MIN_NODE: u32 = 8;

impl Keys {
    /// The last key.
    pub(crate) const fn last(self) -> u64 {
        match self {
            Self::V4 => u32::MAX as u64,
            Self::V6 => u64::MAX,
        }
    }

    /// How many words an entry takes.
    const fn entry_words(self) -> usize {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }
}

impl KeyRange {
    /// Joins neighbours that lead to the same.
    pub(crate) fn join(pieces: &mut Vec<Self>) {
        pieces.dedup_by(|next, piece| next.target == piece.target);
    }
}

/// Writes the tree of a family; `pieces` begin at key 0.
pub(crate) fn root(
    store: &mut impl Store,
    keys: Keys,
    pieces: &[KeyRange],
) -> Result<Division, NoRoom> {
    match pieces {
        [] => return Ok(Division::default()),
        [only] if only.target == TreePointer::default() => return Ok(Division::default()),
        _ => {}
    }
    let bits = bits(pieces.len()).min(MAX_ROOT);
    let first = store.take(1 << bits)?;
    divide(store, keys, pieces, (0, keys.last()), first, bits, 0)
}

/// Writes what keys from `first` to `last` lead to; the first piece may begin before.
pub(crate) fn target(
    store: &mut impl Store,
    keys: Keys,
    pieces: &[KeyRange],
    (first, last): (u64, u64),
    nodes: usize,
) -> Result<TreePointer, NoRoom> {
    if let [only] = pieces
        && only.target.is_class()
    {
        return Ok(only.target);
    }
    let entries = entries(pieces, first, last);
    if entries.len() <= SPLIT || nodes == MAX_NODES && entries.len() <= LEAF_ENTRIES {
        return leaf(store, keys, &entries);
    }
    if nodes == MAX_NODES {
        return Err(NoRoom::Unwieldy);
    }
    let bits = bits(pieces.len()).clamp(MIN_NODE, MAX_NODE);
    let offset = store.take(NODE_HEADER as usize + (1 << bits))?;
    let slots = offset + NODE_HEADER;
    let division = divide(store, keys, pieces, (first, last), slots, bits, nodes + 1)?;
    store.write(offset, &[division.base, u64::from(division.shape)]);
    Ok(TreePointer::node(offset))
}

fn bits(pieces: usize) -> u32 {
    (pieces / PER_SLOT).max(1).next_power_of_two().ilog2()
}

/// Divides pieces into 2 to the power of `bits` slots, which are written from `slots` on.
fn divide(
    store: &mut impl Store,
    keys: Keys,
    pieces: &[KeyRange],
    (first, last): (u64, u64),
    slots: u32,
    bits: u32,
    nodes: usize,
) -> Result<Division, NoRoom> {
    // From where the first piece ends to where the last one begins.
    let base = pieces.get(1).map_or(0, |piece| piece.start);
    let width = pieces
        .last()
        .map_or(0, |piece| piece.start)
        .saturating_sub(base);
    let slices = u64::from(SLICES) << bits;
    let shift = (0..63)
        .find(|shift| width >> shift < slices)
        .expect("invariant: there are at least 32 slices");
    let division = Division::new(base, slots, 1 << bits, shift);
    let mut rest = pieces;
    let mut words = Vec::with_capacity(1 << bits);
    for number in 0..1 << bits {
        let Some(bounds) = slot_bounds(&division, number, (first, last)) else {
            words.push(0);
            continue;
        };
        // The piece that holds the first key, and those that begin up to the last.
        let skipped = rest.partition_point(|piece| piece.start <= bounds.0);
        rest = &rest[skipped.saturating_sub(1)..];
        let here = rest.partition_point(|piece| piece.start <= bounds.1);
        words.push(slot_of(
            store,
            keys,
            &rest[..here],
            bounds,
            &division,
            nodes,
        )?);
    }
    store.write(slots, &words);
    Ok(division)
}

/// The first and the last key of a slot among the keys that a division is of; none if it lies beyond
/// them. The first slot has what comes before the base, the last what comes after all slices.
pub(crate) fn slot_bounds(
    division: &Division,
    number: u32,
    (first, last): (u64, u64),
) -> Option<(u64, u64)> {
    let begin =
        |number: u32| u128::from(division.base) + (u128::from(number * SLICES) << division.shift());
    let begins = if number == 0 {
        first
    } else {
        u64::try_from(begin(number))
            .ok()
            .filter(|&begins| begins <= last)?
    };
    let ends = if number + 1 == division.slots() {
        last
    } else {
        u64::try_from(begin(number + 1) - 1).map_or(last, |ends| ends.min(last))
    };
    Some((begins, ends))
}

/// Makes the word for a slot of these keys; `nodes` lead to it.
pub(crate) fn slot_of(
    store: &mut impl Store,
    keys: Keys,
    pieces: &[KeyRange],
    (first, last): (u64, u64),
    division: &Division,
    nodes: usize,
) -> Result<u64, NoRoom> {
    let target = target(store, keys, pieces, (first, last), nodes)?;
    let slice = |key: u64| u32::try_from(division.slice(key) % u64::from(SLICES)).unwrap_or(0);
    let mut slices = 0;
    for (offset, piece) in pieces.iter().enumerate() {
        if piece.target == TreePointer::default() {
            continue;
        }
        let end = pieces.get(offset + 1).map_or(last, |next| next.start - 1);
        let (from, to) = (slice(piece.start.max(first)), slice(end));
        slices |= (u32::MAX << from) & (u32::MAX >> (SLICES - 1 - to));
    }
    Ok(slot(target, slices))
}

/// Some keys that lead to the same: the first, how many of them (a power of two, or [`ON`]), and where.
type KeyRun = (u64, u32, TreePointer);

/// See [`Entry4::ON`] and [`Entry6::ON`].
const ON: u32 = u32::MAX;

/// What a leaf says. Keys that lead to class 0 need no entry behind one whose number of keys is known.
fn entries(pieces: &[KeyRange], first: u64, last: u64) -> Vec<KeyRun> {
    let mut entries: Vec<KeyRun> = Vec::with_capacity(pieces.len());
    let mut is_implied = true;
    for (offset, piece) in pieces.iter().enumerate() {
        let start = piece.start.max(first);
        let end = pieces.get(offset + 1).map_or(last, |next| next.start - 1);
        if piece.target == TreePointer::default() {
            if !is_implied {
                entries.push((start, ON, piece.target));
            }
            is_implied = true;
            continue;
        }
        let count = u128::from(end - start) + 1;
        let next = pieces.get(offset + 1);
        let is_followed_by_none = next.is_some_and(|next| next.target == TreePointer::default());
        is_implied = is_followed_by_none && count.is_power_of_two();
        let span = if is_implied { count.ilog2() } else { ON };
        entries.push((start, span, piece.target));
    }
    entries
}

fn leaf(store: &mut impl Store, keys: Keys, entries: &[KeyRun]) -> Result<TreePointer, NoRoom> {
    let offset = store.take(entries.len() * keys.entry_words())?;
    let count = u32::try_from(entries.len()).expect("invariant: a leaf is short");
    let words: Vec<u64> = match keys {
        Keys::V4 => entries
            .iter()
            .map(|&(start, span, target)| {
                let start = u32::try_from(start).expect("invariant: a key of IPv4");
                Entry4::new(start, span.min(Entry4::ON), target.0).0
            })
            .collect(),
        Keys::V6 => {
            let starts = entries.iter().map(|&(start, ..)| start);
            let rest = entries
                .iter()
                .map(|&(_, span, target)| Entry6::new(span.min(Entry6::ON), target).0);
            starts.chain(rest).collect()
        }
    };
    store.write(offset, &words);
    Ok(TreePointer::leaf(offset, count))
}
