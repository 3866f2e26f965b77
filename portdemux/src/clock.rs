//! The time of day, and the clock that the kernel goes by.

use std::time::{Duration, SystemTime};

use portdemux_common::sources::DEADLINE_SHIFT;
use rustix::time::{ClockId, clock_gettime};

use crate::rules::until::Until;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds since 1970.
    pub unix: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub monotonic: u64,
}

impl Clock {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
        Self {
            unix: milliseconds(unix),
            monotonic: seconds * 1_000_000_000 + nanoseconds,
        }
    }

    /// A time of day, in milliseconds since 1970, as the kernel's tables of sources have it; none if it
    /// is past. It never comes out earlier than it is.
    #[must_use]
    pub fn deadline(&self, unix: u64) -> Option<u64> {
        let left = unix.checked_sub(self.unix).filter(|&left| left > 0)?;
        let nanoseconds = left
            .saturating_mul(1_000_000)
            .saturating_add(self.monotonic);
        Some((nanoseconds >> DEADLINE_SHIFT) + 1)
    }

    /// The time of day of a deadline in the kernel's tables, never earlier than it is; none if it is past.
    #[must_use]
    pub fn time_of(&self, deadline: u64) -> Option<Until> {
        let nanoseconds = deadline.saturating_mul(1 << DEADLINE_SHIFT);
        let left = nanoseconds
            .checked_sub(self.monotonic)
            .filter(|&left| left > 0)?;
        let unix = self.unix.saturating_add(left.div_ceil(1_000_000));
        Some(Until { unix })
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
