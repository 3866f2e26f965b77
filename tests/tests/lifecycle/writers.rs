//! Several processes change one instance at once.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portdemux::{
    dataplane::links::{self, Attachment, Wish},
    instance::InstancePaths,
    interface,
};
use portdemux_common::state::Mode;
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require,
    run::Running,
    wait::{PATIENCE, wait_until},
};

/// How many commands run at once.
const WRITERS: u16 = 40;

#[test]
fn of_many_writers_at_once_each_lands_or_fails_and_none_is_lost() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    // Every second one asks for a port that its neighbour asks for too.
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let port = format!("{}/udp", 2000 + number / 2);
        let name = format!("rule-{number}");
        let command = portdemux.command(&["add", &port, "--name", &name]);
        writers.push((name, Running::spawn(command)?));
    }
    let mut landed = BTreeSet::new();
    for (name, writer) in writers {
        let output = writer.wait(PATIENCE)?;
        match output.code() {
            Some(0) => {
                landed.insert(name);
            }
            Some(1) => ensure!(
                output
                    .stderr
                    .contains("two rules claim the same entry points"),
                "{}",
                output.stderr
            ),
            code => anyhow::bail!("{code:?}: {}", output.stderr),
        }
    }
    ensure!(
        landed.len() == usize::from(WRITERS) / 2,
        "{landed:?} landed"
    );
    ensure!(names(&portdemux)? == landed);
    ensure!(portdemux.stats()?.generation()? == u64::from(WRITERS) / 2);
    ensure!(portdemux.records()?.len() == 1);
    Ok(())
}

#[test]
fn writers_that_are_killed_at_once_leave_what_the_others_wrote() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let mut spared = BTreeSet::new();
    for round in 0..5 {
        let mut writers = Vec::new();
        for number in 0..12 {
            let port = format!("{}/udp", 3000 + round * 100 + number);
            let name = format!(
                "{}-{round}-{number}",
                if number % 3 == 0 { "killed" } else { "spared" }
            );
            let command = portdemux.command(&["add", &port, "--name", &name]);
            writers.push((name, Running::spawn(command)?));
        }
        for (name, writer) in writers {
            if name.starts_with("killed") {
                // It may have ended.
                let _: Result<()> = writer.signal(Signal::SIGKILL);
            } else {
                writer.wait(PATIENCE)?.success()?;
                spared.insert(name);
            }
        }
    }
    let names = names(&portdemux)?;
    ensure!(
        names.is_superset(&spared),
        "{spared:?} landed, there are {names:?}"
    );
    let text = portdemux.ok(&["export"])?.stdout;
    ensure!(names.iter().all(|name| text.contains(name)), "{text}");
    portdemux.ok(&["add", "9/sctp"])?;
    ensure!(portdemux.records()?.len() == 1);
    Ok(())
}

#[test]
fn a_writer_waits_for_another_and_names_one_that_does_not_end() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let lock = paths(&portdemux)?.lock()?;
    let mut waiting = Running::spawn(portdemux.command(&["add", "1/tcp", "--name", "late"]))?;
    // Reading does not wait.
    ensure!(names(&portdemux)?.is_empty());
    ensure!(waiting.is_running()?, "it did not wait");
    drop(lock);
    waiting.wait(PATIENCE)?.success()?;
    ensure!(names(&portdemux)? == BTreeSet::from(["late".to_owned()]));

    let _lock = paths(&portdemux)?.lock()?;
    let refused = Running::spawn(portdemux.command(&["add", "2/tcp"]))?.wait(PATIENCE)?;
    ensure!(refused.code() == Some(1));
    let holder = format!(
        "another portdemux (process {}) is changing",
        std::process::id()
    );
    ensure!(refused.stderr.contains(&holder), "{}", refused.stderr);
    ensure!(names(&portdemux)?.len() == 1);
    Ok(())
}

#[test]
fn an_instance_that_is_removed_under_a_waiting_writer_is_not_half_there() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    for _ in 0..10 {
        // The last round may have left one.
        portdemux.run(&["detach", "--all"])?;
        portdemux.ok(&["attach", INTERFACE])?;
        let lock = paths(&portdemux)?.lock()?;
        let remove = Running::spawn(portdemux.command(&["detach", "--all"]))?;
        let add = Running::spawn(portdemux.command(&["add", "1/tcp"]))?;
        let attach = Running::spawn(portdemux.command(&["attach", INTERFACE]))?;
        drop(lock);
        remove.wait(PATIENCE)?.success()?;
        // They came before it or after; after it there is nothing to add to.
        let (add, attach) = (add.wait(PATIENCE)?, attach.wait(PATIENCE)?);
        ensure!(matches!(add.code(), Some(0 | 3)), "{}", add.stderr);
        ensure!(attach.code() == Some(0), "{}", attach.stderr);
        let status = portdemux.run(&["status", "--json"])?;
        ensure!(matches!(status.code(), Some(0 | 3)), "{}", status.stderr);
        if status.code() == Some(0) {
            let generation = portdemux.stats()?.generation()?;
            ensure!(portdemux.records()?.len() as u64 == generation);
        }
    }
    Ok(())
}

