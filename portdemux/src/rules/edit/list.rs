//! Lists of ports as they are written.

use std::{collections::BTreeSet, ops::Range};

use super::layout::{self, Block, Port};
use crate::rules::document;

/// The value of a rule's `port` without some of its items, of which at least one is left.
pub(super) fn without(text: &str, block: &Block, removed: &BTreeSet<usize>) -> String {
    let value = &text[block.value.clone()];
    let is_kept = |index: &usize| !removed.contains(index);
    let kept: Vec<&Port> = (0..block.ports.len())
        .filter(is_kept)
        .map(|index| &block.ports[index])
        .collect();
    if value.contains('\n') {
        let cuts: Vec<_> = removed
            .iter()
            .map(|&index| {
                let span = &block.ports[index].span;
                let own = span.start - block.value.start..span.end - block.value.start;
                (item_extent(value, own), String::new())
            })
            .collect();
        let edited = layout::replace(value, &cuts);
        if reads_as(&edited, &kept) {
            return edited;
        }
    }
    let items: Vec<&str> = kept.iter().map(|port| &text[port.span.clone()]).collect();
    format!("[{}]", items.join(", "))
}

/// What goes with an item of a list that spans lines: its whole line if it stands there alone, else
/// itself with the comma after it.
pub(super) fn item_extent(value: &str, item: Range<usize>) -> Range<usize> {
    let begin = value[..item.start]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let end = value[item.end..]
        .find('\n')
        .map_or(value.len(), |newline| item.end + newline + 1);
    let after = value[item.end..end].trim_start();
    let after_comma = after.strip_prefix(',').unwrap_or(after).trim_start();
    let is_alone = begin > 0
        && value[begin..item.start].trim().is_empty()
        && (after_comma.is_empty() || after_comma.starts_with('#'));
    if is_alone {
        return begin..end;
    }
    if !after.starts_with(',') {
        return item;
    }
    item.start..end - after_comma.len()
}

/// Whether a list still is one and holds these ports.
fn reads_as(list: &str, kept: &[&Port]) -> bool {
    let text = format!("port = {list}");
    let mut ports = Vec::new();
    let errors = document::read(&text, &mut |section| {
        ports.extend(
            section
                .entries
                .iter()
                .flat_map(|entry| layout::ports(&entry.value)),
        );
    });
    errors.is_empty()
        && ports
            .iter()
            .map(|port| port.range)
            .eq(kept.iter().map(|port| port.range))
}
