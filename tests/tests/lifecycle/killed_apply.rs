//! `apply` is killed.

use std::{fmt::Write as _, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    probe::Probe,
    require,
    steps::{self, Course, Kill},
};

use crate::bed::{self, Rules};

/// More calls than any of these commands makes.
const MANY: usize = 5_000;

#[test]
fn an_apply_killed_at_any_step_leaves_the_old_ruleset_or_the_new_one_whole() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let new = Rules::New.file(&portdemux)?;
    let (mut old_left, mut new_left, mut noted) = (0, 0, 0);
    let (mut first, mut last) = (None, None);
    for step in 1..=MANY {
        // Steps are told apart by their number, and to write the other half of the map takes another number of
        // them: it is the same half each time.
        if let (Some(first), Some(last)) = (first, last)
            && (last + 1) % 2 != first % 2
        {
            portdemux.ok(&["add", "8/sctp", "--name", "further"])?;
        }
        Rules::Old.apply(&portdemux)?;
        let (_, before) = bed::in_force(&portdemux, &probe)?;
        let first = *first.get_or_insert(before);
        ensure!(before % 2 == first % 2, "{before} after {first}");
        let apply = portdemux.command(&["apply".as_ref(), new.as_os_str()]);
        let course = steps::run(&apply, cli::binary()?, Kill::Before(step))?;
        let context = || format!("killed before step {step}: {course:?}");

        let (rules, generation) = bed::in_force(&portdemux, &probe).with_context(context)?;
        let expected = if rules == Rules::Old {
            before
        } else {
            before + 1
        };
        ensure!(
            generation == expected,
            "generation {generation}, {}",
            context()
        );
        if course.code.is_some() {
            ensure!(
                course.code == Some(0) && rules == Rules::New,
                "{}",
                context()
            );
            ensure!(
                old_left > 20 && new_left > 2 && noted > 1,
                "{old_left} kills left the old rules, {new_left} the new, {noted} a record"
            );
            return Ok(());
        }
        match rules {
            Rules::Old => old_left += 1,
            Rules::New => new_left += 1,
        }
        ensure!(
            rules == Rules::New || new_left == 0,
            "the new rules were in force before step {step}"
        );
        noted += usize::from(is_mended(&portdemux, generation).with_context(context)?);
        last = Some(generation + 1);
    }
    anyhow::bail!("apply did not end within {MANY} steps");
}

#[test]
fn an_apply_killed_while_it_writes_the_tables_leaves_one_ruleset_whole() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    // Much to write, so that the time between two system calls is long.
    let rulesets = ["local", "drop"].map(many_rules);
    let files = [0, 1].map(|number| portdemux.state().join(format!("{number}.toml")));
    for (file, text) in files.iter().zip(&rulesets) {
        fs::write(file, text)?;
    }
    let put_old_in_force = || portdemux.ok(&["apply".as_ref(), files[0].as_os_str()]);
    let kill = |when| -> Result<(Course, usize)> {
        put_old_in_force()?;
        let apply = portdemux.command(&["apply".as_ref(), files[1].as_os_str()]);
        let course = steps::run(&apply, cli::binary()?, when)?;
        Ok((course, which(&portdemux, &rulesets)?))
    };

    let (mut ended, mut seen) = (0, [0; 2]);
    // Two threads read the texts, and how they take turns changes the number of steps before: a search that was
    // misled by that is made again.
    for _ in 0..8 {
        // The last step before which the old rules are in force: the tables are written after it.
        let (course, _) = kill(Kill::Never)?;
        let (mut low, mut high) = (1, course.steps);
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            if kill(Kill::Before(middle))?.1 == 0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        for number in 0..100 {
            let delay = Duration::from_micros(number % 50 * 40);
            let (course, in_force) = kill(Kill::After(low, delay))?;
            ensure!(course.code.is_none_or(|code| code == 0), "{course:?}");
            seen[in_force] += 1;
            ended += usize::from(course.code.is_some());
            // On a busy machine the kill comes late however short the delay, so that more are needed.
            if ended > 5 && seen[0] > 0 {
                break;
            }
        }
        if seen[0] > 0 && seen[1] > 0 {
            break;
        }
    }
    ensure!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    Ok(())
}

#[test]
fn an_add_killed_at_any_time_adds_its_rule_or_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let without = "# kept\n";
    let empty = portdemux.rules_file(without)?;
    let (mut ended, mut added) = (0, 0);
    for number in 0..300 {
        portdemux.ok(&["apply".as_ref(), empty.as_os_str()])?;
        let add = portdemux.command(&["add", "1001/udp", "--to", "drop"]);
        let delay = Duration::from_micros(number * 61);
        let course = steps::run(&add, cli::binary()?, Kill::After(1, delay))?;
        let text = portdemux.ok(&["export"])?.stdout;
        let passing = probe.passing(&[1001])?;
        if text == without {
            ensure!(!passing.is_empty() && course.code != Some(0), "{course:?}");
        } else {
            ensure!(text.starts_with(without) && passing.is_empty(), "{text}");
            added += 1;
        }
        is_mended(&portdemux, portdemux.stats()?.generation()?)?;
        ended += usize::from(course.code == Some(0));
        if ended > 3 {
            break;
        }
    }
    ensure!(added >= ended && ended > 0, "{added} added, {ended} ended");
    Ok(())
}

/// Has the next command mend what the killed one left; returns whether there was something.
///
/// It says so and names the generation, and leaves one record.
fn is_mended(portdemux: &Portdemux, generation: u64) -> Result<bool> {
    let has_stray = portdemux.records()?.len() > 1;
    let next = portdemux.ok(&["add", "7/sctp", "--name", "next"])?;
    let note = format!("interrupted: generation {generation} is in force");
    ensure!(next.stderr.contains(&note) == has_stray, "{}", next.stderr);
    let records = portdemux.records()?;
    ensure!(records.len() == 1, "records: {records:?}");
    ensure!(portdemux.stats()?.generation()? == generation + 1);
    Ok(has_stray)
}

fn many_rules(to: &str) -> String {
    let mut text = String::new();
    for port in 1..=6_000 {
        let _ = writeln!(
            text,
            "[[rule]]\nname = \"{to}-{port}\"\nport = \"{port}/udp\"\nto = \"{to}\""
        );
    }
    text
}

/// Which of two rulesets every reader finds in force, down to the claim of every port.
fn which(portdemux: &Portdemux, rulesets: &[String; 2]) -> Result<usize> {
    let text = portdemux.ok(&["export"])?.stdout;
    let found = rulesets.iter().position(|ruleset| *ruleset == text);
    let found = found.context("neither ruleset is in force")?;
    let stats = portdemux.stats()?;
    let name = ["local", "drop"][found];
    for entry in stats.0["ports"].as_array().context("ports")? {
        let expected = format!("{name}-{}", entry["port"]);
        ensure!(entry["rule"] == *expected, "{entry} under {name}");
    }
    Ok(found)
}
