//! Debian's way: its packages have a recent Rust with a prebuilt `core` for BPF, and the LLVM that
//! belongs to it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::{
    apt, linker,
    rust::{self, TOOLCHAIN, Version},
};
use crate::command::{self, Command};

/// The package with the compiler.
pub(super) const RUSTC: &str = "rustc-web";
/// The package with its standard library, which every architecture has.
pub(super) const STD: &str = "libstd-rust-web-dev";
const CORE: &str = "libstd-rust-web-dev-bpf";
const CARGO: &str = "cargo-web";

/// What to install.
pub(super) struct Plan {
    packages: Vec<String>,
    llvm: u32,
}

impl Plan {
    /// Finds out whether and how this machine can go this way.
    pub(super) fn make() -> Result<Self> {
        if !apt::is_here() {
            bail!("this machine has no apt-get");
        }
        if check_candidates().is_err() {
            apt::update()?;
            check_candidates()?;
        }
        let llvm = apt::closure(RUSTC)?
            .iter()
            .filter_map(|package| rust::leading_number(package.strip_prefix("libllvm")?))
            .max()
            .with_context(|| format!("{RUSTC} does not say which LLVM it is built with"))?;
        if !linker::LLVM.contains(&llvm) {
            bail!(
                "{RUSTC} has LLVM {llvm}, bpf-linker needs {} to {}",
                linker::LLVM.start(),
                linker::LLVM.end()
            );
        }
        let packages: Vec<_> = [RUSTC, CARGO, CORE]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("llvm-{llvm}-dev")])
            .collect();
        let simulation = apt::simulate(&packages)?;
        apt::announce("a Rust toolchain for BPF", &packages, &simulation)?;
        Ok(Self { packages, llvm })
    }

    /// Installs it.
    pub(super) fn carry_out(&self) -> Result<()> {
        apt::install(&self.packages)?;
        if command::find("rustup").is_some() {
            command::run(Command::new("rustup").args(["toolchain", "link", TOOLCHAIN, "/usr"]))?;
        }
        rust::Rust::find()?;
        if linker::check().is_ok() {
            return Ok(());
        }
        linker::build(
            self.llvm,
            &PathBuf::from(format!("/usr/lib/llvm-{}", self.llvm)),
        )
    }
}

fn check_candidates() -> Result<()> {
    for package in [RUSTC, CORE] {
        let Some(candidate) = apt::candidate(package)? else {
            bail!("there is no package {package}");
        };
        if Version::parse(&candidate).is_none_or(|version| version < Version::NEEDED) {
            bail!(
                "{package} is {candidate}, {} or newer is needed",
                Version::NEEDED
            );
        }
    }
    Ok(())
}

/// The package with Clippy for this toolchain.
pub(super) const CLIPPY: &str = "rust-web-clippy";
