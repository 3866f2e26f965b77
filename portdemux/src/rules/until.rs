//! Until when somebody is in a set: times of day and durations.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{
    SignedDuration, Timestamp,
    civil::{DateTime, date},
};

use super::duration::{DurationError, parse_duration};

/// The longest that somebody is in a set for a time: ten years of 365 days.
const LONGEST: Duration = Duration::from_hours(3650 * 24);

/// When milliseconds begin to be counted.
const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// A time of day. It is written in UTC, as RFC 3339 §5.6 has it with `Z`: `2026-11-22T23:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Until {
    /// Milliseconds since 1970.
    pub unix: u64,
}

/// What is wrong with a time or a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UntilError {
    /// It is neither.
    #[error("`{}` is neither a duration nor a time", .0.escape_debug())]
    Neither(String),
    /// It is not a time.
    #[error("`{}` is not a time", .0.escape_debug())]
    NotATime(String),
    /// A number stands for itself.
    #[error("`{0}` has no unit")]
    NoUnit(String),
    /// Nobody would be in the set at any time.
    #[error("`{0}` is no time at all")]
    Zero(String),
    /// The time is over.
    #[error("`{0}` is past")]
    Past(String),
    /// It is longer than anything is planned.
    #[error("`{0}` is longer than ten years")]
    TooLong(String),
}

impl UntilError {
    /// What to write instead.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Neither(_) | Self::NoUnit(_) => {
                "write it as in 90s, 10m, 12h, 7d or 2w, or as in 2030-01-31T12:00:00Z"
            }
            Self::NotATime(_) => "write it in UTC, as in 2030-01-31T12:00:00Z",
            Self::Zero(_) | Self::Past(_) => "say a time that is still to come",
            Self::TooLong(_) => "leave it out to have it for good",
        }
    }
}

impl Until {
    /// Reads a duration from a moment on (`1h30m`), or a time after that moment.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn parse(text: &str, now: u64) -> Result<Self, UntilError> {
        let until = if let Some(until) = read(text) {
            if until.unix <= now {
                return Err(UntilError::Past(text.into()));
            }
            until
        } else {
            let left = parse_duration(text).map_err(|error| match error {
                DurationError::NotADuration(text) => UntilError::Neither(text),
                DurationError::NoUnit(text) => UntilError::NoUnit(text),
                DurationError::TooLong(text) => UntilError::TooLong(text),
            })?;
            if left.is_zero() {
                return Err(UntilError::Zero(text.into()));
            }
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let unix = now.saturating_add(left);
            Self { unix }
        };
        if Duration::from_millis(until.unix - now) > LONGEST {
            return Err(UntilError::TooLong(text.into()));
        }
        Ok(until)
    }
}

impl FromStr for Until {
    type Err = UntilError;

    fn from_str(text: &str) -> Result<Self, UntilError> {
        read(text).ok_or_else(|| UntilError::NotATime(text.into()))
    }
}

/// Reads a time with `Z` or an offset from UTC, in 1970 or later, to whole milliseconds, rounded up.
fn read(text: &str) -> Option<Until> {
    let since = match text.parse::<Timestamp>() {
        Ok(time) => time.duration_since(Timestamp::UNIX_EPOCH),
        // A timestamp leaves out the last day of the year 9999, of which a date and time know.
        Err(error) if error.is_range() => {
            let last: DateTime = text.strip_suffix('Z')?.parse().ok()?;
            last.duration_since(EPOCH)
        }
        Err(_) => return None,
    };
    let nanoseconds = u128::try_from(since.as_nanos()).ok()?;
    let unix = nanoseconds.div_ceil(1_000_000).try_into().ok()?;
    Some(Until { unix })
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = i64::try_from(self.unix).unwrap_or(i64::MAX);
        let time = EPOCH.saturating_add(SignedDuration::from_millis(since));
        if self.unix.is_multiple_of(1_000) {
            write!(f, "{time}Z")
        } else {
            write!(f, "{time:.3}Z")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, unix) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696_000),
            ("2026-11-22T23:00:00.250Z", 1_795_388_400_250),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(text.parse(), Ok(Until { unix }), "{text}");
            assert_eq!(Until { unix }.to_string(), text);
        }
        for (text, same) in [
            ("2026-11-22T23:00:00+01:00", "2026-11-22T22:00:00Z"),
            ("2026-11-22 23:00Z", "2026-11-22T23:00:00Z"),
            ("2026-11-22T23:00:00.0000001Z", "2026-11-22T23:00:00.001Z"),
        ] {
            assert_eq!(text.parse::<Until>().unwrap().to_string(), same);
        }
        for text in [
            "",
            "2026-11-22",
            "1969-12-31T23:59:59Z",
            "+10000-01-01T00:00:00Z",
            "2026-11-22T23:00:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:0Z",
            "+026-01-01T00:00:00Z",
        ] {
            assert!(text.parse::<Until>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_counts_from_now_and_makes_sense() {
        let at = |text: &str| Until::parse(text, 1_000_000);
        assert_eq!(at("90s").unwrap().unix, 1_090_000);
        assert_eq!(at("1h30m").unwrap().unix, 1_000_000 + 5_400_000);
        assert_eq!(at("2w").unwrap().unix, 1_000_000 + 14 * 86_400_000);
        assert_eq!(at("1970-01-01T00:16:41Z").unwrap().unix, 1_001_000);
        for (text, message) in [
            ("10", "`10` has no unit"),
            (
                "99999-01-01T00:00:00Z",
                "`99999-01-01T00:00:00Z` is neither a duration nor a time",
            ),
            ("soon", "`soon` is neither a duration nor a time"),
            ("-5m", "`-5m` is neither a duration nor a time"),
            ("", "`` is neither a duration nor a time"),
            ("0s", "`0s` is no time at all"),
            ("1970-01-01T00:00:01Z", "`1970-01-01T00:00:01Z` is past"),
            ("3651d", "`3651d` is longer than ten years"),
            (
                "99999999999999999999999w",
                "`99999999999999999999999w` is longer than ten years",
            ),
        ] {
            assert_eq!(at(text).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn every_time_comes_back(unix in 0..=253_402_300_799_999_u64) {
            let until = Until { unix };
            prop_assert_eq!(until.to_string().parse(), Ok(until));
        }

        #[test]
        fn anything_is_a_time_or_is_refused(text in ".*|[0-9T:.Z+ -]{0,24}", unix: u64) {
            let _ = text.parse::<Until>();
            let _ = Until { unix }.to_string();
        }
    }
}
