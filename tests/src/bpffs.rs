//! A BPF file system of a test's own.

use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use tempfile::TempDir;

use crate::leftovers;

/// A mounted BPF file system. On drop it is unmounted, and with it go all pins in it.
#[derive(Debug)]
pub struct Bpffs {
    directory: TempDir,
}

impl Bpffs {
    /// Mounts one.
    ///
    /// # Errors
    ///
    /// If the kernel or the privileges do not allow it.
    pub fn new() -> Result<Self> {
        let directory = leftovers::directory("bpffs")?;
        let none: Option<&str> = None;
        mount(
            Some("bpf"),
            directory.path(),
            Some("bpf"),
            MsFlags::empty(),
            none,
        )
        .with_context(|| format!("mount bpffs on {}", directory.path().display()))?;
        Ok(Self { directory })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        leftovers::unmount(self.path());
    }
}
