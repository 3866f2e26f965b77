//! Pins are files that the kernel holds something by.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};

use crate::maps::trusted::Trusted;

/// Removes a pin or another file, if it is there.
///
/// # Errors
///
/// It cannot be removed.
pub(crate) fn unpin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a directory of pins with everything below it, if it is there.
pub(crate) fn remove_tree(directory: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Ok(());
    };
    match Trusted::open(parent)? {
        Some(parent) => parent.remove(name),
        None => Ok(()),
    }
}
