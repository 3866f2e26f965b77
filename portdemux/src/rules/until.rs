//! Until when somebody is in a set: times of day and durations.

use std::{fmt, str::FromStr};

/// Milliseconds of the longest duration: ten years of 365 days.
const LONGEST: u64 = 3650 * 24 * 3_600_000;

/// A time of day in UTC, as RFC 3339 §5.6 writes it with `Z`: `2026-11-22T23:00:00Z`.
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
        if let Ok(until) = text.parse::<Self>() {
            if until.unix <= now {
                return Err(UntilError::Past(text.into()));
            }
            return Self::checked(text, until.unix - now, now);
        }
        let left = duration(text)?;
        if left == 0 {
            return Err(UntilError::Zero(text.into()));
        }
        Self::checked(text, left, now)
    }

    fn checked(text: &str, left: u64, now: u64) -> Result<Self, UntilError> {
        if left > LONGEST {
            return Err(UntilError::TooLong(text.into()));
        }
        Ok(Self { unix: now + left })
    }
}

/// The milliseconds of a duration.
fn duration(text: &str) -> Result<u64, UntilError> {
    let neither = || UntilError::Neither(text.into());
    let mut rest = text;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        if number.is_empty() {
            return Err(neither());
        }
        let unit = match behind.as_bytes() {
            [b's', ..] => 1_000,
            [b'm', ..] => 60_000,
            [b'h', ..] => 3_600_000,
            [b'd', ..] => 24 * 3_600_000,
            [b'w', ..] => 7 * 24 * 3_600_000,
            [] => return Err(UntilError::NoUnit(text.into())),
            _ => return Err(neither()),
        };
        // Digits alone do not fit in a number only if they are too many.
        let number = number.parse().unwrap_or(u64::MAX);
        sum = sum.saturating_add(u64::saturating_mul(number, unit));
        rest = &behind[1..];
    }
    if text.is_empty() {
        return Err(neither());
    }
    Ok(sum)
}

impl FromStr for Until {
    type Err = UntilError;

    fn from_str(text: &str) -> Result<Self, UntilError> {
        read(text).ok_or_else(|| UntilError::NotATime(text.into()))
    }
}

fn read(text: &str) -> Option<Until> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let number = |text: &str, length: usize| -> Option<u64> {
        let is_number = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "000"));
    let mut time = time.split(':');
    let (hour, minute, second) = (time.next()?, time.next()?, time.next()?);
    if date.next().is_some() || time.next().is_some() {
        return None;
    }
    let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    let is_time = hour < 24 && minute < 60 && second < 60;
    if year < 1970 || !is_time || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_before(year, month) + day.checked_sub(1)?;
    if days >= days_before(year + month / 12, month % 12 + 1) {
        return None;
    }
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(Until {
        unix: seconds * 1_000 + number(fraction, 3)?,
    })
}

/// Days from 1970 to the first of a month (1 to 12).
fn days_before(year: u64, month: u64) -> u64 {
    /// Days before each month of a year that is no leap year.
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let past = year - 1;
    let leap_days = past / 4 - past / 100 + past / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let before = (1..).zip(BEFORE).find(|&(number, _)| number == month);
    let before = before.map_or(0, |(_, before)| before);
    (year - 1970) * 365 + leap_days + before + u64::from(is_leap && month > 2)
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, fraction) = (self.unix / 1_000, self.unix % 1_000);
        let days = seconds / 86_400;
        // Never too late, and at most a year too early.
        let mut year = 1970 + days / 366;
        while days_before(year + 1, 1) <= days {
            year += 1;
        }
        let month = (1..=12)
            .rev()
            .find(|&month| days_before(year, month) <= days)
            .unwrap_or(1);
        let day = days - days_before(year, month) + 1;
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if fraction > 0 {
            write!(f, ".{fraction:03}")?;
        }
        f.write_str("Z")
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
        ] {
            assert_eq!(text.parse(), Ok(Until { unix }), "{text}");
            assert_eq!(Until { unix }.to_string(), text);
        }
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T23:00:00",
            "2026-11-22T23:00:00+01:00",
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
        fn every_time_comes_back(unix in 0..250_000_000_000_000_u64) {
            let until = Until { unix };
            prop_assert_eq!(until.to_string().parse(), Ok(until));
        }
    }
}
