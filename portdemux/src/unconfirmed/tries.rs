//! How often undoing a change was tried in vain.
//!
//! It is written over what was there, in room that was taken before the change was made: where a disk is full, that
//! is what has to be said.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{bounded, instance::InstancePaths};

/// How much room there is, in bytes.
const ROOM: usize = 1024;

/// The tries to undo a change that its time was over for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// How many there were.
    pub count: u32,
    /// Why the last one failed.
    pub error: String,
}

impl Tries {
    /// Those of what waits in an instance; none where nothing could be written about them.
    pub(super) fn read(paths: &InstancePaths) -> Self {
        let text = bounded::kept(&path(paths)).unwrap_or_default();
        serde_json::from_str(text.trim_end()).unwrap_or_default()
    }

    /// Takes the room for them.
    pub(super) fn reserve(paths: &InstancePaths) -> io::Result<()> {
        bounded::create(&path(paths))?.write_all(Self::default().padded()?.as_bytes())
    }

    /// Writes them down, into the room that there is.
    pub(crate) fn write(&self, paths: &InstancePaths) -> io::Result<()> {
        let file = bounded::open(&path(paths), File::options().write(true))?;
        file.write_all_at(self.padded()?.as_bytes(), 0)
    }

    fn padded(&self) -> io::Result<String> {
        let mut kept = self.clone();
        loop {
            let text = serde_json::to_string(&kept)?;
            if let Some(left) = ROOM.checked_sub(text.len()) {
                return Ok(text + &" ".repeat(left));
            }
            kept.error.pop();
        }
    }
}

pub(super) fn path(paths: &InstancePaths) -> PathBuf {
    paths.records().join("pending.tries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_written_has_room() {
        for length in [0, 10, 2000] {
            let tries = Tries {
                count: u32::MAX,
                error: "\"\u{e4}".repeat(length),
            };
            let text = tries.padded().unwrap();
            assert_eq!(text.len(), ROOM);
            let read: Tries = serde_json::from_str(text.trim_end()).unwrap();
            assert!(read.count == tries.count && tries.error.starts_with(&read.error));
        }
    }
}
