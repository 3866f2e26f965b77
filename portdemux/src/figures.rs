//! Numbers and texts as people read them.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// How many columns of a terminal a text takes: of Chinese characters two each, of accents of their own none.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// A text, and spaces behind it until it takes `width` columns.
pub(crate) fn padded(text: &str, width: usize) -> String {
    format!(
        "{text}{:missing$}",
        "",
        missing = width.saturating_sub(self::width(text))
    )
}

/// A text in at most `room` columns; what does not fit is cut off its end.
pub(crate) fn cut(text: &str, room: usize) -> Cow<'_, str> {
    if width(text) <= room {
        return text.into();
    }
    let mut left = room.saturating_sub(1);
    let fits = |character: &char| {
        let rest = left.checked_sub(character.width().unwrap_or(1));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    let kept: String = text.chars().take_while(fits).collect();
    format!("{kept}…").into()
}

/// A text that somebody else chose, without what a terminal would obey or a reader not see.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_visible = |character: char| {
        matches!(character, '\'' | '"' | '\\') || character.escape_debug().count() == 1
    };
    if text.chars().all(is_visible) {
        return text.into();
    }
    text.chars()
        .map(|character| {
            if is_visible(character) {
                character
            } else {
                '\u{fffd}'
            }
        })
        .collect()
}

/// A number with separators between thousands, as in `8,214,503`.
pub(crate) fn grouped(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (slot, digit) in digits.char_indices() {
        if slot > 0 && (digits.len() - slot).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something, of which the word is for one.
pub(crate) fn counted(number: u64, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {what}{s}", grouped(number))
}

/// A size in bytes with a binary prefix, as in `6.1 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    scaled(
        bytes,
        1024,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
        " ",
    )
}

/// A rate with a decimal prefix, as in `12.4k`.
pub(crate) fn rate(per_second: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates are far below 2⁶⁴"
    )]
    let rounded = per_second.round() as u64;
    scaled(rounded, 1000, &["", "k", "M", "G", "T", "P", "E"], "")
}

fn scaled(number: u64, step: u64, units: &[&str], space: &str) -> String {
    if number < step {
        return format!("{number}{space}{}", units[0]);
    }
    let mut unit = 1;
    let mut divisor = step;
    while number / divisor >= step && unit + 1 < units.len() {
        divisor = divisor.saturating_mul(step);
        unit += 1;
    }
    let (whole, tenths) = (number / divisor, number % divisor / (divisor / 10).max(1));
    if whole >= 100 {
        format!("{whole}{space}{}", units[unit])
    } else {
        format!("{whole}.{}{space}{}", tenths.min(9), units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns_and_accents_none() {
        assert_eq!(
            [width("web"), width("网关"), width("e\u{301}te")],
            [3, 4, 3]
        );
        assert_eq!(padded("网关", 6), "网关  ");
        assert_eq!(padded("gateway", 6), "gateway");
        assert_eq!(
            [cut("网关机", 6), cut("网关机", 5), cut("网关机", 4)],
            ["网关机", "网关…", "网…"]
        );
        assert_eq!(cut("e\u{301}te", 2), "e\u{301}…");
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        assert_eq!(visible("it's a \"(sd-pam)\""), "it's a \"(sd-pam)\"");
        assert_eq!(visible("\u{1b}[2Jnginx\n"), "\u{fffd}[2Jnginx\u{fffd}");
        assert_eq!(visible("a\u{202e}b"), "a\u{fffd}b");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0u8), "0");
        assert_eq!(grouped(999u16), "999");
        assert_eq!(grouped(1_000u32), "1,000");
        assert_eq!(grouped(8_214_503u64), "8,214,503");
    }

    #[test]
    fn sizes_are_binary_and_rates_are_decimal() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1_023), "1023 B");
        assert_eq!(size(1_536), "1.5 KiB");
        assert_eq!(size(6_549_000_000), "6.0 GiB");
        assert_eq!(rate(12_449.0), "12.4k");
        assert_eq!(rate(999.4), "999");
        assert_eq!(rate(1_210_000.0), "1.2M");
    }
}
