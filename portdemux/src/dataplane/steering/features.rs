//! What the kernel must have for packets to be handed to sockets.

use std::{fs, path::PathBuf};

use anyhow::Result;
use aya::{programs::ProgramType, sys::is_program_supported, util::KernelVersion};

use crate::{error::Help as _, sockets::take};

/// The first kernel that says by which interface the packet came that a socket is looked up for.
const INTERFACE_SINCE: KernelVersion = KernelVersion::new(5, 17, 0);

/// What the kernel has of what sockets take.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says of one feature whether it is there"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Features {
    /// It asks a program for sockets (Linux 5.9).
    pub sk_lookup: bool,
    /// It lets a process take sockets of another (Linux 5.6).
    pub pidfd_getfd: bool,
    /// A program hears of sockets that begin to listen: control groups of version 2 are mounted, and network
    /// namespaces have cookies (Linux 5.15).
    pub sock_ops: bool,
    /// It says by which interface a packet came (Linux 5.17).
    pub ingress_ifindex: bool,
}

impl Features {
    /// Those of the kernel that this process runs on.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        Self {
            // Whoever may not load programs is not told.
            sk_lookup: is_program_supported(ProgramType::SkLookup).unwrap_or(true),
            pidfd_getfd: take::is_supported(),
            sock_ops: unified_root().is_some()
                && take::netns_cookie().is_some()
                && is_program_supported(ProgramType::SockOps).unwrap_or(true),
            ingress_ifindex: knows_interface(),
        }
    }
}

pub(super) fn knows_interface() -> bool {
    !KernelVersion::current().is_ok_and(|version| version < INTERFACE_SINCE)
}

/// Refuses what the kernel cannot do, by its name.
pub(super) fn require() -> Result<()> {
    if is_program_supported(ProgramType::SkLookup).unwrap_or(true) {
        return Ok(());
    }
    Err(anyhow::anyhow!(
        "this kernel cannot hand packets to sockets: it lacks programs of type sk_lookup"
    ))
    .help(|| "Linux 5.9 and newer have them; nothing was changed".into())
}

/// Where the control groups of version 2 are mounted.
pub(super) fn unified_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_unified = after.split(' ').next() == Some("cgroup2");
        // Its fifth field; blanks in it are written as \040 (proc_pid_mountinfo(5)).
        let point = before.split(' ').nth(4)?.replace("\\040", " ");
        is_unified.then(|| PathBuf::from(point))
    })
}
