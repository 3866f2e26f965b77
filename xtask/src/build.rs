//! `cargo xtask build`

use anyhow::Result;

use crate::{command, setup};

/// Sets up and builds the command for release.
pub(crate) fn run() -> Result<()> {
    setup::toolchain()?;
    command::run(command::cargo("build").args(["--release", "--package", "portdemux"]))
}

/// Sets up, builds, and becomes a program of the package `portdemux-tests`, as root; what that program runs itself,
/// the caller has set up.
pub(crate) fn become_binary(name: &str, args: &[String]) -> Result<()> {
    setup::toolchain()?;
    // The program starts the command as a user would, and `cargo run` does not build that.
    let packages = ["--package", "portdemux", "--package", "portdemux-tests"];
    command::run(command::cargo("build").arg("--release").args(packages))?;
    command::become_it(
        command::cargo_as_root("run")?
            .args(["--quiet", "--release", "--package", "portdemux-tests"])
            .args(["--bin", name, "--"])
            .args(args),
    )
}
