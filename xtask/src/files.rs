//! Which files belong to this repository.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    command::{self, Command},
    repository::root,
};

/// The files of the repository that exist, those not yet committed included, relative to the root.
pub(crate) fn all() -> Result<Vec<PathBuf>> {
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
