//! What tests that were killed could not remove.
//!
//! Everything a test makes outside of itself has its process id in its name: namespaces and
//! temporary directories, on some of which bpffs is mounted.

use std::{env, fs, path::Path, process, sync::Once};

use anyhow::Result;
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::run::ip;

const STEM: &str = "pdt-";

/// Where namespaces have their names.
pub(crate) const NAMESPACES: &str = "/run/netns";

static SWEPT: Once = Once::new();

/// What the names of everything that this process makes begin with.
pub(crate) fn prefix() -> String {
    format!("{STEM}{}-", process::id())
}

/// A temporary directory that a later run finds if this one is killed.
pub(crate) fn directory(label: &str) -> Result<TempDir> {
    sweep_once();
    Ok(tempfile::Builder::new()
        .prefix(&format!("{}{label}-", prefix()))
        .tempdir()?)
}

/// Removes what processes that are dead have left.
pub(crate) fn sweep_once() {
    SWEPT.call_once(|| {
        for name in namespaces() {
            if is_left_over(&name) {
                remove_namespace(&name);
            }
        }
        let Ok(entries) = fs::read_dir(env::temp_dir()) else {
            return;
        };
        for entry in entries.flatten() {
            if is_left_over(&entry.file_name().to_string_lossy()) {
                unmount(&entry.path());
                // Another sweep may have been faster.
                let _: std::io::Result<()> = fs::remove_dir_all(entry.path());
            }
        }
    });
}

/// Kills what runs in a namespace and removes it.
pub(crate) fn remove_namespace(name: &str) {
    // Nothing here can be reported: this also runs while a test panics.
    if let Ok(output) = ip(&["netns", "pids", name]) {
        for pid in output
            .stdout
            .lines()
            .filter_map(|line| line.trim().parse().ok())
        {
            let _: nix::Result<()> = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _: Result<_> = ip(&["netns", "delete", name]);
}

/// Takes a mount away from a directory, even if it is in use.
pub(crate) fn unmount(path: &Path) {
    // It fails if nothing is mounted there.
    let _: nix::Result<()> = umount2(path, MntFlags::MNT_DETACH);
}

/// Whether a name was given by a process that no longer runs.
fn is_left_over(name: &str) -> bool {
    name.strip_prefix(STEM)
        .and_then(|rest| rest.split('-').next())
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// The namespaces there are, by name.
#[must_use]
pub fn namespaces() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMESPACES) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_processes_made_is_left_over() {
        // Process ids end at 2²² (Linux include/linux/threads.h, PID_MAX_LIMIT).
        assert!(is_left_over("pdt-4194305-0-client"));
        assert!(!is_left_over(&format!("{}0-client", prefix())));
        assert!(!is_left_over("client"));
        assert!(!is_left_over("pdt-x-0-client"));
    }
}
