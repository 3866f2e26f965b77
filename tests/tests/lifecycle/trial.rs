//! Changes on trial: undone by themselves unless somebody confirms them.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    probe::Probe,
    require::{self, Need},
    run::Running,
    server::Sshd,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

use crate::bed::{self, Rules};

/// The words that put the new rules in force for a time.
pub(crate) fn apply_for(portdemux: &Portdemux, time: &str) -> Result<[OsString; 4]> {
    let file = Rules::New.file(portdemux)?.into_os_string();
    Ok(["apply".into(), file, "--confirm".into(), time.into()])
}

fn pending_file(portdemux: &Portdemux) -> PathBuf {
    portdemux.state().join("default/pending.json")
}

/// Changes a value of what is on record about the change that waits.
pub(crate) fn amend(portdemux: &Portdemux, key: &str, value: Value) -> Result<()> {
    let path = pending_file(portdemux);
    let mut pending: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    ensure!(!pending[key].is_null(), "{pending}");
    pending[key] = value;
    Ok(fs::write(path, pending.to_string())?)
}

/// A time that is over.
pub(crate) fn long_ago() -> Value {
    json!({"secs": 0, "nanos": 1})
}

/// An instance with the old rules in force.
pub(crate) fn loaded(lab: &Lab) -> Result<(Portdemux<'_>, Probe)> {
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    Ok((portdemux, probe))
}

fn wait_for_the_old_rules(portdemux: &Portdemux) -> Result<()> {
    wait_until("the old rules", PATIENCE, || {
        Ok(portdemux.ok(&["export"])?.stdout == Rules::Old.text())
    })
}

#[test]
fn a_change_that_nobody_confirms_is_undone() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = loaded(&lab)?;
    let said = portdemux.ok(&apply_for(&portdemux, "1s")?)?.stdout;
    ensure!(
        said.ends_with("undone after 1s, unless: portdemux confirm\n"),
        "{said}"
    );
    wait_for_the_old_rules(&portdemux)?;
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::Old, 3));
    portdemux.wait_for_no_guardian()?;
    let status = portdemux.json(&["status"])?;
    ensure!(
        status["pending"].is_null() && status["undone"] == 2,
        "{status}"
    );
    ensure!(
        status["source"] == json!(portdemux.state().join("old.toml")),
        "{status}"
    );
    let late = portdemux.fails(1, &["confirm"])?.stderr;
    assert_eq!(
        late,
        "error: generation 2 was not confirmed in time: the rules before it are in force again, as \
         generation 3\n help: apply it again, with more time\n"
    );
    // The next change is none of its business.
    portdemux.ok(&["add", "9/sctp"])?;
    ensure!(portdemux.json(&["status"])?["undone"].is_null());
    ensure!(portdemux.records()?.len() == 1);
    Ok(())
}

#[test]
fn a_confirmed_change_stays() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = loaded(&lab)?;
    portdemux.ok(&apply_for(&portdemux, "1h")?)?;
    ensure!(portdemux.guardians()?.len() == 1);
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::New, 2));
    let pending = &portdemux.json(&["status"])?["pending"];
    ensure!(pending["generation"] == 2, "{pending}");
    let left = pending["seconds_left"].as_f64().context("seconds_left")?;
    ensure!(left > 0.0 && left <= 3600.0, "{left}");

    let confirmed = portdemux.ok(&["confirm"])?.stdout;
    assert_eq!(confirmed, "generation 2 is confirmed: it stays\n");
    portdemux.wait_for_no_guardian()?;
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::New, 2));
    ensure!(portdemux.records()?.len() == 1);
    let again = portdemux.fails(1, &["confirm"])?.stderr;
    ensure!(
        again.starts_with("error: no change waits to be confirmed\n"),
        "{again}"
    );
    Ok(())
}

#[test]
fn a_change_can_be_undone_before_its_time() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = loaded(&lab)?;
    for change in [&["add", "9/sctp"][..], &["remove", "turns"]] {
        let (_, before) = bed::in_force(&portdemux, &probe)?;
        portdemux.ok(&[change, &["--confirm", "1h"]].concat())?;
        portdemux.ok(&["confirm", "--undo"])?;
        ensure!(bed::in_force(&portdemux, &probe)? == (Rules::Old, before + 2));
        portdemux.wait_for_no_guardian()?;
        ensure!(portdemux.records()?.len() == 1);
    }
    // The first rules of all can be on trial, too.
    portdemux.ok(&["detach", "--all"])?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.ok(&apply_for(&portdemux, "1h")?)?;
    portdemux.ok(&["confirm", "--undo"])?;
    let exported = portdemux.ok(&["export"])?.stdout;
    ensure!(exported.starts_with("# No rules"), "{exported}");
    ensure!(portdemux.json(&["rules"])?["rules"] == json!([]));
    Ok(())
}

