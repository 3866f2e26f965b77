//! A text without who is in its sets.

use super::members::sets;
use crate::rules::document::{self, ValueKind};

/// The text of a rules file with every list of members empty; what stands behind them stays in its line.
#[must_use]
pub fn outline(text: &str) -> String {
    let mut lists: Vec<(usize, usize)> = Vec::new();
    document::read(text, &mut |section| {
        let values = sets(section).into_iter().map(|(_, value)| value);
        let values = values.filter(|value| matches!(value.kind, ValueKind::List(_)));
        lists.extend(values.map(|value| (value.offset, value.end)));
    });
    let mut outline = String::new();
    let mut end_before = 0;
    for (begin, end) in lists {
        outline.push_str(&text[end_before..begin]);
        outline.push('[');
        let lines = text[begin..end].bytes().filter(|&byte| byte == b'\n');
        outline.extend(lines.map(|_| '\n'));
        outline.push(']');
        end_before = end;
    }
    outline.push_str(&text[end_before..]);
    outline
}
