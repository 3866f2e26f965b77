//! What others than root see.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    require::Need,
    run::{self, Output},
    server::{Server, Socket},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bed::{self, Wish};

/// The command, where everyone may run it, as long as the directory is there.
fn copied() -> Result<(TempDir, String)> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let binary = directory.path().join("portdemux");
    // By another process: a child that another thread starts meanwhile would hold the copy open for
    // writing, and what is open for writing cannot be run.
    let mut copy = Command::new("cp");
    copy.arg(cli::binary()?).arg(&binary);
    run::run(copy)?.success()?;
    Ok((directory, binary.display().to_string()))
}

#[test]
fn an_ordinary_user_sees_less_and_is_told_why() -> Result<()> {
    if !bed::have(&[Need::Tool("setpriv")]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let _root = Server::tcp_echo(&lab.server, 80)?;
    let _ours = bed::listening(&lab.server, "127.0.0.1:81", Wish::default(), 4)?;
    let mut command = lab.server.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "socat"]);
    command.args(["UDP4-RECVFROM:5000,fork", "EXEC:cat"]);
    let _own = Server::start(command, Socket::Udp, 5000, None)?;
    let (_directory, binary) = copied()?;
    let user = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let run = |privileges: &[&str], command: &[&str]| -> Result<Output> {
        let words = [&user[..], privileges, &[&binary]].concat();
        run::run(portdemux.command_through(&words, command))?.success()
    };
    let document = |privileges: &[&str]| -> Result<(Value, String)> {
        let output = run(privileges, &["listeners", "--json"])?;
        Ok((serde_json::from_str(&output.stdout)?, output.stderr))
    };
    let whole = portdemux.json(&["listeners"])?;
    assert_eq!(whole["listeners"].as_array().map(Vec::len), Some(3));

    let (seen, told) = document(&[])?;
    assert_eq!(
        (&seen["loaded"], &seen["generation"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(seen["processes_known"], false);
    let rows = seen["listeners"].as_array().cloned().unwrap_or_default();
    assert_eq!(rows.len(), 3);
    for row in rows {
        ensure!(row["reach"].is_null(), "{row}");
        let known = row["processes"].as_array().map_or(0, Vec::len);
        assert_eq!(known, usize::from(row["port"] == 5000), "{row}");
        assert_eq!(
            row["uid"],
            if row["port"] == 5000 { 65_534 } else { 0 },
            "{row}"
        );
    }
    ensure!(
        told.contains(
            "warning: the processes of 2 sockets are not known: this one lacks CAP_SYS_PTRACE and \
             CAP_DAC_READ_SEARCH\n   help: run it as root\n"
        ),
        "{told}"
    );
    let why = "warning: how the rules reach these sockets is not known: ";
    ensure!(
        told.contains(why) && told.contains("Permission denied"),
        "{told}"
    );
    ensure!(
        told.contains("   help: run it as root, or let this user read the pins\n"),
        "{told}"
    );
    let table = run(&[], &["listeners"])?.stdout;
    ensure!(
        table.lines().skip(1).all(|line| line.ends_with("  –")),
        "{table}"
    );

    // The capabilities that are named are those that it takes, and each is needed.
    for (capabilities, lacking) in [
        ("+sys_ptrace,+dac_read_search", None),
        ("+sys_ptrace", Some("CAP_DAC_READ_SEARCH")),
        ("+dac_read_search", Some("CAP_SYS_PTRACE")),
    ] {
        let inherited = format!("--inh-caps={capabilities}");
        let ambient = format!("--ambient-caps={capabilities}");
        let (seen, told) = document(&[&inherited, &ambient])?;
        let said = lacking.map(|lacking| format!("this one lacks {lacking}\n"));
        ensure!(
            said.is_none_or(|said| told.contains(&said)),
            "{capabilities}: {told}"
        );
        assert_eq!(
            told.contains("processes of"),
            lacking.is_some(),
            "{capabilities}: {told}"
        );
        let rows = seen["listeners"].as_array().into_iter().flatten();
        let with_process = rows.filter(|row| row["processes"] != json!([])).count();
        assert_eq!(
            with_process,
            if lacking.is_none() { 3 } else { 1 },
            "{capabilities}"
        );
    }
    Ok(())
}
