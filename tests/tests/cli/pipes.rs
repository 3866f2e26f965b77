//! Readers that go away, and those that cannot be written to.

use std::{
    fs::File,
    io::{self, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::Lab,
    require, run,
};

use crate::bed::busy;

const COMMANDS: [&[&str]; 10] = [
    &["stats", "--all"],
    &["stats", "--all", "--json"],
    &["stats", "--watch", "0.1"],
    &["stats", "--watch", "0.1", "--json"],
    &["rules"],
    &["status"],
    &["export"],
    &["listeners"],
    &["explain", "tcp", "192.0.2.1:1024", "192.0.2.2:80"],
    &["--help"],
];

/// How a command ended that writes to this, and what it said on standard error.
fn writing_to(mut command: Command, stdout: impl Into<Stdio>) -> Result<(Option<i32>, String)> {
    let output = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

#[test]
fn a_reader_that_goes_away_is_no_failure() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    for words in COMMANDS {
        // It is gone before anything is written.
        let (reader, writer) = io::pipe()?;
        drop(reader);
        let ended = writing_to(portdemux.command(words), writer)?;
        assert_eq!(ended, (Some(0), String::new()), "{words:?}");
    }
    Ok(())
}

#[test]
fn a_reader_that_wants_one_line_gets_it_and_no_message() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = busy(&lab)?;
    // More than a pipe holds.
    let ports: Vec<u16> = (10_000..14_000).collect();
    for ports in ports.chunks(100) {
        probe.passing(ports)?;
    }
    let text = portdemux.ok(&["stats", "--all"])?.stdout;
    ensure!(text.len() > 1 << 17, "{} bytes", text.len());
    let script = "{ \"$0\" stats --all \"$@\"; echo \"ended with $?\" >&2; } | head -1";
    let binary = cli::binary()?.display().to_string();
    let words = ["sh", "-c", script, &binary];
    let output = run::run(portdemux.command_through::<&str>(&words, &[]))?;
    assert_eq!(output.stderr, "ended with 0\n");
    assert_eq!(output.stdout.lines().count(), 1);
    ensure!(output.stdout.starts_with("PORT "), "{}", output.stdout);
    Ok(())
}

#[test]
fn a_full_disk_is_a_failure() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _): (Portdemux, _) = busy(&lab)?;
    for words in COMMANDS {
        let full = File::options().write(true).open("/dev/full")?;
        ensure!((&full).write_all(b"x").is_err(), "it is not full");
        let ended = writing_to(portdemux.command(words), full)?;
        let said = "error: write standard output: No space left on device (os error 28)\n";
        assert_eq!(ended, (Some(1), said.to_owned()), "{words:?}");
    }
    Ok(())
}

/// As when the command before in a pipe has failed: what was denied stays denied.
#[test]
fn a_writer_that_writes_nothing_changes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = portdemux.ok(&["export"])?.stdout;
    ensure!(!before.is_empty());
    // Standard input has nothing.
    let (ended, said) = writing_to(portdemux.command(&["apply", "-"]), Stdio::null())?;
    ensure!(
        ended == Some(1) && said.contains("there is nothing in standard input"),
        "{said}"
    );
    assert_eq!(portdemux.ok(&["export"])?.stdout, before);
    Ok(())
}
