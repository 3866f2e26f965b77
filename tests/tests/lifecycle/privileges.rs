//! What is said to those who may not, and where there is no bpffs.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
};

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    probe::Probe,
    require::{self, Need},
    run::{self, Output},
};

use crate::bed::{self, Rules};

/// `nobody` on every distribution.
const NOBODY: &str = "65534";

#[test]
fn a_missing_capability_is_named_and_nothing_changes() -> Result<()> {
    if !require::have(&[require::WIRE, &[Need::Tool("setpriv")]].concat()) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    let new = Rules::New.file(&portdemux)?.display().to_string();
    // CAP_SYS_ADMIN stands for what was split off it.
    for (dropped, missing) in [
        ("-all", "lacks CAP_BPF and CAP_NET_ADMIN and CAP_PERFMON"),
        ("-bpf,-sys_admin", "lacks CAP_BPF"),
        ("-net_admin", "lacks CAP_NET_ADMIN"),
        ("-perfmon,-sys_admin", "lacks CAP_PERFMON"),
        ("-bpf,-perfmon,-sys_admin", "lacks CAP_BPF and CAP_PERFMON"),
    ] {
        for command in [
            &["attach", INTERFACE][..],
            &["detach", INTERFACE],
            &["detach", "--all"],
            &["apply", &new],
            &["add", "9/sctp"],
            &["remove", "turns"],
        ] {
            let output = without(&portdemux, dropped, command)?;
            ensure!(output.code() == Some(1), "{command:?}: {:?}", output.code());
            let error = &output.stderr;
            ensure!(
                error.contains(&format!("{missing}\n")),
                "{dropped}: {error}"
            );
            ensure!(error.contains(" help: run it as root"), "{error}");
        }
    }
    bed::holds(&lab, &portdemux, &probe, Rules::Old)?;
    // Those it needs are enough.
    let output = without(
        &portdemux,
        "-all,+bpf,+net_admin,+perfmon",
        &["attach", INTERFACE],
    )?;
    ensure!(output.code() == Some(0), "{}", output.stderr);
    let output = without(
        &portdemux,
        "-all,+bpf,+net_admin,+perfmon",
        &["apply", &new],
    )?;
    ensure!(output.code() == Some(0), "{}", output.stderr);
    bed::holds(&lab, &portdemux, &probe, Rules::New)
}

/// Runs a command as root without some capabilities.
fn without(portdemux: &Portdemux, capabilities: &str, command: &[&str]) -> Result<Output> {
    let binary = cli::binary()?.display().to_string();
    let bounds = format!("--bounding-set={capabilities}");
    let inherited = format!("--inh-caps={capabilities}");
    let words = ["setpriv", &bounds, &inherited, &binary];
    run::run(portdemux.command_through(&words, command))
}

#[test]
fn an_ordinary_user_is_told_what_it_takes_to_read() -> Result<()> {
    if !require::have(&[require::WIRE, &[Need::Tool("setpriv")]].concat()) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    // The command, where everyone may run it.
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let binary = directory.path().join("portdemux");
    // By another process: a child that another thread starts meanwhile would hold the copy open for
    // writing, and what is open for writing cannot be run.
    let mut copy = std::process::Command::new("cp");
    copy.arg(cli::binary()?).arg(&binary);
    run::run(copy)?.success()?;
    let user = format!("--reuid={NOBODY}");
    let group = format!("--regid={NOBODY}");
    let binary = binary.display().to_string();
    let words = ["setpriv", &user, &group, "--clear-groups", &binary];
    let as_user = |command: &[&str]| run::run(portdemux.command_through(&words, command));
    let open = |paths: &[PathBuf]| -> Result<()> {
        for path in paths {
            fs::set_permissions(path, Permissions::from_mode(0o755))?;
        }
        Ok(())
    };

    // Step by step: the bpffs is closed, then the pins are.
    let pins = portdemux.pins();
    for opened in [
        vec![],
        vec![portdemux.bpffs().to_owned(), portdemux.state().to_owned()],
    ] {
        open(&opened)?;
        for noun in ["status", "stats", "rules", "export"] {
            let output = as_user(&[noun])?;
            ensure!(output.code() == Some(1), "{noun}: {:?}", output.code());
            let error = &output.stderr;
            ensure!(error.contains("Permission denied"), "{noun}: {error}");
            ensure!(error.contains(" help: run it as root"), "{noun}: {error}");
            ensure!(!error.contains("detach"), "{noun}: {error}");
        }
    }
    ensure!(pins.exists());
    for verb in [
        &["attach", INTERFACE][..],
        &["add", "9/sctp"],
        &["detach", "--all"],
    ] {
        let output = as_user(verb)?;
        ensure!(output.code() == Some(1), "{verb:?}");
        ensure!(output.stderr.contains("lacks CAP_BPF"), "{}", output.stderr);
    }

    // What needs nothing is refused to nobody.
    let file = directory.path().join("rules.toml");
    fs::write(&file, Rules::Old.text())?;
    let file = file.display().to_string();
    let packet = [
        "udp",
        "198.51.100.7:40000",
        "192.0.2.2:1002",
        "--rules",
        &file,
    ];
    let output = as_user(&[&["explain"][..], &packet].concat())?;
    ensure!(output.code() == Some(0), "{}", output.stderr);
    ensure!(output.stdout.contains("rule_drop"), "{}", output.stdout);
    Ok(())
}

