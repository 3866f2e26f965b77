//! Durations as they are written: `30s`, `5m`, `24h`.

use std::time::Duration;

/// The units and how many milliseconds each has, the longest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// What is wrong with a duration as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is no number with a unit.
    #[error("`{}` is no duration", .0.escape_debug())]
    NotADuration(String),
    /// It is a number.
    #[error("`{0}` has no unit")]
    NoUnit(String),
    /// Its number is too large to be counted with.
    #[error("`{0}` is too long")]
    TooLong(String),
}

impl DurationError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NotADuration(_) => {
                "write a number and its unit, as in 30s, 5m or 24h; the units are ms, s, m, h \
                 and d"
                    .into()
            }
            Self::NoUnit(number) => {
                format!("write {number}s for seconds, or {number}m for minutes")
            }
            Self::TooLong(_) => "write a smaller number".into(),
        }
    }
}

/// Reads a duration.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(DurationError::NotADuration(text.into()));
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit(text.into()));
    }
    let Some((_, length)) = UNITS.into_iter().find(|&(known, _)| known == unit) else {
        return Err(DurationError::NotADuration(text.into()));
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(length))
        .map(Duration::from_millis)
        .ok_or_else(|| DurationError::TooLong(text.into()))
}

/// Writes a duration of whole milliseconds with the longest unit that needs no fraction.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, length) in UNITS {
        let length = u128::from(length);
        if milliseconds >= length && milliseconds.is_multiple_of(length) {
            // A day has a word of its own only if there are several: 24h is how it is thought of.
            if unit == "d" && milliseconds == length {
                continue;
            }
            return format!("{}{unit}", milliseconds / length);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_as_they_are_written() {
        for (text, milliseconds, written) in [
            ("30s", 30_000, "30s"),
            ("5m", 300_000, "5m"),
            ("90m", 5_400_000, "90m"),
            ("24h", 86_400_000, "24h"),
            ("1d", 86_400_000, "24h"),
            ("30d", 2_592_000_000, "30d"),
            ("500ms", 500, "500ms"),
            ("60s", 60_000, "1m"),
            ("0s", 0, "0ms"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(duration_text(duration), written);
        }
    }

    #[test]
    fn what_is_no_duration_is_told_with_a_way_out() {
        for (text, message, help) in [
            ("", "`` is no duration", "as in 30s, 5m or 24h"),
            ("soon", "`soon` is no duration", "as in 30s"),
            ("30", "`30` has no unit", "write 30s for seconds"),
            ("5 m", "`5 m` is no duration", "units are ms, s, m, h and d"),
            ("-5s", "`-5s` is no duration", "as in 30s"),
            ("1.5h", "`1.5h` is no duration", "as in 30s"),
            ("3w", "`3w` is no duration", "as in 30s"),
            ("99999999999999999999s", "is too long", "smaller"),
            ("9999999999999999d", "is too long", "smaller"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.to_string().contains(message), "{text}: {error}");
            assert!(error.help().contains(help), "{text}: {}", error.help());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(milliseconds: u32) {
            let duration = Duration::from_millis(milliseconds.into());
            prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
        }

        #[test]
        fn anything_reads_or_is_refused(text in "[0-9]{0,22}[a-z ]{0,2}|.*") {
            let _ = parse_duration(&text);
        }
    }
}
