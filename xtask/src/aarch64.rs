//! `cargo xtask aarch64`

use anyhow::Result;

use crate::{load, repository, say, setup};

/// Checks everything for `aarch64-unknown-linux-gnu`, and loads the BPF programs for that machine into this one's
/// kernel: its verifier is the same.
///
/// # Errors
///
/// If it does not compile, the standard library for that target cannot be had, or the kernel refuses a program.
pub(crate) fn run() -> Result<()> {
    setup::toolchain()?;
    let mut check = setup::Aarch64::get()?.cargo("check");
    say::step("aarch64");
    let objects = load::objects_of(
        check
            .args([
                "--workspace",
                "--exclude",
                "portdemux-ebpf",
                "--all-targets",
            ])
            .arg("--target-dir")
            .arg(repository::target_dir().join("aarch64")),
    )?;
    // What loads them is built by this.
    load::objects()?;
    load::load(&objects)
}
