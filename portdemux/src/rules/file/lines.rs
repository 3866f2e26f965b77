//! Lines of a text.

use std::ops::Range;

use crate::rules::error::Diagnostic;

/// How many characters of a line are shown.
const SHOWN: usize = 60;

/// A text and a place in it whose line is known.
///
/// Rules are read from first to last, so that counting from the place of the question before costs
/// one pass over the text in all.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t str,
    offset: usize,
    line: usize,
    /// The bytes of the line that was shown last: one line can hold many mistakes and be very long.
    shown: Range<usize>,
}

impl<'t> Lines<'t> {
    /// The lines of a text.
    pub(super) const fn new(text: &'t str) -> Self {
        Self {
            text,
            offset: 0,
            line: 1,
            shown: 0..0,
        }
    }

    /// The number of the line that holds a byte, from 1.
    pub(super) fn line(&mut self, offset: usize) -> usize {
        let bytes = self.text.as_bytes();
        let offset = offset.min(bytes.len());
        if offset >= self.offset {
            self.line += count_newlines(&bytes[self.offset..offset]);
        } else {
            self.line -= count_newlines(&bytes[offset..self.offset]);
        }
        self.offset = offset;
        self.line
    }

    /// What stands between two bytes.
    pub(super) fn slice(&self, begin: usize, end: usize) -> &'t str {
        self.text.get(begin..end).unwrap_or_default()
    }

    /// Adds the line that holds a byte to the evidence for a mistake.
    pub(super) fn show(&mut self, diagnostic: Diagnostic, offset: usize) -> Diagnostic {
        if !self.shown.contains(&offset) {
            let (before, after) = self
                .text
                .split_at_checked(offset.min(self.text.len()))
                .unwrap_or((self.text, ""));
            let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
            self.shown = begin..offset + after.find('\n').unwrap_or(after.len());
        }
        let text = self.slice(self.shown.start, self.shown.end).trim();
        let mut shown: String = text
            .chars()
            .take(SHOWN)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if text.chars().nth(SHOWN).is_some() {
            shown.push('…');
        }
        let line = self.line(offset);
        diagnostic.at(line, [shown])
    }
}

fn count_newlines(bytes: &[u8]) -> usize {
    bytes.iter().map(|&byte| usize::from(byte == b'\n')).sum()
}
