//! The process that finds again what was gone, as others see it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Need, start};
use crate::{
    instance::{Instance, InstancePaths, Lock, is_held},
    maps::pins::unpin,
    rules::Ruleset,
};

/// The verb that one is started with.
pub const VERB: &str = "follow";
/// What is added to that where nobody waits for it to end.
pub const IN_BACKGROUND: &str = "--background";

/// The file that one holds, among the records.
pub(crate) const LOCK: &str = "follower";

/// Starts a follower in the background if a ruleset in force needs one and none runs.
///
/// # Errors
///
/// It does not start. Says what does not happen without it.
pub fn start_if_needed(instance: &Instance, ruleset: &Ruleset) -> Result<()> {
    let Some(lack) = Need::of(instance, ruleset).lack() else {
        return Ok(());
    };
    if is_running(&instance.paths) {
        return Ok(());
    }
    start(&instance.paths, &[VERB, IN_BACKGROUND]).context(lack)
}

/// Whether one runs for an instance.
#[must_use]
pub fn is_running(paths: &InstancePaths) -> bool {
    is_held(&lock_path(paths)).unwrap_or(false)
}

/// Ends the follower of an instance, if one runs: its right goes with the name of its lock.
///
/// # Errors
///
/// The lock cannot be removed.
pub(crate) fn dismiss(lock: &Lock) -> Result<()> {
    unpin(&lock_path(&lock.paths))
}

/// Where that file is.
pub(crate) fn lock_path(paths: &InstancePaths) -> PathBuf {
    paths.records().join(LOCK)
}
