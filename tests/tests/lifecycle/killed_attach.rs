//! `attach` and `detach` are killed.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use portdemux::maps;
use portdemux_tests::{
    cli::{self, Portdemux},
    faults,
    lab::{INTERFACE, Lab},
    probe::Probe,
    require,
    steps::{self, Kill},
    wait::{PATIENCE, wait_until},
};

use crate::bed::{self, PORTS, Rules};

const MANY: usize = 20_000;

#[test]
fn an_attach_killed_at_any_step_leaves_no_half_and_the_next_one_works() -> Result<()> {
    killed_at_every_step(&Case {
        is_attached_before: false,
        command: &[
            "attach", INTERFACE, "--mode", "generic", "--rules", "old.toml",
        ],
    })
}

#[test]
fn an_attach_again_killed_at_any_step_leaves_a_program_in_place() -> Result<()> {
    killed_at_every_step(&Case {
        is_attached_before: true,
        command: &["attach", INTERFACE],
    })
}

#[test]
fn a_detach_killed_at_any_step_leaves_the_interface_attached_or_not() -> Result<()> {
    killed_at_every_step(&Case {
        is_attached_before: true,
        command: &["detach", INTERFACE],
    })
}

#[test]
fn a_detach_of_everything_killed_at_any_step_is_no_obstacle_to_the_next_attach() -> Result<()> {
    killed_at_every_step(&Case {
        is_attached_before: true,
        command: &["detach", "--all"],
    })
}

struct Case {
    is_attached_before: bool,
    command: &'static [&'static str],
}

/// Kills a command at every step. Whatever that leaves is whole: a program on the interface with the
/// rules, or none; and the next attach puts one there.
fn killed_at_every_step(case: &Case) -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    let file = Rules::Old.file(&portdemux)?.display().to_string();
    let attach = ["attach", INTERFACE, "--mode", "generic", "--rules", &file];
    let command: Vec<&str> = case
        .command
        .iter()
        .map(|&word| if word == "old.toml" { &file } else { word })
        .collect();
    let prepare = || -> Result<(World, Option<u64>)> {
        if case.is_attached_before {
            portdemux.ok(&attach)?;
        } else if portdemux.bpffs().join("portdemux/default").exists() {
            portdemux.ok(&["detach", "--all"])?;
        }
        let program = bed::program_on(&lab, INTERFACE)?.map(|(id, _)| id);
        Ok((World::look(&lab, &portdemux, program)?, program))
    };

    let (mut before, mut program) = prepare()?;
    let mut previous = before.clone();
    let mut left = 0;
    for step in 1..=MANY {
        let course = steps::run(
            &portdemux.command(&command),
            cli::binary()?,
            Kill::Before(step),
        )?;
        let world = World::look(&lab, &portdemux, program)?;
        // What was judged once need not be judged again.
        if world != previous || course.code.is_some() {
            left += 1;
            judge(&lab, &portdemux, &probe, &world)
                .and_then(|()| portdemux.ok(&attach).map(drop))
                .and_then(|()| bed::holds(&lab, &portdemux, &probe, Rules::Old))
                .and_then(|()| is_tidy(&portdemux))
                .with_context(|| format!("killed before step {step}: {course:?}: {world:?}"))?;
            ensure!(
                world.mode.is_some() || case.command[0] != "attach" || !case.is_attached_before,
                "killed before step {step}, no program is on the interface"
            );
        }
        if course.code.is_some() {
            ensure!(course.code == Some(0), "{command:?} failed");
            ensure!(step > 20 && left > 1, "{step} steps, {left} states");
            return Ok(());
        }
        if world != before {
            (before, program) = prepare()?;
        }
        previous = world;
    }
    bail!("{command:?} did not end within {MANY} steps");
}

/// What a command left behind, as far as it can be seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct World {
    pins: Vec<String>,
    records: Vec<String>,
    mode: Option<u64>,
    /// Whether the program is another than it was.
    is_replaced: bool,
    status: Option<i32>,
    state: Option<String>,
}

impl World {
    /// Looks when the kernel is done: it takes a program off some time after its pin is gone.
    fn look(lab: &Lab, portdemux: &Portdemux, old: Option<u64>) -> Result<Self> {
        let pins = || below(&portdemux.bpffs().join("portdemux"));
        wait_until("no program without a pin", PATIENCE, || {
            let is_pinned = pins()?.iter().any(|pin| pin.ends_with("/link0"));
            Ok(is_pinned || bed::program_on(lab, INTERFACE)?.is_none())
        })?;
        let program = bed::program_on(lab, INTERFACE)?;
        let status = portdemux.run(&["status", "--json"])?;
        let document: serde_json::Value = serde_json::from_str(&status.stdout).unwrap_or_default();
        Ok(Self {
            pins: pins()?,
            records: portdemux.records()?,
            mode: program.map(|(_, mode)| mode),
            is_replaced: old.is_some() && program.is_some_and(|(id, _)| Some(id) != old),
            status: status.code(),
            state: document["interfaces"][0]["state"]
                .as_str()
                .map(|state| format!("{state} {}", document["interfaces"][0]["mode"])),
        })
    }
}

