//! Numbers and texts as people read them.

use std::{borrow::Cow, time::Duration};

/// A text in at most `room` characters; what does not fit is cut off its end.
pub(crate) fn cut(text: &str, room: usize) -> Cow<'_, str> {
    if text.chars().count() <= room {
        return text.into();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
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
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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

/// A time in whole seconds, of what is left of one at least 1: `42 s`, `5 min`, `2 h 30 min`.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let parts = [(hours, "h"), (minutes, "min"), (rest, "s")];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let words: Vec<String> = parts
        .map(|(number, unit)| format!("{number} {unit}"))
        .collect();
    if words.is_empty() {
        "0 s".into()
    } else {
        words.join(" ")
    }
}

/// About how long a time is, in the largest unit that leaves a number worth reading: `90s`, `5m`, `24h`,
/// `3d`.
pub(crate) fn brief(time: Duration) -> String {
    let seconds = time.as_secs();
    let in_units = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", in_units(60)),
        7_200..172_800 => format!("{}h", in_units(3_600)),
        172_800.. => format!("{}d", in_units(86_400)),
    }
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
    fn times_are_whole_seconds_and_never_less_than_what_is_left() {
        assert_eq!(seconds(Duration::ZERO), "0 s");
        assert_eq!(seconds(Duration::from_millis(1)), "1 s");
        assert_eq!(seconds(Duration::from_secs(42)), "42 s");
        assert_eq!(seconds(Duration::from_millis(59_001)), "1 min");
        assert_eq!(seconds(Duration::from_secs(9_015)), "2 h 30 min 15 s");
    }

    #[test]
    fn brief_times_have_one_unit() {
        let brief = |seconds| brief(Duration::from_secs(seconds));
        assert_eq!([brief(0), brief(119), brief(120)], ["0s", "119s", "2m"]);
        assert_eq!([brief(7_199), brief(86_399)], ["120m", "24h"]);
        assert_eq!([brief(172_799), brief(259_200)], ["48h", "3d"]);
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
