//! Whoever is killed on the way leaves nothing half done.

use std::{fs, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    netns::Netns,
    steps::{self, Kill},
};
use serde_json::Value;

use crate::bed::{self, have, rule};

/// Every so many steps one is tried: programs are loaded for each.
const STRIDE: usize = 31;
/// More calls than the command makes.
const MANY: usize = 10_000;

/// Whether a connection to a port gets to the listener.
fn leads(namespace: &Netns, port: u16) -> Result<bool> {
    let Ok(mut stream) = bed::connect(namespace, &format!("127.0.0.1:{port}")) else {
        return Ok(false);
    };
    ensure!(bed::hear(&mut stream, 2)? == "in", "another answers");
    Ok(true)
}

#[test]
fn an_apply_killed_at_any_step_leaves_the_old_rules_or_the_new_ones() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("killed")?;
    let portdemux = Portdemux::new(&namespace)?;
    let listener = bed::listen(&namespace, "127.0.0.1:8080")?;
    bed::serve(&listener, "in")?;
    let old = rule("web", "\"80/tcp\"", "127.0.0.1:8080", "");
    let new = rule("web", "\"81/tcp\"", "127.0.0.1:8080", "");
    let none = "# nothing\n";
    let file = portdemux.state().join("new.toml");
    for (before, after) in [(old.as_str(), new.as_str()), (none, &new), (&old, none)] {
        fs::write(&file, after)?;
        let apply = portdemux.command(&["apply".as_ref(), file.as_os_str()]);
        let mut is_done = false;
        for step in (1..=MANY).step_by(STRIDE) {
            portdemux.apply(before)?;
            let course = steps::run(&apply, cli::binary()?, Kill::Before(step))?;
            let context = || format!("killed before step {step}: {course:?}");
            let text = portdemux.ok(&["export"]).with_context(context)?.stdout;
            ensure!(text == before || text == after, "{text}, {}", context());
            for port in [80, 81] {
                let is_claimed = text.contains(&format!("\"{port}/tcp\""));
                let is_led = leads(&namespace, port).with_context(context)?;
                ensure!(is_led == is_claimed, "{port}: {is_led}, {}", context());
            }
            if course.code.is_some() {
                ensure!(course.code == Some(0) && text == after, "{}", context());
                is_done = true;
                break;
            }
        }
        ensure!(is_done, "apply did not end within {MANY} steps");
    }
    portdemux.apply(&old)?;
    ensure!(leads(&namespace, 80)?);
    portdemux.ok(&["detach", "--all"])?;
    // The kernel lets go of it some time after its pin is gone.
    portdemux_tests::wait::wait_until(
        "the end of lookups",
        portdemux_tests::wait::PATIENCE,
        || Ok(!leads(&namespace, 80)?),
    )?;
    ensure!(
        fs::read_dir(portdemux.bpffs().join("portdemux"))?
            .next()
            .is_none()
    );
    Ok(())
}

/// The members that names have; nothing if no instance is there.
fn members(portdemux: &Portdemux) -> Result<Option<usize>> {
    let listed = portdemux.run(&["socket", "list", "--json"])?;
    if listed.code() == Some(3) {
        return Ok(None);
    }
    let listed: Value = serde_json::from_str(&listed.success()?.stdout)?;
    let groups = listed["sockets"].as_array().context("sockets")?;
    let members = groups
        .iter()
        .filter_map(|group| group["members"].as_array());
    Ok(Some(members.map(Vec::len).sum()))
}

#[test]
fn a_socket_that_is_added_or_removed_by_who_is_killed_is_one_or_none() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("killed")?;
    let portdemux = Portdemux::new(&namespace)?;
    let listener = bed::listen(&namespace, "127.0.0.1:8080")?;
    bed::serve(&listener, "in")?;
    let pid = std::process::id().to_string();
    let descriptor = listener.as_raw_fd().to_string();
    let one = |verb| ["socket", verb, "web", "--pid", &pid, "--fd", &descriptor];
    let rules = rule("web", "\"80/tcp\"", "web", "");
    portdemux.apply(&rules)?;
    for (verb, other) in [("add", "remove"), ("remove", "add")] {
        let command = portdemux.command(&one(verb));
        let mut is_done = false;
        for step in 1..=MANY {
            // What the one before left is no hindrance to whoever does it as a whole.
            let before = portdemux.run(&one(other))?;
            ensure!(before.code() == Some(0) || before.stderr.contains("none of web"));
            let course = steps::run(&command, cli::binary()?, Kill::Before(step))?;
            let context = || format!("{verb} killed before step {step}: {course:?}");
            let count = members(&portdemux)?.with_context(context)?;
            let is_led = leads(&namespace, 80).with_context(context)?;
            ensure!(usize::from(is_led) == count, "{count}, {}", context());
            if course.code.is_some() {
                ensure!(course.code == Some(0) && is_led == (verb == "add"));
                is_done = true;
                break;
            }
        }
        ensure!(is_done, "socket {verb} did not end within {MANY} steps");
    }
    // The first one makes the instance.
    let command = portdemux.command(&one("add"));
    let mut is_done = false;
    for step in (1..=MANY).step_by(STRIDE) {
        portdemux.ok(&["detach", "--all"])?;
        let course = steps::run(&command, cli::binary()?, Kill::Before(step))?;
        let context = || format!("the first killed before step {step}: {course:?}");
        ensure!(members(&portdemux)?.is_none_or(|count| count <= 1));
        portdemux.ok(&one("add")).with_context(context)?;
        ensure!(members(&portdemux)? == Some(1), "{}", context());
        if course.code.is_some() {
            is_done = true;
            break;
        }
    }
    ensure!(is_done, "socket add did not end within {MANY} steps");
    portdemux.apply(&rules)?;
    ensure!(leads(&namespace, 80)?);
    Ok(())
}

#[test]
fn the_programs_go_with_the_last_rule_that_needs_them_and_are_replaced_by_attach() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let listener = bed::listen(&lab.server, "127.0.0.1:8080")?;
    bed::serve(&listener, "in")?;
    let pins = || -> Result<Vec<bool>> {
        let is_there = |name: &&str| portdemux.pins().join(name).exists();
        Ok(["looking", "hearing"].iter().map(is_there).collect())
    };
    portdemux.ok(&["attach", INTERFACE])?;
    ensure!(pins()? == [false, false]);
    portdemux.ok(&["add", "80/tcp", "--to", "socket:127.0.0.1:8080"])?;
    ensure!(pins()? == [true, true]);
    ensure!(leads(&lab.server, 80)?);
    portdemux.ok(&["attach", INTERFACE])?;
    ensure!(leads(&lab.server, 80)?);
    // Without any interface it goes on.
    portdemux.ok(&["detach", INTERFACE])?;
    ensure!(leads(&lab.server, 80)?);
    portdemux.ok(&["remove", "80/tcp"])?;
    ensure!(pins()? == [false, false]);
    portdemux_tests::wait::wait_until(
        "the end of lookups",
        portdemux_tests::wait::PATIENCE,
        || Ok(!leads(&lab.server, 80)?),
    )
}
