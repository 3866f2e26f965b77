//! Rates as they are written: `1000/s`, `10/m`.

use std::{fmt, str::FromStr};

use portdemux_common::policy;

/// The most packets that can come in a second.
const MAX_PER_SECOND: u64 = 1_000_000_000;

/// The largest burst.
pub const MAX_BURST: u64 = 1 << 32;

/// The longest that a burst can take to come back, in nanoseconds: 146 years, with which the kernel can
/// still count.
const MAX_TOLERANCE: u128 = 1 << 62;

/// So many packets in so much time; at least one nanosecond from one to the next, and at least one of
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    packets: u64,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    Second,
    Minute,
    Hour,
}

/// What is wrong with a rate, or with its burst, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// It is none.
    #[error("`{}` is no rate", .0.escape_debug())]
    NotARate(String),
    /// It is a number.
    #[error("`{0}` says packets, but not per what")]
    NoUnit(String),
    /// It lets nothing in.
    #[error("`{0}` lets no packet in")]
    Zero(String),
    /// No wire carries so many.
    #[error("`{0}` is more than 1,000,000,000 packets in a second")]
    TooHigh(String),
    /// The burst is 0 or very large.
    #[error("a burst of {0} packets")]
    Burst(u64),
    /// The burst takes longer to come back than can be counted.
    #[error("a burst of {burst} at {rate} comes back only after more than 146 years")]
    Forever {
        /// The burst.
        burst: u64,
        /// The rate.
        rate: Rate,
    },
}

impl RateError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NotARate(_) => {
                "write packets per second, minute or hour, as in 1000/s, 10/m or 3/h".into()
            }
            Self::NoUnit(number) => format!("write {number}/s, {number}/m or {number}/h"),
            Self::Zero(_) => "write to = \"drop\" for no packet at all".into(),
            Self::TooHigh(_) => "write a lower rate, or leave it out for no limit".into(),
            Self::Burst(_) => "a burst has 1 to 4,294,967,296 packets".into(),
            Self::Forever { .. } => "write a smaller burst or a higher rate".into(),
        }
    }
}

impl Unit {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    const fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }

    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }

    const fn nanoseconds(self) -> u64 {
        self.seconds() * 1_000_000_000
    }
}

impl Rate {
    /// How many packets may come in [`Rate::seconds`].
    #[must_use]
    pub const fn packets(self) -> u64 {
        self.packets
    }

    /// In how many seconds its packets may come.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.unit.seconds()
    }

    /// How many packets may come at once unless something else is said: as many as the rate names.
    #[must_use]
    pub fn default_burst(self) -> u64 {
        self.packets.min(MAX_BURST)
    }

    /// The rate as the kernel takes it.
    #[must_use]
    pub fn limit(self, burst: Option<u64>) -> policy::Rate {
        let interval = self.interval();
        let early = burst.unwrap_or(self.default_burst()).saturating_sub(1);
        policy::Rate {
            interval,
            tolerance: interval.saturating_mul(early),
        }
    }

    /// Says whether packets can come in such a burst.
    pub fn check(self, burst: Option<u64>) -> Result<(), RateError> {
        let Some(burst) = burst else { return Ok(()) };
        check_burst(burst)?;
        if u128::from(self.interval()) * u128::from(burst) > MAX_TOLERANCE {
            return Err(RateError::Forever { burst, rate: self });
        }
        Ok(())
    }

    /// The rate and the burst that the kernel holds, as they can be written; none for no limit.
    #[must_use]
    pub fn of_limit(limit: policy::Rate) -> Option<(Self, u64)> {
        if limit.interval == 0 {
            return None;
        }
        let of_unit = |unit: Unit| Self {
            packets: rounded(unit.nanoseconds(), limit.interval).max(1),
            unit,
        };
        let rate = Unit::ALL
            .into_iter()
            .map(of_unit)
            .find(|rate| rate.interval() == limit.interval)
            .unwrap_or_else(|| of_unit(Unit::Hour));
        Some((rate, limit.tolerance / limit.interval + 1))
    }

    /// Nanoseconds from one packet to the next.
    fn interval(self) -> u64 {
        rounded(self.unit.nanoseconds(), self.packets).max(1)
    }
}

/// Says whether a burst can have so many packets.
pub const fn check_burst(burst: u64) -> Result<(), RateError> {
    match burst {
        1..=MAX_BURST => Ok(()),
        burst => Err(RateError::Burst(burst)),
    }
}

