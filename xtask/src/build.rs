//! `cargo xtask build`

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
