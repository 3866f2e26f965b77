//! Each system call of a command fails once: nothing changes, or what began is undone, or it is done and said; and
//! the next command works without repair.
//!
//! `cargo xtask faults` tries all of them, CI a sample with every case that was ever wrong. Those of one call:
//! `cargo xtask faults 'apply: openat'`; one by itself: `cargo xtask faults 'apply: openat 3 EIO'`.

mod bed;
mod boot;
mod cases;
mod commands;
mod follower;
mod guard;
mod late;

use std::{env, io::Write as _};

use anyhow::{Context as _, Result, ensure};
use bed::{Bed, Holds};
use cases::WRONG_ONCE;
use portdemux_tests::{
    faults::{Ended, Fault},
    generate::Random,
    lab::Lab,
    require::{self, Need},
};

/// How many faults of a scenario are tried if a sample is asked for.
const SAMPLE: usize = 6;

/// What the sample follows from.
const SEED: u64 = 11;

/// Says which faults are tried: `all`, those of a scenario by its name, those of one of its calls, one of them, or, as
/// without it, a `sample`.
const CHOICE: &str = "PORTDEMUX_FAULTS";

/// A command, and how it comes to what it is run in.
struct Scenario<'a> {
    name: &'a str,
    /// Brings about what holds before, by commands that a user would type; whatever holds now.
    prepare: &'a dyn Fn(&Bed) -> Result<()>,
    /// Runs the command.
    run: &'a dyn Fn(&Bed, Option<Fault>) -> Result<Ended>,
    /// What else must hold after it.
    check: Option<&'a Check>,
    /// How many of each call are tried: some commands do the same over and over.
    most: usize,
}

type Check = dyn Fn(&Bed, &Ended, &Holds) -> Result<()>;

/// Tries the faults of a scenario that are chosen.
fn each(scenario: &Scenario<'_>) -> Result<()> {
    let choice = env::var(CHOICE).unwrap_or_else(|_| "sample".into());
    let only = choice.split_once(": ");
    let is_meant = choice == "all"
        || choice == "sample"
        || only.map_or(&*choice, |(name, _)| name) == scenario.name;
    if !is_meant
        || !cfg!(target_arch = "x86_64")
        || !require::have(&[require::WIRE, &[Need::Tool("sh")]].concat())
    {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    let prepare = || -> Result<()> { (scenario.prepare)(&bed) };
    let check = |ended: &Ended, now: &Holds| match scenario.check {
        Some(check) => check(&bed, ended, now),
        None => Ok(()),
    };
    prepare().context(scenario.name.to_owned())?;
    let before = bed.holds()?;
    let leaves = bed.leaves()?;
    let ended = (scenario.run)(&bed, None)?;
    let after = bed.holds()?;
    check(&ended, &after).context("without a fault")?;
    prepare().context("without a fault")?;

    let all = || -> Vec<Fault> {
        let mut all = Fault::all(&ended.calls);
        all.retain(|fault| fault.nth <= scenario.most);
        all
    };
    let faults = match only {
        Some((_, words)) => chosen(words, all())?,
        None if choice == "sample" => sample(scenario.name, &all())?,
        None => all(),
    };
    say(&format!(
        "{}: {} faults to try",
        scenario.name,
        faults.len()
    ));
    let mut wrong = Vec::new();
    for &fault in &faults {
        let attempt = || -> Result<()> {
            let ended = (scenario.run)(&bed, Some(fault))?;
            let now = bed.holds()?;
            bed::judge(&before, &after, &now, &ended)?;
            check(&ended, &now)?;
            prepare().context("the next command")?;
            let again = bed.holds()?;
            ensure!(again == before, "{again:?} after the next command");
            let left = bed.leaves()?;
            let strange: Vec<_> = left.symmetric_difference(&leaves).collect();
            ensure!(strange.is_empty(), "{strange:?} after the next command");
            Ok(())
        };
        if let Err(error) = attempt() {
            let line = format!("{}: {fault}: {error:#}", scenario.name);
            say(&line);
            wrong.push(line);
            bed.portdemux.run(&["detach", "--all"])?;
            prepare().with_context(|| wrong.join("\n"))?;
        }
    }
    say(&format!(
        "{}: {} faults, {} wrong",
        scenario.name,
        faults.len(),
        wrong.len()
    ));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// One fault, or all of one call.
fn chosen(words: &str, mut all: Vec<Fault>) -> Result<Vec<Fault>> {
    let one = words.parse();
    if one.is_err() {
        all.retain(|fault| fault.to_string().starts_with(&format!("{words} ")));
        if !all.is_empty() {
            return Ok(all);
        }
    }
    Ok(vec![one?])
}

/// Some faults, others for each scenario, and those that were wrong once.
fn sample(name: &str, all: &[Fault]) -> Result<Vec<Fault>> {
    let seed = name
        .bytes()
        .fold(SEED, |seed, byte| seed * 31 + u64::from(byte));
    let mut random = Random::new(seed);
    let mut chosen: Vec<Fault> = (0..SAMPLE)
        .filter_map(|_| all.get(random.below(all.len())).copied())
        .collect();
    for (_, call, which, error) in WRONG_ONCE.iter().filter(|(of, ..)| *of == name) {
        for nth in which.clone() {
            chosen.push(format!("{call} {nth} {error}").parse()?);
        }
    }
    Ok(chosen)
}

fn say(line: &str) {
    // Whoever does not want to see it any more ends the run otherwise.
    let _ = writeln!(std::io::stderr(), "{line}");
}