const fn rounded(dividend: u64, divisor: u64) -> u64 {
    (dividend + divisor / 2) / divisor
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.packets, self.unit.name())
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let is_number =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let Some((packets, unit)) = text.split_once('/') else {
            return Err(if is_number(text) {
                RateError::NoUnit(text.into())
            } else {
                RateError::NotARate(text.into())
            });
        };
        let unit = Unit::ALL.into_iter().find(|known| known.name() == unit);
        let (true, Some(unit)) = (is_number(packets), unit) else {
            return Err(RateError::NotARate(text.into()));
        };
        let packets: Option<u64> = packets.parse().ok();
        match packets.filter(|&packets| packets <= MAX_PER_SECOND * unit.seconds()) {
            Some(0) => Err(RateError::Zero(text.into())),
            Some(packets) => Ok(Self { packets, unit }),
            None => Err(RateError::TooHigh(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_says_how_far_packets_are_apart_and_how_early_they_may_come() {
        for (text, burst, interval, tolerance) in [
            ("1000/s", None, 1_000_000, 999_000_000),
            ("1000/s", Some(1), 1_000_000, 0),
            ("1/s", None, 1_000_000_000, 0),
            ("10/m", None, 6_000_000_000, 54_000_000_000),
            ("1/h", Some(3), 3_600_000_000_000, 7_200_000_000_000),
            ("3/s", None, 333_333_333, 666_666_666),
            ("1000000000/s", None, 1, 999_999_999),
            ("60000000000/m", None, 1, MAX_BURST - 1),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), text);
            assert_eq!(
                rate.limit(burst),
                policy::Rate {
                    interval,
                    tolerance
                },
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_rate_is_told_with_a_way_out() {
        for (text, message, help) in [
            ("", "`` is no rate", "as in 1000/s"),
            ("fast", "`fast` is no rate", "as in 1000/s"),
            (
                "1000",
                "`1000` says packets, but not per what",
                "write 1000/s, 1000/m or 1000/h",
            ),
            ("1000/sec", "`1000/sec` is no rate", "as in 1000/s"),
            ("1k/s", "`1k/s` is no rate", "as in 1000/s"),
            ("-1/s", "`-1/s` is no rate", "as in 1000/s"),
            ("/s", "`/s` is no rate", "as in 1000/s"),
            ("0/s", "`0/s` lets no packet in", "to = \"drop\""),
            ("1000000001/s", "is more than 1,000,000,000", "a lower rate"),
            (
                "60000000001/m",
                "is more than 1,000,000,000",
                "a lower rate",
            ),
            (
                "99999999999999999999/h",
                "is more than 1,000,000,000",
                "a lower rate",
            ),
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.to_string().contains(message), "{text}: {error}");
            assert!(error.help().contains(help), "{text}: {}", error.help());
        }
        let hourly: Rate = "1/h".parse().unwrap();
        for (burst, message) in [
            (0, "a burst of 0 packets"),
            (MAX_BURST + 1, "a burst of 4294967297 packets"),
            (
                MAX_BURST,
                "a burst of 4294967296 at 1/h comes back only after",
            ),
        ] {
            let error = hourly.check(Some(burst)).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
        assert_eq!(hourly.check(Some(1_000_000)), Ok(()));
    }

    proptest! {
        #[test]
        fn what_the_kernel_holds_can_be_written_and_read_back(
            digits in 1..=12_u32,
            number: u64,
            unit in 0..3_usize,
            burst in prop::option::of(1..=MAX_BURST),
        ) {
            let unit = Unit::ALL[unit];
            let packets = number % 10_u64.pow(digits) + 1;
            let rate = Rate { packets: packets.min(MAX_PER_SECOND * unit.seconds()), unit };
            prop_assume!(rate.check(burst).is_ok());
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            let limit = rate.limit(burst);
            let (again, burst) = Rate::of_limit(limit).unwrap();
            prop_assert_eq!(again.limit(Some(burst)), limit);
            prop_assert_eq!(again.check(Some(burst)), Ok(()));
        }

        #[test]
        fn anything_reads_or_is_refused(text in "[0-9]{0,21}/?[smh]?|.*") {
            let _ = text.parse::<Rate>();
        }
    }
}
