//! Time as a change that waits is judged by: it goes on while the machine sleeps, nobody sets it, and it
//! ends with the kernel, as the ruleset does.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

/// How long the kernel runs.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(now.tv_sec.cast_unsigned(), nanoseconds)
}

/// Which run of the kernel this is.
pub(super) fn boot() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(id.trim().to_owned())
}
