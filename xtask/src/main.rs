//! The chores of this repository, each a subcommand of `cargo xtask`.

#![forbid(unsafe_code)]

mod aarch64;
mod bench;
mod build;
mod ci;
mod command;
mod demo;
mod dist;
mod docs;
mod faults;
mod files;
mod fuzz;
mod lint;
mod load;
mod mutants;
mod repository;
mod say;
mod setup;
mod soak;
mod test;
mod upgrade;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Installs what building needs: a Rust toolchain for BPF and bpf-linker
    Setup(setup::SetupArgs),
    /// Sets up, then builds the `portdemux` command for release
    Build,
    /// Sets up, then shows portdemux at work in a lab of network namespaces
    Demo(demo::DemoArgs),
    /// Sets up, then runs all tests
    Test(test::TestArgs),
    /// Takes over from the last version of each older ABI, which it builds, in all the ways of the suite `upgrade`
    Upgrade,
    /// Checks format, lints (host and BPF) and what files may refer to
    Lint,
    /// Builds the API documentation and checks the links of every Markdown file
    Docs,
    /// Loads every BPF program into the kernel and checks what it was compiled to
    Load,
    /// Checks the code and the BPF programs for arm64
    Aarch64,
    /// Measures the datapath and the control plane
    Bench(bench::BenchArgs),
    /// Sends traffic of every kind while rules change, and holds every counter to it
    Soak(soak::SoakArgs),
    /// Makes a Debian package, an archive with a static binary, a bill of materials and checksums
    Dist(dist::DistArgs),
    /// Has each system call of each command fail once in each way
    Faults(faults::FaultsArgs),
    /// Looks for inputs that break the parser, rules, edits, capture files and the pipeline, from the kept corpus on
    Fuzz(fuzz::FuzzArgs),
    /// Changes portdemux-common in one place after the other, and says which changes its unit tests let live
    Mutants(mutants::MutantsArgs),
    /// Boots other kernels under emulation and checks the programs there
    Vm(vm::VmArgs),
    /// Does everything that must pass before a change lands
    Ci,
}

fn main() -> ExitCode {
    match run(Cli::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            say::error(&err);
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Setup(args) => setup::run(&args),
        Chore::Build => build::run(),
        Chore::Demo(args) => demo::run(&args),
        Chore::Test(args) => test::run(&args),
        Chore::Upgrade => upgrade::run(),
        Chore::Lint => lint::run(),
        Chore::Docs => docs::run(),
        Chore::Load => load::run(),
        Chore::Aarch64 => aarch64::run(),
        Chore::Bench(args) => bench::run(&args),
        Chore::Soak(args) => soak::run(&args),
        Chore::Dist(args) => dist::run(&args),
        Chore::Faults(args) => faults::run(&args),
        Chore::Fuzz(args) => fuzz::run(&args),
        Chore::Mutants(args) => mutants::run(&args),
        Chore::Vm(args) => vm::run(&args),
        Chore::Ci => ci::run(),
    }
}
