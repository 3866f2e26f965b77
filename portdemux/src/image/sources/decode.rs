//! From a tree back to ranges of keys.

use portdemux_common::sources::tree::{
    Division, Entry4, Entry6, NODE_HEADER, TreePointer, slot_target,
};

use super::{
    encode::{KeyRange, Keys, slot_bounds},
    store::Store,
};

/// What the keys of a tree lead to, from key 0 on.
pub(crate) fn root(store: &impl Store, keys: Keys, division: &Division) -> Vec<KeyRange> {
    let mut pieces = Vec::new();
    if division.first == 0 {
        pieces.push(KeyRange {
            start: 0,
            target: TreePointer::default(),
        });
    } else {
        slots(store, keys, division, (0, keys.last()), &mut pieces);
    }
    KeyRange::join(&mut pieces);
    pieces
}

/// What keys from `first` to `last` lead to.
pub(crate) fn pieces(
    store: &impl Store,
    keys: Keys,
    target: TreePointer,
    (first, last): (u64, u64),
) -> Vec<KeyRange> {
    let mut pieces = Vec::new();
    collect(store, keys, target, (first, last), &mut pieces);
    KeyRange::join(&mut pieces);
    pieces
}

/// The division of a node.
pub(crate) fn node(store: &impl Store, offset: u32) -> Division {
    Division {
        base: store.read(offset),
        first: offset + NODE_HEADER,
        shape: u32::try_from(store.read(offset + 1)).unwrap_or_default(),
    }
}

fn slots(
    store: &impl Store,
    keys: Keys,
    division: &Division,
    bounds: (u64, u64),
    pieces: &mut Vec<KeyRange>,
) {
    for number in 0..division.slots() {
        if let Some(bounds) = slot_bounds(division, number, bounds) {
            let target = slot_target(store.read(division.first + number));
            collect(store, keys, target, bounds, pieces);
        }
    }
}

fn collect(
    store: &impl Store,
    keys: Keys,
    target: TreePointer,
    (first, last): (u64, u64),
    pieces: &mut Vec<KeyRange>,
) {
    if target.is_class() {
        pieces.push(KeyRange {
            start: first,
            target,
        });
        return;
    }
    if target.is_node() {
        let division = node(store, target.offset());
        return slots(store, keys, &division, (first, last), pieces);
    }
    // The first key of which nothing was said yet; none behind the last of all.
    let mut next = Some(first);
    let (offset, count) = (target.offset(), target.entries());
    for number in 0..count {
        let word = store.read(offset + number);
        let (start, span, target) = match keys {
            Keys::V4 => {
                let entry = Entry4(word);
                let span = (entry.span() < Entry4::ON).then_some(entry.span());
                (entry.start(), span, TreePointer::class(entry.class()))
            }
            Keys::V6 => {
                let entry = Entry6(store.read(offset + count + number));
                let span = (entry.span() < Entry6::ON).then_some(entry.span());
                (word, span, entry.target())
            }
        };
        if let Some(next) = next.filter(|&next| next < start) {
            pieces.push(KeyRange {
                start: next,
                target: TreePointer::default(),
            });
        }
        pieces.push(KeyRange { start, target });
        next = span.and_then(|span| start.checked_add(1 << span));
    }
    if let Some(start) = next.filter(|&next| next <= last) {
        pieces.push(KeyRange {
            start,
            target: TreePointer::default(),
        });
    }
}