/// A program with all the rules, or none: and what is said about it is true.
fn judge(lab: &Lab, portdemux: &Portdemux, probe: &Probe, world: &World) -> Result<()> {
    let passing = probe.passing(&PORTS)?;
    match world.mode {
        None => {
            ensure!(passing.len() == PORTS.len(), "{passing:?} passes");
            let state = world.state.as_deref().unwrap_or_default();
            ensure!(!state.starts_with("attached"), "{state}");
        }
        Some(_) if world.status == Some(0) => {
            bed::holds(lab, portdemux, probe, Rules::Old)?;
            ensure!(world.state.as_deref() == Some("attached \"generic\""));
        }
        // While it is being removed: the rules hold until the program goes.
        Some(_) => {
            ensure!(passing == Rules::Old.passing(), "{passing:?} passes");
            if world.pins.iter().all(|pin| pin.starts_with("default~old/")) {
                is_told_of(portdemux)?;
            }
        }
    }
    Ok(())
}

/// Whoever asks for an instance whose removal was interrupted hears of that, and of what is left.
fn is_told_of(portdemux: &Portdemux) -> Result<()> {
    let told = format!(
        "the removal of instance default was interrupted: its program still runs on {INTERFACE}\n   help: portdemux \
         detach --all finishes it\n"
    );
    for verb in [
        &["status"][..],
        &["status", "--json"],
        &["stats"],
        &["rules"],
        &["flows"],
        &["export"],
        &["socket", "list"],
        &["upgrade"],
        &["explain", "udp", "192.0.2.1:1024", "192.0.2.2:1001"],
        &["add", "7/sctp"],
        &["confirm"],
    ] {
        let error = portdemux.fails(1, verb)?.stderr;
        ensure!(
            error == format!("error: {told}").replace("   help", " help"),
            "{verb:?}: {error}"
        );
    }
    let listeners = portdemux.ok(&["listeners"])?.stderr;
    ensure!(listeners.ends_with(&told), "{listeners}");
    Ok(())
}

#[test]
fn a_removal_that_fails_is_told_and_gone_on_with() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let fault = Some("unlinkat 1 EIO".parse()?);
    let removal = faults::run(
        &portdemux.command(&["detach", "--all"]),
        cli::binary()?,
        fault,
    )?;
    ensure!(removal.has_failed && removal.code == Some(1), "{removal:?}");
    ensure!(
        removal.stderr.contains("detach --all goes on"),
        "{}",
        removal.stderr
    );
    is_told_of(&portdemux)?;
    portdemux.set_instance("second");
    let refused = portdemux.fails(1, &["attach", INTERFACE])?.stderr;
    ensure!(
        refused.contains(", of instance default, whose removal was interrupted\n")
            && refused.contains("portdemux --instance default detach --all"),
        "{refused}"
    );
    portdemux.set_instance("default");
    let removed = portdemux.ok(&["detach", "--all"])?.stdout;
    ensure!(
        removed.starts_with(&format!("{INTERFACE}  detached\n")),
        "{removed}"
    );
    ensure!(bed::program_on(&lab, INTERFACE)?.is_none());
    portdemux.fails(3, &["status"])?;
    Ok(())
}

fn is_tidy(portdemux: &Portdemux) -> Result<()> {
    let pins = below(&portdemux.bpffs().join("portdemux"))?;
    let mut expected: Vec<String> = maps::ALL
        .iter()
        .chain(&["link0"])
        .map(|name| format!("default/abi{}/{name}", portdemux_common::ABI))
        .collect();
    expected.sort();
    ensure!(pins == expected, "pins: {pins:?}");
    let records = portdemux.records()?;
    ensure!(records.len() == 1, "records: {records:?}");
    Ok(())
}

/// The files below a directory and the directories without any, by their paths in it.
fn below(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        let Ok(entries) = fs::read_dir(&next) else {
            continue;
        };
        let mut is_empty = true;
        for entry in entries {
            let entry = entry?;
            is_empty = false;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
        if is_empty && next != directory {
            found.push(next);
        }
    }
    let mut names: Vec<String> = found
        .iter()
        .filter_map(|path| Some(path.strip_prefix(directory).ok()?.display().to_string()))
        .collect();
    names.sort();
    Ok(names)
}
