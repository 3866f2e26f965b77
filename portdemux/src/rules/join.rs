//! One rule's ranges, made to fit each other.

use std::collections::HashSet;

use super::port::PortRange;

/// Removes repeated ranges and joins those that overlap in part, each at the place of its first part.
pub(super) fn join_ranges(ports: &mut Vec<PortRange>) {
    let mut sorted: Vec<(PortRange, usize)> = ports.iter().copied().zip(0..).collect();
    sorted.sort_unstable_by_key(|(range, index)| {
        (range.transport, range.first, u16::MAX - range.last, *index)
    });
    let mut kept: Vec<(PortRange, usize)> = Vec::with_capacity(sorted.len());
    // Places in `kept` of the ranges, each within the one before it, that can still overlap.
    let mut open: Vec<usize> = Vec::new();
    let mut gone = HashSet::new();
    for (range, index) in sorted {
        while open.last().is_some_and(|&top| !kept[top].0.overlaps(range)) {
            open.pop();
        }
        let Some(&top) = open.last() else {
            open.push(kept.len());
            kept.push((range, index));
            continue;
        };
        if kept[top].0 != range && kept[top].0.contains(range) {
            open.push(kept.len());
            kept.push((range, index));
            continue;
        }
        let last = range.last.max(kept[top].0.last);
        kept[top].0.last = last;
        kept[top].1 = kept[top].1.min(index);
        // A range that grew can have grown out of those around it.
        while let [.., around, top] = open[..]
            && (kept[around].0.last < last || kept[around].0 == kept[top].0)
        {
            kept[around].0.last = last.max(kept[around].0.last);
            kept[around].1 = kept[around].1.min(kept[top].1);
            gone.insert(top);
            open.pop();
        }
    }
    let mut index = 0;
    kept.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
    kept.sort_unstable_by_key(|&(_, index)| index);
    ports.clear();
    ports.extend(kept.into_iter().map(|(range, _)| range));
}
