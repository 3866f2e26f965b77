//! `cargo xtask lint`

mod circles;
mod code;
mod modules;
mod names;
mod references;

use anyhow::Result;

use crate::{
    command::{self, Command},
    repository, say, setup,
};

const DENY: [&str; 3] = ["--", "-D", "warnings"];

/// Checks the sources without running them.
pub(crate) fn run() -> Result<()> {
    let rust = setup::toolchain()?;
    setup::deny()?;
    setup::fuzz()?;
    say::step("format");
    command::run(&mut format(&["--all"]))?;
    command::run(&mut format(&["--manifest-path", "fuzz/Cargo.toml"]))?;
    say::step("references");
    references::check()?;
    say::step("circles of modules");
    circles::check()?;
    say::step("names of types");
    names::check()?;
    say::step("licences, bans and sources of dependencies");
    command::run(command::cargo("deny").args([
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))?;
    say::step("clippy, host");
    command::run(
        command::cargo("clippy")
            .args(command::BUILT)
            .arg("--all-targets")
            .args(DENY),
    )?;
    say::step("clippy, fuzz targets");
    command::run(
        command::cargo("clippy")
            .args(["--locked", "--manifest-path", "fuzz/Cargo.toml"])
            .arg("--target-dir")
            .arg(repository::target_dir().join("fuzz-clippy"))
            .args(DENY),
    )?;
    say::step("clippy, BPF");
    command::run(
        rust.cargo("clippy")
            .args(["--release", "--package", "portdemux-ebpf", "--target-dir"])
            .arg(repository::target_dir().join("bpf-clippy"))
            .args(DENY),
    )
}

/// `rustfmt.toml` has options that only a nightly rustfmt knows; a stable one checks the rest.
fn format(what: &[&str]) -> Command {
    let mut nightly = Command::new("rustup");
    nightly.args(["run", "nightly", "cargo", "fmt"]);
    let mut command = if command::output(nightly.arg("--version")).is_ok() {
        let mut command = Command::new("rustup");
        command
            .args(["run", "nightly", "cargo", "fmt"])
            .current_dir(repository::root());
        command
    } else {
        say::warning("there is no nightly rustfmt here, the order of imports goes unchecked");
        command::cargo("fmt")
    };
    command.args(what).arg("--check");
    command
}
