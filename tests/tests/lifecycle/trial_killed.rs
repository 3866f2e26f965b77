//! A change on trial, and a process of it that is killed: it is undone, or was never made.

use std::ffi::OsString;

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::Lab,
    require,
    steps::{self, Course, Kill},
    wait::{PATIENCE, wait_until},
};

use crate::{
    bed::{self, Rules},
    trial::{amend, apply_for, loaded, long_ago},
};

/// More calls than any of these commands makes.
const MANY: usize = 5_000;

/// Which rules the text on record says are in force.
fn text_in_force(portdemux: &Portdemux) -> Result<Rules> {
    let text = portdemux.ok(&["export"])?.stdout;
    let mut both = [Rules::Old, Rules::New].into_iter();
    both.find(|rules| rules.text() == text).context(text)
}

fn has_pending(portdemux: &Portdemux) -> Result<bool> {
    Ok(!portdemux.json(&["status"])?["pending"].is_null())
}

#[test]
fn an_apply_killed_at_any_step_has_changed_nothing_or_is_on_trial() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = loaded(&lab)?;
    let apply = |time: &str, when: Kill| -> Result<Course> {
        let words: [OsString; 4] = apply_for(&portdemux, time)?;
        steps::run(&portdemux.command(&words), cli::binary()?, when)
    };
    let (mut old_left, mut new_left, mut first_new) = (0, 0, None);
    for step in 1..=MANY {
        let course = apply("1h", Kill::Before(step))?;
        let context = || format!("killed before step {step}: {course:?}");
        let rules = text_in_force(&portdemux).with_context(context)?;
        ensure!(
            has_pending(&portdemux)? == (rules == Rules::New),
            "{rules:?} {}",
            context()
        );
        if rules == Rules::New {
            ensure!(portdemux.guardians()?.len() == 1, "{}", context());
            portdemux.ok(&["confirm", "--undo"])?;
            first_new = first_new.or(Some(step));
            new_left += usize::from(course.code.is_none());
        } else {
            ensure!(course.code.is_none() && new_left == 0, "{}", context());
            old_left += 1;
        }
        // What the killed one started sees that there is nothing to do.
        portdemux.wait_for_no_guardian().with_context(context)?;
        portdemux.ok(&["remove", "goes"]).with_context(context)?;
        Rules::Old.apply(&portdemux)?;
        ensure!(portdemux.records()?.len() == 1, "{}", context());
        if course.code.is_some() {
            break;
        }
    }
    ensure!(
        old_left > 20 && new_left > 1,
        "{old_left} kills left the old rules, {new_left} the new"
    );

    // Nobody but the guardian is left, and that does it.
    let step = first_new.context("no step")?;
    let course = apply("2s", Kill::Before(step))?;
    ensure!(course.code.is_none());
    wait_until("the guardian to undo the change", PATIENCE, || {
        Ok(!has_pending(&portdemux)? && text_in_force(&portdemux)? == Rules::Old)
    })?;
    bed::in_force(&portdemux, &probe)?;
    portdemux.wait_for_no_guardian()
}

#[test]
fn without_its_guardian_a_change_is_undone_by_the_next_command() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = loaded(&lab)?;
    let orphan = || -> Result<u64> {
        portdemux.ok(&apply_for(&portdemux, "1h")?)?;
        let waits =
            || -> Result<_> { Ok(portdemux.json(&["status"])?["pending"]["guarded"].clone()) };
        ensure!(waits()? == true);
        portdemux.kill_guardians()?;
        ensure!(waits()? == false);
        let said = portdemux.ok(&["status"])?;
        ensure!(
            said.stderr
                .contains("the process is gone that would undo it"),
            "{said:?}"
        );
        ensure!(!said.stdout.contains("is undone in"), "{said:?}");
        amend(&portdemux, "deadline", long_ago())?;
        let (rules, generation) = bed::in_force(&portdemux, &probe)?;
        ensure!(rules == Rules::New);
        Ok(generation)
    };
    let generation = orphan()?;
    let status = portdemux.json(&["status"])?;
    ensure!(status["pending"]["seconds_left"] == 0.0, "{status}");
    let said = portdemux.ok(&["status"])?.stderr;
    ensure!(
        said.contains("was not confirmed in time and is still in force"),
        "{said}"
    );
    let undone = |generation: u64| {
        format!(
            "generation {generation} was not confirmed in time: the rules before it are in force again, \
             as generation {}\n",
            generation + 1
        )
    };
    let added = portdemux.ok(&["add", "9/sctp", "--name", "next"])?;
    assert_eq!(added.stderr, format!("warning: {}", undone(generation)));
    let text = portdemux.ok(&["export"])?.stdout;
    ensure!(
        text.starts_with(Rules::Old.text()) && text.contains("next"),
        "{text}"
    );
    portdemux.ok(&["remove", "next"])?;

    let generation = orphan()?;
    let attached = portdemux.ok(&["attach", portdemux_tests::lab::INTERFACE])?;
    ensure!(
        attached
            .stderr
            .starts_with(&format!("warning: {}", undone(generation))),
        "{}",
        attached.stderr
    );
    ensure!(bed::in_force(&portdemux, &probe)?.0 == Rules::Old);

    let generation = orphan()?;
    let late = portdemux.fails(1, &["confirm"])?.stderr;
    ensure!(
        late.starts_with(&format!("error: {}", undone(generation))),
        "{late}"
    );
    ensure!(bed::in_force(&portdemux, &probe)?.0 == Rules::Old);
    Ok(())
}

#[test]
fn a_guardian_killed_at_any_step_leaves_a_change_that_the_next_command_undoes() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _probe) = loaded(&lab)?;
    let guard = [
        "guard".into(),
        "--bpffs".into(),
        portdemux.bpffs().as_os_str().to_owned(),
        "--state-dir".into(),
        portdemux.state().as_os_str().to_owned(),
    ];
    let (mut new_left, mut old_left) = (0, 0);
    for step in 1..=MANY {
        portdemux.ok(&apply_for(&portdemux, "1h")?)?;
        portdemux.kill_guardians()?;
        amend(&portdemux, "deadline", long_ago())?;
        let command = portdemux.command(&guard);
        let course = steps::run(&command, cli::binary()?, Kill::Before(step))?;
        let context = || format!("killed before step {step}: {course:?}");
        let rules = text_in_force(&portdemux).with_context(context)?;
        ensure!(
            has_pending(&portdemux)? == (rules == Rules::New),
            "{}",
            context()
        );
        match rules {
            Rules::New => new_left += 1,
            Rules::Old => old_left += 1,
        }
        ensure!(rules == Rules::Old || old_left == 0, "{}", context());
        let added = portdemux.ok(&["add", "9/sctp"])?;
        ensure!(
            added.stderr.contains("was not confirmed in time") == (rules == Rules::New),
            "{}: {}",
            context(),
            added.stderr
        );
        portdemux.ok(&["remove", "9/sctp"])?;
        ensure!(text_in_force(&portdemux)? == Rules::Old, "{}", context());
        ensure!(portdemux.records()?.len() == 1, "{}", context());
        if course.code.is_some() {
            ensure!(
                course.code == Some(0) && new_left > 10 && old_left > 1,
                "{new_left}, {old_left}"
            );
            return Ok(());
        }
    }
    anyhow::bail!("the guardian did not end within {MANY} steps");
}
