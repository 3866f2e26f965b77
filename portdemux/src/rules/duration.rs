//! Durations as they are written and printed: `30s`, `1h30m`, `2w`.

use std::time::Duration;

use jiff::{RoundMode, Span, SpanRelativeTo, SpanRound, Unit, fmt::friendly::SpanParser};

/// The units in which a duration is written into a rules file, and how many milliseconds each has, the longest first.
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
                "write a number and its unit, as in 30s, 5m or 1h30m; the units are ms, s, m, h, \
                 d and w"
                    .into()
            }
            Self::NoUnit(number) => {
                format!("write {number}s for seconds, or {number}m for minutes")
            }
            Self::TooLong(_) => "write a smaller number".into(),
        }
    }
}

/// Reads a duration: numbers, each with its unit, that are added. It comes to whole milliseconds, rounded up.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let mut sum = Duration::ZERO;
    let mut rest = text;
    loop {
        let (part, behind) = first_part(rest);
        let length = parse_part(part).map_err(|kind| kind(text.into()))?;
        sum = sum
            .checked_add(length)
            .ok_or_else(|| DurationError::TooLong(text.into()))?;
        if behind.is_empty() {
            return Ok(sum);
        }
        rest = behind;
    }
}

/// A number with its unit, and what follows.
fn first_part(text: &str) -> (&str, &str) {
    let unit = text.find(|c: char| c.is_ascii_alphabetic());
    let unit = unit.unwrap_or(text.len());
    let next = text[unit..].find(|c: char| c.is_ascii_digit());
    text.split_at(next.map_or(text.len(), |next| unit + next))
}

fn parse_part(part: &str) -> Result<Duration, fn(String) -> DurationError> {
    static PARSER: SpanParser = SpanParser::new();
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let part = part.trim_end();
    let (number, unit) = part.split_at(part.find(|c| !is_number(c)).unwrap_or(part.len()));
    let unit = unit.trim_start();
    // A sign, a colon or "ago" is a duration elsewhere and none here.
    if number.is_empty() || !unit.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(DurationError::NotADuration);
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit);
    }
    let length_of = |number: &str| -> Option<Duration> {
        let span: Span = PARSER.parse_span(format!("{number}{unit}")).ok()?;
        // Months and years are of no length of their own.
        let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
        let nanoseconds = u128::try_from(length.as_nanos()).ok()?;
        let milliseconds = nanoseconds.div_ceil(1_000_000);
        u64::try_from(milliseconds).ok().map(Duration::from_millis)
    };
    length_of(number).ok_or(if number.contains('.') || length_of("1").is_none() {
        DurationError::NotADuration
    } else {
        DurationError::TooLong
    })
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

/// A time in whole seconds, of what is left of one at least 1: `42s`, `5m`, `2h 30m`.
pub(crate) fn seconds(time: Duration) -> String {
    printed(time, Unit::Hour, Unit::Second, RoundMode::Ceil)
}

/// A time in its two largest units, rounded down to the smaller, of what is left of a second at least 1: `42s`,
/// `2h 30m`, `6d 23h`.
pub(crate) fn two_units(time: Duration) -> String {
    let seconds = Duration::from_secs(
        time.as_nanos()
            .div_ceil(1_000_000_000)
            .try_into()
            .unwrap_or(u64::MAX),
    );
    let smallest = match seconds.as_secs() {
        0..3_600 => Unit::Second,
        3_600..86_400 => Unit::Minute,
        86_400.. => Unit::Hour,
    };
    printed(seconds, Unit::Day, smallest, RoundMode::Trunc)
}

/// About how long a time is, in the largest unit that leaves a number worth reading: `90s`, `5m`, `24h`,
/// `3d`.
pub(crate) fn brief(time: Duration) -> String {
    let (unit, mode) = match time.as_secs() {
        0..120 => (Unit::Second, RoundMode::Trunc),
        120..7_200 => (Unit::Minute, RoundMode::HalfExpand),
        7_200..172_800 => (Unit::Hour, RoundMode::HalfExpand),
        172_800.. => (Unit::Day, RoundMode::HalfExpand),
    };
    printed(time, unit, unit, mode)
}

