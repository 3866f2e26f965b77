//! Whoever is killed on the way leaves nothing half done.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    netns::Netns,
    steps::{self, Kill},
};

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
