//! `cargo xtask aarch64`

use anyhow::{Context as _, Result};

use crate::{command, load, repository, say, setup};

/// Checks everything but the BPF programs for `aarch64-unknown-linux-gnu`.
///
/// # Errors
///
/// If it does not compile, or the standard library for that target cannot be had.
pub(crate) fn run() -> Result<()> {
    setup::toolchain()?;
    let mut check = setup::Aarch64::get()?.cargo("check");
    let objects = load::objects()?;
    let programs = objects
        .first()
        .and_then(|object| object.parent())
        .context("the BPF programs are in no directory")?;
    say::step("aarch64");
    command::run(
        check
            .args([
                "--workspace",
                "--exclude",
                "portdemux-ebpf",
                "--all-targets",
            ])
            .arg("--target-dir")
            .arg(repository::target_dir().join("aarch64"))
            .env("PORTDEMUX_PROGRAMS", programs),
    )
}