#[test]
fn while_a_change_waits_no_other_is_made() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = loaded(&lab)?;
    portdemux.ok(&apply_for(&portdemux, "1h")?)?;
    let old = Rules::Old.file(&portdemux)?.display().to_string();
    for words in [
        &["add", "9/sctp"][..],
        &["add", "9/sctp", "--confirm", "60s"],
        &["remove", "turns"],
        &["apply", &old],
        &["attach", INTERFACE, "--rules", &old],
    ] {
        let said = portdemux.fails(1, words)?.stderr;
        ensure!(
            said.starts_with("error: generation 2 waits to be confirmed (")
                && said.ends_with(
                    " left)\n help: portdemux confirm keeps it, portdemux confirm --undo returns to the \
                     rules before; nothing was changed\n"
                ),
            "{words:?}: {said}"
        );
    }
    // What is attached is another matter.
    portdemux.ok(&["attach", INTERFACE])?;
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::New, 2));
    // Of several who confirm, one does.
    let confirm = || Running::spawn(portdemux.command(&["confirm"]));
    let (one, other) = (confirm()?, confirm()?);
    let (one, other) = (one.wait(PATIENCE)?.code(), other.wait(PATIENCE)?.code());
    ensure!(
        matches!((one, other), (Some(0), Some(1)) | (Some(1), Some(0))),
        "{one:?}, {other:?}"
    );
    Ok(())
}

#[test]
fn what_is_removed_meanwhile_leaves_no_guardian_and_no_file() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _probe) = loaded(&lab)?;
    portdemux.ok(&apply_for(&portdemux, "1h")?)?;
    portdemux.ok(&["detach", "--all"])?;
    portdemux.wait_for_no_guardian()?;
    ensure!(!portdemux.state().join("default").exists());

    // A new instance has nothing to do with it, not even if the file of the old one is there.
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    portdemux.ok(&apply_for(&portdemux, "1h")?)?;
    let kept = fs::read(pending_file(&portdemux))?;
    portdemux.ok(&["detach", "--all"])?;
    fs::create_dir_all(portdemux.state().join("default"))?;
    fs::write(pending_file(&portdemux), kept)?;
    portdemux.ok(&["attach", INTERFACE])?;
    ensure!(!pending_file(&portdemux).exists());
    Ok(())
}

#[test]
fn the_rules_return_although_the_program_was_taken_off() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _probe) = loaded(&lab)?;
    portdemux.ok(&apply_for(&portdemux, "1s")?)?;
    portdemux.ok(&["detach", INTERFACE])?;
    wait_for_the_old_rules(&portdemux)?;
    portdemux.wait_for_no_guardian()
}

#[test]
fn what_waited_before_a_reboot_means_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = loaded(&lab)?;
    portdemux.ok(&apply_for(&portdemux, "1h")?)?;
    portdemux.kill_guardians()?;
    amend(&portdemux, "boot", "another".into())?;
    amend(&portdemux, "deadline", long_ago())?;
    ensure!(portdemux.json(&["status"])?["pending"].is_null());
    portdemux.fails(1, &["confirm"])?;
    ensure!(!pending_file(&portdemux).exists());
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::New, 2));
    Ok(())
}

#[test]
fn the_guardian_does_not_end_with_the_login() -> Result<()> {
    /// Runs the command in a control group as logind makes them; that can be removed only when it is
    /// empty.
    const SCRIPT: &str = "\
        mount -t cgroup2 none /sys/fs/cgroup || exit 77; \
        group=/sys/fs/cgroup/portdemux-test-$$; login=$group/session-1.scope; \
        mkdir -p $login && echo $$ >$login/cgroup.procs || exit 77; \
        \"$0\" \"$@\"; \
        echo $$ >/sys/fs/cgroup/cgroup.procs; \
        rmdir $login $group";
    if !require::have(&[require::WIRE, &[Need::Tool("unshare")]].concat()) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _probe) = loaded(&lab)?;
    let binary = cli::binary()?.display().to_string();
    let words = ["unshare", "--mount", "sh", "-c", SCRIPT, &binary].map(OsString::from);
    let command = portdemux.command_through(&words, &apply_for(&portdemux, "1h")?);
    Running::spawn(command)?.wait(PATIENCE)?.success()?;
    ensure!(portdemux.guardians()?.len() == 1);
    portdemux.ok(&["confirm", "--undo"])?;
    portdemux.wait_for_no_guardian()
}

#[test]
fn a_session_that_is_cut_on_trial_goes_on_afterwards() -> Result<()> {
    let needs = [require::WIRE, &[Need::Tool("sshd"), Need::Tool("ssh")]].concat();
    if !require::have(&needs) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _probe) = loaded(&lab)?;
    let sshd = Sshd::new(&lab.server, 22)?;
    let remote = format!(
        "PORTDEMUX_BPFFS={} PORTDEMUX_STATE_DIR={} {} add 22/tcp --to drop --confirm 2s && echo back",
        portdemux.bpffs().display(),
        portdemux.state().display(),
        cli::binary()?.display()
    );
    let login = || sshd.login(&lab.client, "192.0.2.2", &remote);
    let session = Running::spawn(login())?;
    let output = session.wait(PATIENCE)?.success()?;
    ensure!(output.stdout.ends_with("back\n"), "{}", output.stdout);
    ensure!(
        output
            .stderr
            .starts_with("warning: this cuts the SSH session"),
        "{}",
        output.stderr
    );
    wait_for_the_old_rules(&portdemux)?;
    portdemux.wait_for_no_guardian()?;

    // It ends with the session no more than with the command.
    let session = Running::spawn(login())?;
    wait_until("the change", PATIENCE, || {
        Ok(portdemux.stats()?.generation()? == 4)
    })?;
    drop(session);
    ensure!(!Path::new(&pending_file(&portdemux)).exists() || portdemux.guardians()?.len() == 1);
    wait_for_the_old_rules(&portdemux)
}
