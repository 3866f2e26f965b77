//! `cargo xtask fuzz`

mod corpus;

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    command::{self, Command},
    repository, say, setup,
};

/// What makes the compiler watch which ways a run takes, as libFuzzer asks it (`cargo fuzz` does the same).
const WATCHED: [&str; 8] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// How much memory an input may take, in MiB: the images of five rulesets and what a run needs.
const MEMORY: &str = "-rss_limit_mb=1024";
/// How many seconds an input may take.
const PATIENCE: &str = "-timeout=20";

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The parser, against the reference parser
    Parser,
    /// The text of rules, and the image that they are compiled to
    Rules,
    /// Edits of the text of rules
    Edit,
    /// Capture files
    Capture,
    /// The pipeline on sequences of packets, against the reference model
    Pipeline,
}

impl Target {
    /// What is called so in the crate, and in the corpus.
    const fn name(self) -> &'static str {
        match self {
            Self::Parser => "parser",
            Self::Rules => "rules",
            Self::Edit => "edit",
            Self::Capture => "capture",
            Self::Pipeline => "pipeline",
        }
    }

    /// The longest input that is tried, in bytes.
    const fn longest(self) -> u32 {
        match self {
            Self::Parser => 256,
            Self::Rules | Self::Edit | Self::Capture => 1024,
            Self::Pipeline => 2048,
        }
    }
}

#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// Which target; all if it is left out
    target: Option<Target>,
    /// For how many minutes each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Writes what was found to take new ways into the corpus in the repository
    #[arg(long)]
    keep: bool,
}

/// Sets up, builds and fuzzes.
pub(crate) fn run(args: &FuzzArgs) -> Result<()> {
    setup::toolchain()?;
    setup::fuzz()?;
    build()?;
    for target in targets(args.target) {
        fuzz(target, args.minutes * 60)?;
        if args.keep {
            corpus::keep(target)?;
        }
    }
    Ok(())
}

/// Fuzzes each target for so many seconds.
pub(crate) fn run_short(seconds: u32) -> Result<()> {
    build()?;
    for target in targets(None) {
        fuzz(target, seconds)?;
    }
    Ok(())
}

fn targets(one: Option<Target>) -> Vec<Target> {
    one.map_or_else(|| Target::value_variants().to_vec(), |target| vec![target])
}

/// Builds the targets.
fn build() -> Result<()> {
    say::step("building the fuzz targets");
    command::run(
        command::cargo("build")
            .current_dir(repository::root().join("fuzz"))
            .args(["--release", "--locked", "--bins", "--target", &host()?])
            .arg("--target-dir")
            .arg(directory())
            .env("CARGO_ENCODED_RUSTFLAGS", WATCHED.join("\x1f")),
    )
}

/// The target of this machine. Named, the flags hold for what is fuzzed and not for what runs while it is built.
fn host() -> Result<String> {
    let version = command::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}

fn directory() -> PathBuf {
    repository::target_dir().join("fuzz")
}

/// The program of a target.
fn program(target: Target) -> Result<PathBuf> {
    let program = directory()
        .join(host()?)
        .join("release")
        .join(target.name());
    ensure!(program.is_file(), "{} was not built", program.display());
    Ok(program)
}

/// Fuzzes a target for so many seconds, from the kept corpus on.
fn fuzz(target: Target, seconds: u32) -> Result<()> {
    say::step(format_args!("fuzzing {} for {seconds} s", target.name()));
    let corpus = corpus::unpack(target)?;
    let finds = directory().join("finds").join(target.name());
    fs::create_dir_all(&finds).with_context(|| format!("create {}", finds.display()))?;
    command::run(
        Command::new(program(target)?)
            .arg(&corpus)
            .arg(format!("-artifact_prefix={}/", finds.display()))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={}", target.longest()))
            .args([MEMORY, PATIENCE, "-print_final_stats=1", "-verbosity=0"])
            .env("RUST_BACKTRACE", backtrace()),
    )
    .with_context(|| {
        format!(
            "the input that failed is in {}; run the program with it once more",
            finds.display()
        )
    })
}

fn backtrace() -> String {
    env::var("RUST_BACKTRACE").unwrap_or_else(|_| "0".into())
}
