//! The directories that tables of flows are pinned in.

use std::path::{Path, PathBuf};

use super::trusted::is_there;

/// Name of the map of flows.
pub const FLOWS: &str = "FLOWS";
/// Name of the map of flows that peers have begun and that are not complete.
pub const HALF_OPEN: &str = "HALF_OPEN";
/// Name of the map of what is counted of flows.
pub const FLOW_COUNTERS: &str = "FLOW_COUNTERS";

/// A directory of tables below the pins of an instance. A dot cannot stand in a name in bpffs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Directory {
    /// Those in force.
    InForce,
    /// Those that are to follow them.
    Staging,
    /// Those that were in force before, until all programs have the new ones.
    Before,
}

impl Directory {
    /// All of them. What begins a change goes last: whoever is killed while they go leaves something to go on from.
    pub(crate) const ALL: [Self; 3] = [Self::Staging, Self::InForce, Self::Before];

    /// Its path.
    pub(crate) fn path(self, pins: &Path) -> PathBuf {
        pins.join(match self {
            Self::InForce => "flows",
            Self::Staging => "flows~new",
            Self::Before => "flows~old",
        })
    }
}

/// Where the maps are pinned, below the pins of an instance. Whoever was killed while they were replaced can have
/// left them under another name; what is counted is the same map in all of them.
#[must_use]
pub fn directory(pins: &Path) -> PathBuf {
    let all = [Directory::InForce, Directory::Before, Directory::Staging];
    let mut all = all.into_iter().map(|directory| directory.path(pins));
    all.find(|path| is_there(path).is_ok_and(|is_there| is_there))
        .unwrap_or_else(|| Directory::InForce.path(pins))
}