#[test]
fn a_lock_is_had_however_often_its_directory_goes() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let paths = paths(&portdemux)?;
    let is_over = AtomicBool::new(false);
    let removals = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if fs::remove_dir_all(paths.records()).is_ok() {
                    removals.fetch_add(1, Ordering::Relaxed);
                }
                // Some chance for the other.
                thread::sleep(Duration::from_micros(20));
            }
        });
        let had = wait_until("many removals", PATIENCE, || {
            for _ in 0..100 {
                paths.lock()?;
            }
            Ok(removals.load(Ordering::Relaxed) > 300)
        });
        is_over.store(true, Ordering::Relaxed);
        had
    })
}

#[test]
fn readers_see_one_ruleset_or_the_other_while_it_is_exchanged() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let texts =
        ["one", "two"].map(|name| format!("[[rule]]\nname = \"{name}\"\nport = \"1/udp\"\n"));
    portdemux.apply(&texts[0])?;
    let files = [0, 1].map(|number| portdemux.state().join(format!("{number}.toml")));
    for (file, text) in files.iter().zip(&texts) {
        fs::write(file, text)?;
    }
    let mut script = String::from("set -e; for i in $(seq 60); do ");
    for file in &files {
        let _ = write!(
            script,
            "\"$0\" apply {} --instance default >&2; ",
            file.display()
        );
    }
    script.push_str("done");
    let binary = portdemux_tests::cli::binary()?.display().to_string();
    let words = ["sh", "-c", &script, &binary];
    let mut writer = Running::spawn(portdemux.command_through(&words, &[]))?;
    let mut seen = BTreeSet::new();
    while writer.is_running()? {
        let export = portdemux.ok(&["export"])?;
        ensure!(export.stderr.is_empty(), "{}", export.stderr);
        ensure!(texts.contains(&export.stdout), "{}", export.stdout);
        let document = portdemux.json(&["rules"])?;
        let generation = document["generation"].as_u64().context("generation")?;
        let name = ["two", "one"][usize::try_from(generation % 2)?];
        ensure!(document["rules"][0]["name"] == name, "{document}");
        let stats = portdemux.stats()?;
        let name = ["two", "one"][usize::try_from(stats.generation()? % 2)?];
        ensure!(
            stats.rule_of("1/udp")?.as_deref() == Some(name),
            "{:?}",
            stats.0
        );
        seen.insert(export.stdout);
    }
    writer.wait(PATIENCE)?.success()?;
    ensure!(seen.len() == 2, "only {seen:?} was seen");
    wait_until("the last change", Duration::from_secs(1), || {
        Ok(portdemux.records()?.len() == 1)
    })
}

/// As when the process of the unit lists interfaces while the script of the package exchanges programs.
#[test]
fn a_program_that_was_exchanged_since_interfaces_were_listed_is_not_taken_off() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let listed = lab.server.enter(interface::list)?;
    let listed = listed.iter().find(|listed| listed.name == INTERFACE);
    let listed = listed.context("no interface")?;
    portdemux.ok(&["attach", INTERFACE])?;

    let writer = paths(&portdemux)?.lock()?.open()?;
    let attached = lab.server.enter(|| {
        let netns = interface::namespace()?;
        links::attach(&writer, listed, netns, Wish::Auto)
    })?;
    let mode = Mode::Native;
    ensure!(attached == Attachment::Replaced { mode }, "{attached:?}");
    Ok(())
}

fn paths(portdemux: &Portdemux) -> Result<InstancePaths> {
    Ok(InstancePaths::new(
        "default".parse().map_err(anyhow::Error::msg)?,
        portdemux.bpffs().into(),
        portdemux.state().into(),
    ))
}

fn names(portdemux: &Portdemux) -> Result<BTreeSet<String>> {
    let document = portdemux.json(&["rules"])?;
    let rules = document["rules"].as_array().context("rules")?;
    Ok(rules
        .iter()
        .filter_map(|rule| rule["name"].as_str().map(str::to_owned))
        .collect())
}
