//! Rust's own way: a nightly toolchain that builds `core` for BPF from its source.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{linker, rust};
use crate::{
    command::{self, Command},
    say,
};

const NIGHTLY: &str = "nightly";

/// Installs it.
pub(super) fn install() -> Result<()> {
    if command::find("rustup").is_none() {
        bail!("there is no rustup; https://rustup.rs says how to get it");
    }
    let sysroot = match sysroot() {
        Ok(sysroot) if has_source(&sysroot) => sysroot,
        _ => {
            say::step("installing Rust nightly with the source of `core`");
            command::run(
                Command::new("rustup")
                    .args(["toolchain", "install", NIGHTLY, "--profile", "minimal"])
                    .args(["--component", "rust-src", "--component", "clippy"])
                    .args(["--component", "rustfmt", "--no-self-update"]),
            )
            .context("install the component rust-src")?;
            sysroot()?
        }
    };
    if !has_source(&sysroot) {
        bail!("the toolchain {NIGHTLY} has no component rust-src");
    }
    command::run(
        Command::new("rustup")
            .args(["toolchain", "link", rust::TOOLCHAIN])
            .arg(&sysroot),
    )?;
    let linker = link_with();
    if linker.is_err() {
        // A toolchain that cannot link would make the build fail without saying what to do.
        let mut rustup = Command::new("rustup");
        command::run(rustup.args(["toolchain", "uninstall", rust::TOOLCHAIN]))?;
    }
    linker
}

/// Makes sure that there is a linker for this toolchain.
fn link_with() -> Result<()> {
    let rust = rust::Rust::find()?;
    if linker::check().is_ok() {
        return Ok(());
    }
    say::step("installing bpf-linker");
    let Err(download) = linker::download() else {
        return linker::check().map(|_| ());
    };
    say::progress(format_args!("not as a download: {download:#}"));
    let prefix = llvm_prefix(rust.llvm).with_context(|| {
        format!(
            "bpf-linker could neither be downloaded ({download:#}) nor built (that needs the \
             development files of LLVM {})",
            rust.llvm
        )
    })?;
    linker::build(rust.llvm, &prefix)
}

fn sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", NIGHTLY, "rustc", "--print", "sysroot"]);
    Ok(PathBuf::from(command::output(&mut rustc)?.trim()))
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
}

/// Where an LLVM of that release is installed.
fn llvm_prefix(llvm: u32) -> Result<PathBuf> {
    for name in [format!("llvm-config-{llvm}"), "llvm-config".to_owned()] {
        let Some(config) = command::find(&name) else {
            continue;
        };
        let answer = command::output(Command::new(config).args(["--version", "--prefix"]))?;
        let mut lines = answer.lines();
        if lines.next().and_then(rust::leading_number) == Some(llvm)
            && let Some(prefix) = lines.next()
        {
            return Ok(PathBuf::from(prefix));
        }
    }
    bail!("there is no llvm-config of LLVM {llvm}")
}
