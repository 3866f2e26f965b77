//! What others named, made fit for a terminal.
//!
//! Processes, interfaces and files are called whatever somebody called them, and what a terminal is told can move
//! its cursor, change what was said before, or type for the user.

use std::{borrow::Cow, fmt::Write as _};

/// The text with control characters written out, save for the ends of lines and tabs. They are written as JSON
/// writes them, so that a document means the same.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    except(text, |_| None)
}

/// Writes control characters out, save those that `kept` finds to be meant for the terminal; it says how long they are.
pub(super) fn except(text: &str, kept: impl Fn(&str) -> Option<usize>) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_hidden) {
        let (before, hidden) = rest.split_at(at);
        shown.push_str(before);
        let length = kept(hidden);
        if let Some(length) = length {
            shown.push_str(&hidden[..length]);
        } else if let Some(hidden) = hidden.chars().next() {
            let _ = write!(shown, "\\u{:04x}", u32::from(hidden));
        }
        let one = hidden.chars().next().map_or(0, char::len_utf8);
        rest = &hidden[length.unwrap_or(one)..];
    }
    shown.push_str(rest);
    shown.into()
}

fn is_hidden(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out_as_json_does() {
        assert_eq!(visible("eth0\n\tµ"), "eth0\n\tµ");
        assert_eq!(
            visible("a\u{1b}[2Jb\u{9b}\r\u{7f}"),
            "a\\u001b[2Jb\\u009b\\u000d\\u007f"
        );
        let name = "a\u{7f}\u{9b}b";
        let json = serde_json::to_string(name).unwrap();
        let read: String = serde_json::from_str(&visible(&json)).unwrap();
        assert_eq!(read, name);
    }

    #[test]
    fn what_is_meant_for_the_terminal_stays() {
        let kept = |text: &str| text.starts_with("\x1b[1m").then_some(4);
        assert_eq!(except("\x1b[1ma\x1b[9mb", kept), "\x1b[1ma\\u001b[9mb");
    }
}
