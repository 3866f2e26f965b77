//! What the kernel says of itself.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

use anyhow::{Context as _, Result, bail};
use nix::libc::O_NONBLOCK;

/// What a healthy kernel never says.
const BAD: [&str; 9] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection",
    "Call Trace",
    "rcu_sched self-detected",
    "hung task",
    "refcount_t",
    "use-after-free",
];

/// Whether the kernel has complained since it started.
///
/// # Errors
///
/// With the first complaint.
pub(crate) fn are_clean() -> Result<()> {
    let mut messages = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open("/dev/kmsg")
        .context("open /dev/kmsg")?;
    // Each read gives one message.
    let mut message = vec![0; 8192];
    loop {
        let length = match messages.read(&mut message) {
            Ok(length) => length,
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(()),
            // Messages were overwritten; the next read goes on after them.
            Err(err) if err.kind() == ErrorKind::BrokenPipe => continue,
            Err(err) => return Err(err).context("read /dev/kmsg"),
        };
        let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
        if BAD.iter().any(|word| text.contains(word)) {
            bail!("the kernel says {}", text.trim());
        }
    }
}
