//! Where the rules stand in a text.

use std::ops::Range;

use crate::rules::{
    document::{self, Section, Value, ValueKind},
    port::PortRange,
};

/// The `[[rule]]` tables of a text that has no mistakes, in their order.
pub(super) struct FileLayout {
    pub(super) blocks: Vec<Block>,
}

/// One `[[rule]]` table.
pub(super) struct Block {
    /// Where the entries before it end: nothing that belongs to it stands before.
    floor: usize,
    /// Where its header begins.
    header: usize,
    /// Where its last entry ends.
    content_end: usize,
    /// Where the next header begins, if there is one.
    next: Option<usize>,
    /// Where the value of `port` stands.
    pub(super) value: Range<usize>,
    /// The ports in it.
    pub(super) ports: Vec<Port>,
    /// Where `shadow` and its value stand, if they do.
    shadow: Option<Range<usize>>,
}

/// A port as it is written.
pub(super) struct Port {
    pub(super) range: PortRange,
    /// Where it stands, quotes included.
    pub(super) span: Range<usize>,
}

impl FileLayout {
    /// Finds the rules of a text.
    pub(super) fn of(text: &str) -> Self {
        let mut blocks: Vec<Block> = Vec::new();
        let mut end_before = 0;
        let mut is_rule_before = false;
        let errors = document::read(text, &mut |section| {
            let Some(header) = &section.header else {
                end_before = content_end(section);
                return;
            };
            if is_rule_before && let Some(block) = blocks.last_mut() {
                block.next = Some(header.offset);
            }
            is_rule_before = header.is_list;
            if let Some(block) = header
                .is_list
                .then(|| Block::of(section, header.offset))
                .flatten()
            {
                blocks.push(Block {
                    floor: end_before,
                    ..block
                });
            }
            end_before = content_end(section).max(header.offset);
        });
        debug_assert!(errors.is_empty(), "the text has no mistakes");
        Self { blocks }
    }
}

fn content_end(section: &Section<'_>) -> usize {
    section.entries.last().map_or(0, |entry| entry.value.end)
}

/// The ports in the value of `port`.
pub(super) fn ports(value: &Value<'_>) -> Vec<Port> {
    let values = match &value.kind {
        ValueKind::List(values) => &values[..],
        ValueKind::Text(_) | ValueKind::Table(_) | ValueKind::Other(_) => {
            std::slice::from_ref(value)
        }
    };
    let port = |value: &Value<'_>| match &value.kind {
        ValueKind::Text(text) => Some(Port {
            range: text.parse().ok()?,
            span: value.offset..value.end,
        }),
        ValueKind::List(_) | ValueKind::Table(_) | ValueKind::Other(_) => None,
    };
    values.iter().filter_map(port).collect()
}

impl Block {
    fn of(section: &Section<'_>, header: usize) -> Option<Self> {
        let find = |name: &str| section.entries.iter().find(|entry| entry.key.text == name);
        let value = &find("port")?.value;
        let shadow = find("shadow").map(|entry| entry.key.offset..entry.value.end);
        Some(Self {
            floor: 0,
            header,
            content_end: content_end(section),
            next: None,
            value: value.offset..value.end,
            ports: ports(value),
            shadow,
        })
    }

    /// The line that says whether it is a shadow, if there is one.
    pub(super) fn shadow_line(&self, text: &str) -> Option<Range<usize>> {
        let shadow = self.shadow.as_ref()?;
        Some(line_begin(text, shadow.start)..line_end(text, shadow.end))
    }

    /// What goes with the rule: the comment directly above, its lines, the comment directly below if
    /// that is not directly above another table, and the empty lines after it.
    pub(super) fn extent(&self, text: &str) -> Range<usize> {
        let mut begin = line_begin(text, self.header);
        let floor = match self.floor {
            0 => 0,
            floor => line_end(text, floor),
        };
        while begin > floor {
            let above = line_begin(text, begin - 1);
            if above < floor || !text[above..begin].trim_start().starts_with('#') {
                break;
            }
            begin = above;
        }
        let limit = self.next.map_or(text.len(), |next| line_begin(text, next));
        let own_end = line_end(text, self.content_end);
        let mut end = own_end;
        while end < limit && text[end..line_end(text, end)].trim_start().starts_with('#') {
            end = line_end(text, end);
        }
        if end == limit && self.next.is_some() {
            end = own_end;
        }
        while end < limit && text[end..line_end(text, end)].trim().is_empty() {
            end = line_end(text, end);
        }
        begin..end
    }
}

/// Where the line that holds a byte begins.
fn line_begin(text: &str, offset: usize) -> usize {
    text[..offset].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Where the line after the one that holds a byte begins.
fn line_end(text: &str, offset: usize) -> usize {
    text[offset..]
        .find('\n')
        .map_or(text.len(), |newline| offset + newline + 1)
}

/// Cuts parts out of a text, in the place of each puts another, and leaves no empty lines at the end if
/// the end was cut. The parts ascend and do not overlap.
pub(super) fn replace(text: &str, parts: &[(Range<usize>, String)]) -> String {
    let mut edited = String::with_capacity(text.len());
    let mut copied = 0;
    for (part, by) in parts {
        edited.push_str(&text[copied..part.start]);
        edited.push_str(by);
        copied = part.end;
    }
    if copied == text.len() {
        let content = edited.trim_end().len();
        edited.truncate(line_end(&edited, content));
    } else {
        edited.push_str(&text[copied..]);
    }
    edited
}
