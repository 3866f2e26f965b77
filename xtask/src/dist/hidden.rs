//! Where it was built, which is nobody's business who gets it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::{command, repository};

/// Flags for rustc, as `CARGO_ENCODED_RUSTFLAGS` has them, with which the paths of this machine stay out of a binary;
/// `others` besides.
///
/// # Errors
///
/// The sources of dependencies cannot be listed.
pub(super) fn flags(others: &[&str]) -> Result<String> {
    let mut flags: Vec<String> = others.iter().map(|&flag| flag.to_owned()).collect();
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    if let Some(home) = command::cargo_home() {
        flags.push(remap(&home, "cargo"));
        // A directory for each registry, with its name.
        let sources = home.join("registry/src");
        let entries = fs::read_dir(&sources);
        for entry in entries.with_context(|| format!("list {}", sources.display()))? {
            flags.push(remap(&entry?.path(), "cargo"));
        }
    }
    flags.push(remap(&repository::root(), "."));
    Ok(flags.join("\x1f"))
}

/// Checks that a file has no path of this machine in it.
///
/// # Errors
///
/// It has one, or cannot be read.
pub(super) fn check(file: &Path) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let paths = command::cargo_home()
        .into_iter()
        .chain([repository::root()]);
    for path in paths {
        let path = path.display().to_string();
        let has = bytes
            .windows(path.len())
            .any(|window| window == path.as_bytes());
        ensure!(!has, "{} has {path} in it", file.display());
    }
    Ok(())
}
