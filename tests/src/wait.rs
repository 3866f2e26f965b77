//! Waiting for a condition instead of for a time.

use std::{
    env, io,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long anything in a lab may take unless a test knows better: far more than it needs, since
/// only a failure waits that long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How many times as long everything takes here: what `PORTDEMUX_SLOWNESS` says, as where a machine is emulated, else 1.
/// Whatever is waited for may take so many times as long.
#[must_use]
pub fn slowness() -> u32 {
    static SLOWNESS: OnceLock<u32> = OnceLock::new();
    *SLOWNESS.get_or_init(|| {
        let said = env::var("PORTDEMUX_SLOWNESS").ok();
        said.and_then(|said| said.parse().ok()).unwrap_or(1)
    })
}

const STEP: Duration = Duration::from_millis(5);

/// Waits until `condition` is true.
///
/// # Errors
///
/// After `timeout` times [`slowness`], saying `what` did not come about; or when `condition` fails.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait_for(what, timeout, || Ok(condition()?.then_some(())))
}

/// Waits until `probe` gives a value, and returns it.
///
/// # Errors
///
/// After `timeout` times [`slowness`], saying `what` did not come about; or when `probe` fails.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let timeout = timeout * slowness();
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() > timeout {
            bail!("waited {timeout:?} for {what}");
        }
        thread::sleep(STEP);
    }
}

/// Binds a socket as soon as its address is free. A program that another thread of the tests starts
/// holds copies of all sockets until it is executed, so that one that was closed is still there.
///
/// # Errors
///
/// The address stays in use, or cannot be had for another reason.
pub fn wait_to_bind<T>(bind: impl Fn() -> io::Result<T>) -> Result<T> {
    wait_for("a free address", PATIENCE, || match bind() {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error.into()),
    })
}
