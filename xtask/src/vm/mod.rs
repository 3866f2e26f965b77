//! `cargo xtask vm`: the programs on kernels other than that of this machine, each in QEMU under emulation.

mod initrd;
mod kernels;
mod machine;
mod record;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    kernels::{Kernel, Kernels},
    machine::Outcome,
};
use crate::{
    build,
    command::{self, Command},
    load, repository, say, setup,
};

/// What must run without names, besides the newest.
const REQUIRED: [&str; 2] = ["6.1", "6.12"];
/// What runs besides where it can be had; the first is older than what portdemux runs on.
const OTHERS: [&str; 6] = ["5.10", "5.15", "6.6", "6.8", "6.16", "6.18"];
/// The first kernel that portdemux runs on.
const FLOOR: [u32; 2] = [5, 15];
/// Possible CPUs of the machines on which it is tried what many of them take.
const MANY_CPUS: u32 = 128;
/// The check that has another version take over from this one.
const UPGRADE: &str = "upgrade";
/// How many instructions the verifier may take for a program, on every kernel.
const CEILING: u64 = 500_000;

#[derive(Args)]
pub(crate) struct VmArgs {
    /// Kernels, by the beginning of their version, for example 6.1; without: 6.1, 6.12, the newest, and what
    /// else can be had
    kernels: Vec<String>,
    /// Runs only this check of the guest; may be given several times
    #[arg(long = "check", value_name = "NAME")]
    checks: Vec<String>,
    /// Possible CPUs, of which two are online
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    cpus: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,
    /// Loads what is attached and applies one ruleset, and nothing else
    #[arg(long)]
    short: bool,
    /// Looks whether there are newer kernels than those that were downloaded before
    #[arg(long)]
    update: bool,
    /// Writes how many instructions were verified to docs/performance.md
    #[arg(long)]
    record: bool,
}

/// Boots kernels and runs the checks on each.
pub(crate) fn run(args: &VmArgs) -> Result<()> {
    setup::toolchain()?;
    setup::vm()?;
    let mut programs = build_all()?;
    if !args.short && (args.checks.is_empty() || args.checks.iter().any(|check| check == UPGRADE)) {
        programs.others.extend([build::next()?, upgrade_suite()?]);
    }
    let kernels = Kernels::open(args.update)?;
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for kernel in choose(&kernels, &args.kernels)? {
        match check(&kernel, &programs, args) {
            Ok(outcome) => {
                failed.extend(outcome.failures());
                rows.push((kernel.version, outcome));
            }
            Err(err) => failed.push(format!("{}: {err:#}", kernel.version)),
        }
    }
    let table = record::table(&rows);
    say::line(&table);
    failed.extend(record::above(&rows, CEILING));
    if args.record {
        record::write(&table)?;
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("\n       "));
    }
    Ok(())
}

/// What runs before a change lands, in the short form: those that must run.
pub(crate) fn run_short() -> Result<()> {
    run(&VmArgs {
        kernels: REQUIRED
            .into_iter()
            .chain([kernels::NEWEST])
            .map(str::to_owned)
            .collect(),
        checks: Vec::new(),
        cpus: 2,
        memory: 1024,
        short: true,
        update: false,
        record: false,
    })
}

/// The kernels that were asked for; one that was named and cannot be had is a failure.
fn choose(kernels: &Kernels, names: &[String]) -> Result<Vec<Kernel>> {
    if !names.is_empty() {
        return names.iter().map(|name| kernels.get(name)).collect();
    }
    let mut chosen = Vec::new();
    for name in OTHERS {
        match kernels.get(name) {
            Ok(kernel) => chosen.push(kernel),
            Err(err) => say::warning(format_args!("{err:#}; it is left out")),
        }
    }
    for name in REQUIRED.into_iter().chain([kernels::NEWEST]) {
        chosen.push(kernels.get(name)?);
    }
    chosen.sort_by_key(|kernel| kernels::numbers(&kernel.version));
    chosen.dedup_by(|one, other| one.version == other.version);
    Ok(chosen)
}

/// What the guest runs.
struct Programs {
    guest: PathBuf,
    /// Those that it starts, by name.
    others: Vec<PathBuf>,
    objects: Vec<PathBuf>,
}

fn build_all() -> Result<Programs> {
    let objects = load::objects()?;
    command::run(command::cargo("build").args(command::BUILT).args([
        "--bin",
        "portdemux",
        "--bin",
        "guest",
        "--example",
        "load",
    ]))?;
    let built = repository::target_dir().join("release");
    Ok(Programs {
        guest: built.join("guest"),
        others: vec![built.join("portdemux"), built.join("examples/load")],
        objects,
    })
}

/// Builds the suite that the check of upgrades runs a test of, and gives it a name without a hash.
fn upgrade_suite() -> Result<PathBuf> {
    let mut cargo = command::cargo("test");
    cargo
        .args(command::BUILT)
        .args(["--no-run", "--test", UPGRADE]);
    let said = cargo.output().context("build the suite of upgrades")?;
    let said = String::from_utf8_lossy(&said.stderr);
    let built = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Executable "))
        .find_map(|line| line.split_once('(')?.1.strip_suffix(')'))
        .with_context(|| format!("the suite of upgrades is not built: {said}"))?;
    let directory = directory();
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let suite = directory.join(UPGRADE);
    std::fs::copy(repository::root().join(built), &suite)
        .with_context(|| format!("copy {built}"))?;
    Ok(suite)
}

fn check(kernel: &Kernel, programs: &Programs, args: &VmArgs) -> Result<Outcome> {
    let directory = directory().join("run").join(&kernel.version);
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let initrd = directory.join("initrd");
    initrd::build(&initrd, kernel, programs)?;
    let is_below = kernels::numbers(&kernel.version) < FLOOR.to_vec();
    let names: &[&str] = match (is_below, args.short) {
        (true, _) => &["floor"],
        (false, true) => &["load", "rules"],
        (false, false) => &["load", "rules", "cpus", UPGRADE],
    };
    let run = |names: &[String], cpus: u32| {
        let checks = names.join(", ");
        say::step(format_args!("Linux {}: {checks}", kernel.version));
        machine::run(&machine::Machine {
            kernel,
            initrd: &initrd,
            log: &directory.join(format!("log.{cpus}")),
            checks: names,
            cpus,
            memory: args.memory,
            is_short: args.short,
        })
    };
    if !args.checks.is_empty() {
        return run(&args.checks, args.cpus);
    }
    let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut outcome = run(&owned, args.cpus)?;
    if !is_below && !args.short && args.cpus == 2 {
        outcome.add(run(&["cpus".to_owned()], MANY_CPUS)?);
    }
    Ok(outcome)
}

/// Where kernels and what they said are kept.
fn directory() -> PathBuf {
    repository::target_dir().join("vm")
}

/// A program without what only a debugger reads, which would fill the guest's memory.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let copy = directory().join("stripped");
    command::output(
        Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&copy)
            .arg(program),
    )?;
    std::fs::read(&copy).with_context(|| format!("read {}", copy.display()))
}
