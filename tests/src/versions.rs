//! Other versions of the command than this one.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow};

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

/// An older version and its ABI, if one was built: `cargo xtask upgrade` does.
///
/// # Errors
///
/// It is not said which ABI it has.
pub fn older() -> Result<Option<(PathBuf, u32)>> {
    let Some(binary) = env::var_os("PORTDEMUX_OLDER_BIN") else {
        return Ok(None);
    };
    let abi = env::var("PORTDEMUX_OLDER_ABI").context("PORTDEMUX_OLDER_ABI")?;
    Ok(Some((PathBuf::from(binary), abi.parse()?)))
}
