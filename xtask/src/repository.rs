//! Where this repository is.

use std::{
    env,
    path::{Path, PathBuf},
};

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
