//! Changes to a tree that programs read: leaves are written anew and take the place of the old ones by
//! one store each.

use portdemux_common::sources::{
    SourceClass,
    tree::{Division, MAX_NODES, SLICES, TreePointer, slot, slot_target},
};

use super::{
    decode,
    encode::{self, KeyRange, Keys, slot_bounds, slot_of},
    ranges::low_word,
    store::{NoRoom, Store},
};

/// How many slots a change may touch; with more it costs less to build the tree anew.
const MAX_SLOTS: u32 = 1 << 12;

/// Puts the addresses from `first` to `last` into other classes; an IPv4 address is a number of 32 bits.
pub(crate) fn change<S: Store>(
    store: &mut S,
    keys: Keys,
    division: &Division,
    (first, last): (u128, u128),
    classes: &mut dyn FnMut(&mut S, SourceClass) -> Result<SourceClass, NoRoom>,
) -> Result<(), NoRoom> {
    if division.first == 0 {
        return Err(NoRoom::Unwieldy);
    }
    if keys == Keys::V4 {
        let mut change =
            |store: &mut S, target: TreePointer| Ok(TreePointer::class(classes(store, target.0)?));
        let bounds = (low_word(first), low_word(last));
        return slots(
            store,
            keys,
            division,
            (0, keys.last()),
            bounds,
            0,
            &mut change,
        );
    }
    let (highs, lows) = (
        (low_word(first >> 64), low_word(last >> 64)),
        (low_word(first), low_word(last)),
    );
    let mut change = |store: &mut S, target: TreePointer| {
        let is_whole = lows == (0, u64::MAX);
        if is_whole && target.is_class() {
            return Ok(TreePointer::class(classes(store, target.0)?));
        }
        let change = &mut |store: &mut S, target: TreePointer| {
            Ok(TreePointer::class(classes(store, target.0)?))
        };
        let all = (0, u64::MAX);
        if target.is_node() && !is_whole {
            let node = decode::node(store, target.offset());
            slots(store, keys, &node, all, lows, 1, change)?;
            return Ok(target);
        }
        let mut lower = decode::pieces(store, keys, target, all);
        apply(store, &mut lower, lows, u64::MAX, change)?;
        encode::target(store, keys, &lower, all, 0)
    };
    slots(
        store,
        keys,
        division,
        (0, keys.last()),
        highs,
        0,
        &mut change,
    )
}

/// Changes where some keys lead to.
type Redirection<'c, S> = dyn FnMut(&mut S, TreePointer) -> Result<TreePointer, NoRoom> + 'c;

/// Changes the slots of a division that hold any of the keys from `first` to `last`.
fn slots<S: Store>(
    store: &mut S,
    keys: Keys,
    division: &Division,
    bounds: (u64, u64),
    (first, last): (u64, u64),
    nodes: usize,
    change: &mut Redirection<'_, S>,
) -> Result<(), NoRoom> {
    let number = |key: u64| u32::try_from(division.slice(key)).unwrap_or(u32::MAX) / SLICES;
    let (from, to) = (number(first), number(last));
    if to - from > MAX_SLOTS {
        return Err(NoRoom::Unwieldy);
    }
    for number in from..=to {
        let Some(bounds) = slot_bounds(division, number, bounds) else {
            continue;
        };
        let offset = division.first + number;
        let old = store.read(offset);
        let target = slot_target(old);
        let here = (first.max(bounds.0), last.min(bounds.1));
        let is_whole = here == bounds;
        if target.is_node() && !is_whole {
            // The node stays, and of its slots only those change that hold any of the keys.
            if nodes == MAX_NODES {
                return Err(NoRoom::Unwieldy);
            }
            let node = decode::node(store, target.offset());
            slots(store, keys, &node, bounds, here, nodes + 1, change)?;
            let slices = slices_of(division, here);
            store.publish(offset, old | slot(TreePointer::default(), slices));
            continue;
        }
        let mut pieces = decode::pieces(store, keys, target, bounds);
        apply(store, &mut pieces, here, bounds.1, change)?;
        let word = slot_of(store, keys, &pieces, bounds, division, nodes)?;
        store.publish(offset, word);
    }
    Ok(())
}

/// The slices of one slot that hold any of these keys.
fn slices_of(division: &Division, (first, last): (u64, u64)) -> u32 {
    let slice = |key: u64| u32::try_from(division.slice(key) % 32).unwrap_or(0);
    (u32::MAX << slice(first)) & (u32::MAX >> (31 - slice(last)))
}

/// Changes where the keys from `first` to `last` among these pieces lead to, which end with `end`.
fn apply<S: Store>(
    store: &mut S,
    pieces: &mut Vec<KeyRange>,
    (first, last): (u64, u64),
    end: u64,
    change: &mut Redirection<'_, S>,
) -> Result<(), NoRoom> {
    split(pieces, first);
    if last < end {
        split(pieces, last + 1);
    }
    for piece in pieces.iter_mut() {
        if (first..=last).contains(&piece.start) {
            piece.target = change(store, piece.target)?;
        }
    }
    KeyRange::join(pieces);
    Ok(())
}

/// Lets a piece begin at a key.
fn split(pieces: &mut Vec<KeyRange>, key: u64) {
    let offset = pieces.partition_point(|piece| piece.start <= key);
    if let Some(piece) = offset
        .checked_sub(1)
        .and_then(|offset| pieces.get(offset).copied())
        && piece.start < key
    {
        pieces.insert(
            offset,
            KeyRange {
                start: key,
                ..piece
            },
        );
    }
}
