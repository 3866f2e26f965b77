//! What is said where there is little memory.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    require,
    run::{self, Output},
};

use crate::bed::{RULES, busy};

/// Where a shell keeps a program to so many KiB.
const LIMITED: &str = "ulimit -v \"$0\" && exec \"$@\"";

/// More than any command needs.
const PLENTY: u32 = 1 << 20;

fn within(portdemux: &Portdemux, kib: u32, command: &[&str]) -> Result<Output> {
    let (kib, binary) = (kib.to_string(), cli::binary()?.display().to_string());
    let mut limited = portdemux.command_through(&["sh", "-c", LIMITED, &kib, &binary], command);
    limited.env("RUST_BACKTRACE", "1");
    run::run(limited)
}

#[test]
fn with_little_memory_a_command_does_its_work_or_says_why_not() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let file = portdemux.rules_file(RULES)?.display().to_string();
    // What it takes to load the command at all is more where it has symbols.
    let (mut too_little, mut enough) = (1, PLENTY);
    while enough - too_little > 64 {
        let middle = u32::midpoint(too_little, enough);
        if within(&portdemux, middle, &["--version"])?.code() == Some(0) {
            enough = middle;
        } else {
            too_little = middle;
        }
    }
    let mut failures = 0;
    for more in [
        0, 300, 1_000, 2_500, 5_000, 8_000, 11_000, 15_000, 20_000, 30_000, 60_000,
    ] {
        for command in [
            &["attach", INTERFACE][..],
            &["apply", &file],
            &["add", "1/tcp", "--name", "new"],
            &["remove", "new"],
            &["status"],
            &["stats"],
            &["rules"],
            &["export"],
            &["explain", "udp", "192.0.2.1:1", "192.0.2.2:20"],
        ] {
            let output = within(&portdemux, enough + more, command)?;
            let context = || format!("{command:?} with {more} KiB more: {}", output.stderr);
            match output.code() {
                Some(0) => {}
                Some(1) => {
                    ensure!(output.stderr.contains("error: "), "{}", context());
                    failures += 1;
                }
                code => anyhow::bail!("{code:?}, {}", context()),
            }
            ensure!(!output.stderr.contains("panicked"), "{}", context());
        }
        // Whatever came of it, one ruleset is in force as a whole.
        let export = portdemux.ok(&["export"])?;
        ensure!(export.stderr.is_empty(), "{}", export.stderr);
        ensure!(
            export.stdout.starts_with(RULES.trim_end()),
            "{}",
            export.stdout
        );
    }
    ensure!(failures > 10, "{failures} commands had too little");
    let ended = within(&portdemux, PLENTY, &["apply", &file])?;
    ended.success().context("with plenty")?;
    Ok(())
}
