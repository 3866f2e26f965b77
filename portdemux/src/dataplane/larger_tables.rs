//! A larger map of tables takes the place of one that is full.

use anyhow::{Context as _, Result};

use super::{links, steering};
use crate::maps::Maps;

/// Gives the map that is pinned to all programs that have another.
pub fn renew(maps: &Maps) -> Result<()> {
    for slot in links::renew(maps).context("give the programs a larger map of tables")? {
        maps.note_version(slot);
    }
    steering::renew(maps).context("give the program for sockets a larger map of tables")
}
