//! Where this repository is and which files belong to it.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::command::{self, Command};

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    // Cargo sets it for `cargo xtask`; the compiled-in value serves a binary that is run by itself.
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir
        .parent()
        .map_or_else(|| manifest_dir.clone(), Path::to_path_buf)
}

/// The directory that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The files of the repository that exist, those not yet committed included, relative to the root.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(root())
        // A checkout of another owner (root's tests in a user's checkout) is fine to list.
        .args(["-c", "safe.directory=*"])
        .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let mut files: Vec<PathBuf> = command::output(&mut git)?
        .lines()
        .map(PathBuf::from)
        .filter(|file| root().join(file).is_file())
        .collect();
    files.sort();
    Ok(files)
}
