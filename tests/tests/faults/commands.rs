//! Commands that change something.

use anyhow::{Result, ensure};
use portdemux_tests::{faults::Fault, lab::INTERFACE};

use crate::{
    Scenario,
    bed::{Bed, OTHER, PLAIN, RICH, words},
    each,
};

fn plain(bed: &Bed) -> Result<()> {
    loaded(bed, PLAIN)
}

/// Puts rules in force, on an instance that is there or on a new one.
fn loaded(bed: &Bed, text: &str) -> Result<()> {
    if bed.portdemux.pins().exists() {
        // What waits would be in the way.
        bed.portdemux.run(&["confirm"])?;
        bed.apply(text)
    } else {
        bed.load(text)
    }
}

fn command(name: &str, prepare: impl Fn(&Bed) -> Result<()>, line: &[&str]) -> Result<()> {
    let run = |bed: &Bed, fault: Option<Fault>| bed.run(&words(line), fault);
    each(&Scenario {
        name,
        prepare: &prepare,
        run: &run,
        check: None,
        most: usize::MAX,
    })
}

/// A command with a rules file behind it.
fn with_file(
    name: &str,
    prepare: impl Fn(&Bed) -> Result<()>,
    line: &[&str],
    text: &str,
) -> Result<()> {
    let run = |bed: &Bed, fault: Option<Fault>| {
        let mut line = words(line);
        line.push(bed.file(text)?.into());
        bed.run(&line, fault)
    };
    each(&Scenario {
        name,
        prepare: &prepare,
        run: &run,
        check: None,
        most: usize::MAX,
    })
}

/// Nothing is loaded, and nothing is left of what was.
fn nothing(bed: &Bed) -> Result<()> {
    let removed = bed.portdemux.run(&["detach", "--all"])?;
    ensure!(matches!(removed.code(), Some(0 | 3)), "{}", removed.stderr);
    Ok(())
}

#[test]
fn attach() -> Result<()> {
    command("attach", nothing, &["attach", INTERFACE])
}

#[test]
fn attach_with_rules() -> Result<()> {
    with_file(
        "attach-rules",
        nothing,
        &["attach", INTERFACE, "--rules"],
        RICH,
    )
}

#[test]
fn attach_again() -> Result<()> {
    command("attach-again", plain, &["attach", INTERFACE])
}

#[test]
fn attach_again_with_rules() -> Result<()> {
    with_file(
        "attach-again-rules",
        plain,
        &["attach", INTERFACE, "--rules"],
        OTHER,
    )
}

#[test]
fn apply() -> Result<()> {
    with_file("apply", plain, &["apply"], OTHER)
}

#[test]
fn apply_rich_rules() -> Result<()> {
    with_file("apply-rich", plain, &["apply"], RICH)
}

#[test]
fn apply_plain_rules_after_rich_ones() -> Result<()> {
    with_file("apply-plain", |bed| loaded(bed, RICH), &["apply"], PLAIN)
}

#[test]
fn add() -> Result<()> {
    command(
        "add",
        plain,
        &["add", "1004/udp", "--to", "drop", "--name", "new"],
    )
}

#[test]
fn remove() -> Result<()> {
    command("remove", plain, &["remove", "turns"])
}

#[test]
fn set_add() -> Result<()> {
    let client = "192.0.2.1";
    command("set-add", plain, &["set", "add", "banned", client])
}

#[test]
fn set_remove() -> Result<()> {
    command(
        "set-remove",
        plain,
        &["set", "remove", "banned", "203.0.113.9"],
    )
}

#[test]
fn apply_to_be_confirmed() -> Result<()> {
    with_file("apply-confirm", plain, &["apply", "--confirm", "1h"], OTHER)
}

fn on_trial(bed: &Bed) -> Result<()> {
    plain(bed)?;
    let file = bed.file(OTHER)?;
    bed.portdemux.ok(&[
        "apply".as_ref(),
        file.as_os_str(),
        "--confirm".as_ref(),
        "1h".as_ref(),
    ])?;
    Ok(())
}

#[test]
fn confirm() -> Result<()> {
    command("confirm", on_trial, &["confirm"])
}

#[test]
fn confirm_undo() -> Result<()> {
    command("confirm-undo", on_trial, &["confirm", "--undo"])
}
