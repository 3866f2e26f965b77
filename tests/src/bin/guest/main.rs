//! The first process of a virtual machine that `cargo xtask vm` boots: it runs checks on that machine's kernel.
//!
//! `PORTDEMUX_GUEST_CHECKS` names them. A check is a file of this folder and a line of [`CHECKS`]; it uses the
//! lab of the tests. What is printed is read by `xtask/src/vm/machine.rs`.

mod cpus;
mod floor;
mod load;
mod machine;
mod messages;
mod rules;
mod upgrade;

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;

/// A check, by the name with which `cargo xtask vm --check NAME` asks for it.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 5] = [
    ("cpus", cpus::run),
    ("floor", floor::run),
    ("load", load::run),
    ("rules", rules::run),
    ("upgrade", upgrade::run),
];

fn main() -> ExitCode {
    if std::process::id() == 1 {
        let ended = machine::start().and_then(|()| machine::run_checks());
        if let Err(err) = ended {
            say(format_args!("failed start: {err:#}"));
        }
        machine::power_off();
    }
    let mut failed = false;
    let names = env::var("PORTDEMUX_GUEST_CHECKS").unwrap_or_default();
    for name in names.split(',') {
        if let Err(err) = check(name) {
            failed = true;
            // One line, as the reader takes lines.
            let text = format!("{err:#}").replace('\n', " / ");
            say(format_args!("failed {name}: {text}"));
        } else {
            say(format_args!("passed {name}"));
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn check(name: &str) -> Result<()> {
    let check = CHECKS.iter().find(|(known, _)| *known == name);
    let (_, run) = check.ok_or_else(|| anyhow::anyhow!("no such check"))?;
    run()?;
    messages::are_clean()
}

/// Whether only the most important part is to run.
fn is_short() -> bool {
    env::var_os("PORTDEMUX_GUEST_SHORT").is_some()
}

/// Says something to the machine outside.
fn say(text: impl std::fmt::Display) {
    // Nobody is left who could be told.
    let _ = writeln!(io::stdout(), "guest: {text}");
}
