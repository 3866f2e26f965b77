//! Lists of CPUs.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use super::DestinationError;

/// The highest number of a CPU that can be written.
pub const MAX_CPU: u16 = 8191;

/// How many CPUs a rule can name.
pub const MAX_CPUS: usize = 1024;

/// CPUs by number, at least one: ranges that ascend and do not touch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpus(Vec<(u16, u16)>);

impl Cpus {
    /// These CPUs; nothing for none. They need not ascend.
    #[must_use]
    pub fn of(numbers: &[u16]) -> Option<Self> {
        let ranges = numbers.iter().map(|&number| (number, number)).collect();
        let joined = join(ranges);
        (!joined.is_empty()).then_some(Self(joined))
    }

    /// Their numbers, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        let ranges = self.0.iter().map(|&(first, last)| first..=last);
        ranges.flat_map(RangeInclusive::into_iter)
    }

    fn count(&self) -> usize {
        let ranges = self.0.iter();
        ranges
            .map(|&(first, last)| usize::from(last - first) + 1)
            .sum()
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &(first, last)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if first == last {
                write!(f, "{first}")?;
            } else {
                write!(f, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Cpus {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let number = |text: &str| -> Result<u16, DestinationError> {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number {
                return Err(DestinationError::NotACpu(text.into()));
            }
            let number = text.parse().ok();
            number
                .filter(|&number| number <= MAX_CPU)
                .ok_or_else(|| DestinationError::HighCpu(text.into()))
        };
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(DestinationError::ReversedCpus { first, last });
            }
            ranges.push((first, last));
        }
        let cpus = Self(join(ranges));
        match cpus.count() {
            1..=MAX_CPUS => Ok(cpus),
            count => Err(DestinationError::ManyCpus(count)),
        }
    }
}

/// Orders ranges and joins those that overlap or touch.
fn join(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}
