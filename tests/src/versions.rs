//! Other versions of the command than this one.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Result, anyhow};

use crate::cli;

/// This version with another ABI and another layout of its maps, as a later one would have.
///
/// # Errors
///
/// If it had to be built and could not be.
pub fn next() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| match env::var_os("PORTDEMUX_NEXT_BIN") {
            Some(path) => Ok(PathBuf::from(path)),
            None => cli::build("portdemux-next", &["--features", "portdemux/next-layout"])
                .map_err(|err| format!("{err:#}")),
        })
        .as_deref()
        .map_err(|err| anyhow!("{err}"))
}

/// The last version of ABI 5, if it was built: `cargo xtask upgrade` does.
#[must_use]
pub fn abi5() -> Option<PathBuf> {
    env::var_os("PORTDEMUX_ABI5_BIN").map(PathBuf::from)
}