#[test]
fn an_ordinary_user_has_instances_of_its_own_with_what_the_help_says() -> Result<()> {
    let needs = [
        require::WIRE,
        &[Need::Tool("setpriv"), Need::Tool("setcap")],
    ]
    .concat();
    if !require::have(&needs) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let binary = directory.path().join("portdemux").display().to_string();
    // By another process: what another thread's child holds open for writing cannot be run.
    for words in [
        &["cp", &cli::binary()?.display().to_string(), &binary][..],
        &["setcap", "cap_bpf,cap_net_admin,cap_perfmon+ep", &binary],
    ] {
        let mut command = std::process::Command::new(words[0]);
        command.args(&words[1..]);
        run::run(command)?.success()?;
    }
    let own = [portdemux.bpffs(), portdemux.state()].map(|above| above.join("own"));
    for (path, above) in own.iter().zip([portdemux.bpffs(), portdemux.state()]) {
        fs::create_dir(path)?;
        chown(path, Some(65534), Some(65534))?;
        fs::set_permissions(above, Permissions::from_mode(0o711))?;
    }
    let user = format!("--reuid={NOBODY}");
    let group = format!("--regid={NOBODY}");
    let words = ["setpriv", &user, &group, "--clear-groups", &binary];
    let [bpffs, state] = own.map(|path| path.display().to_string());
    let as_user = |command: &[&str]| {
        let paths = ["--bpffs", &bpffs, "--state-dir", &state];
        run::run(portdemux.command_through(&words, &[command, &paths].concat()))
    };

    as_user(&["attach", INTERFACE])?.success()?;
    as_user(&["add", "1001/udp", "--to", "drop"])?.success()?;
    ensure!(!probe.passing(&[1001])?.contains(&1001));
    as_user(&["remove", "1001/udp", "--confirm", "1h"])?.success()?;
    ensure!(probe.passing(&[1001])?.contains(&1001));
    as_user(&["confirm", "--undo"])?.success()?;
    ensure!(!probe.passing(&[1001])?.contains(&1001));
    for noun in ["status", "stats", "rules", "export"] {
        as_user(&[noun])?.success()?;
    }
    as_user(&["detach", "--all"])?.success()?;
    ensure!(bed::program_on(&lab, INTERFACE)?.is_none());

    // With the directories that are root's it says what is missing.
    let output = run::run(portdemux.command_through(&words, &["attach", INTERFACE]))?;
    ensure!(output.code() == Some(1), "{:?}", output.code());
    for said in [
        "Permission denied",
        "PORTDEMUX_BPFFS",
        "PORTDEMUX_STATE_DIR",
    ] {
        ensure!(output.stderr.contains(said), "{}", output.stderr);
    }
    Ok(())
}

#[test]
fn a_missing_bpffs_is_said_with_the_command_that_mounts_it() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let file = Rules::Old.file(&portdemux)?.display().to_string();
    let plain = tempfile::tempdir()?;
    let nowhere = plain.path().join("nowhere");
    for (bpffs, said) in [
        (plain.path(), "no bpffs is mounted at"),
        (&nowhere, "look for a bpffs at"),
    ] {
        let bpffs = bpffs.display().to_string();
        for command in [
            &["attach", INTERFACE][..],
            &["apply", &file],
            &["add", "1/tcp"],
            &["remove", "1/tcp"],
            &["status"],
            &["stats"],
            &["rules"],
            &["export"],
        ] {
            let words = [command, &["--bpffs", &bpffs]].concat();
            let error = portdemux.fails(1, &words)?.stderr;
            ensure!(
                error.contains(&format!("{said} {bpffs}")),
                "{command:?}: {error}"
            );
            let help = format!(" help: mount -t bpf bpf {bpffs}");
            ensure!(error.contains(&help), "{command:?}: {error}");
        }
    }
    ensure!(bed::program_on(&lab, INTERFACE)?.is_none());
    ensure!(
        fs::read_dir(plain.path())?.next().is_none(),
        "something was made there"
    );
    Ok(())
}