/// A time as [`parse_duration`] reads it, in units from the largest to the smallest.
fn printed(time: Duration, largest: Unit, smallest: Unit, mode: RoundMode) -> String {
    let rounding = SpanRound::new().largest(largest).smallest(smallest);
    let rounding = rounding.mode(mode).days_are_24_hours();
    let milliseconds = time.as_nanos().div_ceil(1_000_000);
    let span = i64::try_from(milliseconds).ok();
    let span = span.and_then(|number| Span::new().try_milliseconds(number).ok());
    match span.and_then(|span| span.round(rounding).ok()) {
        Some(span) => format!("{span:#}"),
        // Nothing here lasts for thousands of years.
        None => format!("{}s", time.as_secs()),
    }
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
            ("2w", 1_209_600_000, "14d"),
            ("1h30m", 5_400_000, "90m"),
            ("30m1h", 5_400_000, "90m"),
            ("1h 30m 15s", 5_415_000, "5415s"),
            ("5 min", 300_000, "5m"),
            ("1.5h", 5_400_000, "90m"),
            ("1us", 1, "1ms"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(duration_text(duration), written);
        }
    }

    #[test]
    fn what_is_no_duration_is_told_with_a_way_out() {
        for (text, message, help) in [
            ("", "`` is no duration", "as in 30s, 5m or 1h30m"),
            ("soon", "`soon` is no duration", "as in 30s"),
            ("30", "`30` has no unit", "write 30s for seconds"),
            ("1h30", "`1h30` has no unit", "s for seconds"),
            (
                "5x",
                "`5x` is no duration",
                "units are ms, s, m, h, d and w",
            ),
            ("-5s", "`-5s` is no duration", "as in 30s"),
            ("5s ago", "`5s ago` is no duration", "as in 30s"),
            ("23:00:00", "`23:00:00` is no duration", "as in 30s"),
            ("P1D", "`P1D` is no duration", "as in 30s"),
            ("3mo", "`3mo` is no duration", "as in 30s"),
            ("1.5d", "`1.5d` is no duration", "as in 30s"),
            ("99999999999999999999s", "is too long", "smaller"),
            ("9999999999999999d", "is too long", "smaller"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.to_string().contains(message), "{text}: {error}");
            assert!(error.help().contains(help), "{text}: {}", error.help());
        }
    }

    #[test]
    fn times_are_whole_seconds_and_never_less_than_what_is_left() {
        assert_eq!(seconds(Duration::ZERO), "0s");
        assert_eq!(seconds(Duration::from_nanos(1)), "1s");
        assert_eq!(seconds(Duration::from_secs(42)), "42s");
        assert_eq!(seconds(Duration::from_millis(59_001)), "1m");
        assert_eq!(seconds(Duration::from_secs(9_015)), "2h 30m 15s");
        assert_eq!(seconds(Duration::from_hours(24)), "24h");
    }

    #[test]
    fn what_is_left_has_two_units() {
        let two_units = |milliseconds| two_units(Duration::from_millis(milliseconds));
        assert_eq!([two_units(0), two_units(1)], ["0s", "1s"]);
        assert_eq!([two_units(59_001), two_units(599_000)], ["1m", "9m 59s"]);
        assert_eq!(two_units(9_015_000), "2h 30m");
        assert_eq!(two_units(7 * 86_400_000 - 1_000), "6d 23h");
        assert_eq!(two_units(400 * 86_400_000), "400d");
    }

    #[test]
    fn brief_times_have_one_unit() {
        let brief = |seconds| brief(Duration::from_secs(seconds));
        assert_eq!([brief(0), brief(119), brief(120)], ["0s", "119s", "2m"]);
        assert_eq!([brief(7_199), brief(86_399)], ["120m", "24h"]);
        assert_eq!([brief(172_799), brief(259_200)], ["48h", "3d"]);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(milliseconds: u32) {
            let duration = Duration::from_millis(milliseconds.into());
            prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
            let whole = Duration::from_secs(milliseconds.div_ceil(1_000).into());
            prop_assert_eq!(parse_duration(&seconds(duration)), Ok(whole));
        }

        #[test]
        fn anything_reads_or_is_refused(text in "[0-9]{0,22}[a-z ]{0,2}|([0-9.]{1,4} ?[smhdwi]{1,2} ?){1,4}|.*") {
            let _ = parse_duration(&text);
        }

        #[test]
        fn anything_is_printed(seconds: u64, nanoseconds in 0..1_000_000_000_u32) {
            let time = Duration::new(seconds, nanoseconds);
            for text in [super::seconds(time), two_units(time), brief(time), duration_text(time)] {
                prop_assert!(text.starts_with(|c: char| c.is_ascii_digit()), "{}", text);
            }
        }
    }
}
