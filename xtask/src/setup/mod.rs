//! `cargo xtask setup`: everything that building, and with `--tests` testing, needs.

mod aarch64;
mod apt;
mod debian;
mod dist;
mod linker;
mod nightly;
mod programs;
mod qemu;
mod rust;

use anyhow::{Result, bail};
use clap::Args;

pub(crate) use self::{
    aarch64::Aarch64,
    apt::{apart, mirror, unpack_in},
    qemu::program as qemu,
    rust::Rust,
};
use crate::say;

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option by itself")]
pub(crate) struct SetupArgs {
    /// Also installs what the tests run: servers, their clients and packet tools
    #[arg(long)]
    tests: bool,
    /// Also installs what makes and checks packages
    #[arg(long)]
    dist: bool,
    /// Also installs what boots other kernels
    #[arg(long)]
    vm: bool,
    /// Also installs what fuzzing needs
    #[arg(long)]
    fuzz: bool,
    /// Also installs what changes the code to see whether tests notice
    #[arg(long)]
    mutants: bool,
}

/// Installs what is missing.
pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    toolchain()?;
    if args.tests {
        tests()?;
    }
    if args.dist {
        dist()?;
    }
    if args.vm {
        vm()?;
    }
    if args.fuzz {
        fuzz()?;
    }
    if args.mutants {
        mutants()?;
    }
    Ok(())
}

/// Makes sure that the BPF programs can be built.
///
/// # Errors
///
/// If a part is missing and this machine has no way to get it; nothing that works was touched.
pub(crate) fn toolchain() -> Result<Rust> {
    let missing = match ready() {
        Ok(rust) => return Ok(rust),
        Err(missing) => missing,
    };
    say::step(format_args!("setting up the build for BPF: {missing:#}"));
    let debian = match debian::Plan::make() {
        Ok(plan) => {
            plan.carry_out()?;
            return ready();
        }
        Err(err) => err,
    };
    say::progress(format_args!("not with Debian's packages: {debian:#}"));
    if let Err(nightly) = nightly::install() {
        bail!(
            "this machine has no way to build for BPF, one of these must change\n  \
             Debian's packages: {debian:#}\n  \
             rustup's nightly:  {nightly:#}"
        );
    }
    ready()
}

/// Makes sure that the tests find the programs that they run.
pub(crate) fn tests() -> Result<()> {
    programs::install()
}

/// Makes sure that dependencies can be looked at.
pub(crate) fn deny() -> Result<()> {
    dist::install_deny()
}

/// Makes sure that the fuzzer can be built, which is C++.
pub(crate) fn fuzz() -> Result<()> {
    programs::install_fuzz()
}

/// Makes sure that the tests can be tried on mutants.
pub(crate) fn mutants() -> Result<()> {
    dist::install_mutants()
}

/// Makes sure that packages can be made and checked.
pub(crate) fn dist() -> Result<()> {
    dist::install()?;
    qemu::install()
}

/// Makes sure that namespaces can be made and entered, which nearly every machine is able to do as it is.
pub(crate) fn lab() -> Result<()> {
    programs::install_lab()
}

/// Makes sure that other kernels can be booted. The kernels themselves are got when they are asked for.
pub(crate) fn vm() -> Result<()> {
    programs::install_vm()?;
    qemu::install()
}

fn ready() -> Result<Rust> {
    let rust = Rust::find()?;
    let linker = linker::check()?;
    say::progress(format_args!("ready: {rust}, {linker}"));
    Ok(rust)
}
