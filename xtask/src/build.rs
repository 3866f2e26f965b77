//! `cargo xtask build`

use std::path::PathBuf;

use anyhow::Result;

use crate::{command, repository, setup};

/// Sets up and builds the command for release.
pub(crate) fn run() -> Result<()> {
    setup::toolchain()?;
    command::run(
        command::cargo("build")
            .args(command::BUILT)
            .args(["--bin", "portdemux"]),
    )
}

/// Builds what a later version could be, with another ABI and another layout of some maps, and says where it is.
pub(crate) fn next() -> Result<PathBuf> {
    command::run(command::cargo("build").args(command::BUILT).args([
        "--features",
        "portdemux/next-layout",
        "--bin",
        "portdemux-next",
    ]))?;
    Ok(repository::target_dir().join("release/portdemux-next"))
}

/// Sets up, builds, and becomes a program of the package `portdemux-tests`, as root; what that program runs itself,
/// the caller has set up.
pub(crate) fn become_binary(name: &str, args: &[String]) -> Result<()> {
    setup::toolchain()?;
    // The program starts the command as a user would.
    command::run(command::cargo("build").args(command::BUILT).args([
        "--bin",
        "portdemux",
        "--bin",
        name,
    ]))?;
    let built = repository::target_dir().join("release");
    command::become_it(
        command::built_as_root(&built.join(name))?
            .args(args)
            .env("PORTDEMUX_BIN", built.join("portdemux")),
    )
}
