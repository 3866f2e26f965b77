//! `attach --wait`: interfaces that come later, and a binary that is replaced meanwhile.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    require,
    run::Running,
    wait::{PATIENCE, wait_for, wait_until},
};

use crate::bed;

const LATE: &str = "late0";
const RULES: &str = "[attach]\ninterface = [\"wire0\", \"late0\"]\n\n[[rule]]\nname = \"no\"\nport = \"7/udp\"\nto = \"drop\"\n";

/// What would be the service manager.
pub(crate) struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, path })
    }

    pub(crate) fn hears(&self) -> Result<String> {
        let mut message = [0; 512];
        let length = self.socket.recv(&mut message).context("nothing was said")?;
        Ok(String::from_utf8(message[..length].into())?)
    }

    pub(crate) fn start(&self, mut command: Command) -> Result<Running> {
        command.env("NOTIFY_SOCKET", &self.path);
        Running::spawn(command)
    }
}

fn is_attached(portdemux: &Portdemux, name: &str) -> Result<bool> {
    let status = portdemux.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().context("interfaces")?;
    let mut named = interfaces
        .iter()
        .filter(|interface| interface["name"] == name);
    Ok(named.any(|interface| interface["state"] == "attached"))
}

fn add_late(lab: &Lab) -> Result<()> {
    lab.server
        .ip(&["link", "add", LATE, "type", "veth", "peer", "name", "late1"])?;
    Ok(())
}

#[test]
fn interfaces_are_taken_as_they_come_and_what_was_detached_by_hand_is_left_alone() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let manager = Manager::new(portdemux.state())?;
    let file = portdemux.rules_file(RULES)?.display().to_string();
    let waiting = manager.start(portdemux.command(&["attach", "--rules", &file, "--wait"]))?;
    assert_eq!(manager.hears()?, "READY=1\nSTATUS=waiting for late0");
    ensure!(is_attached(&portdemux, INTERFACE)? && !is_attached(&portdemux, LATE)?);

    for _ in 0..2 {
        add_late(&lab)?;
        assert_eq!(
            manager.hears()?,
            "READY=1\nSTATUS=attached to every interface"
        );
        ensure!(bed::program_on(&lab, LATE)?.is_some());
        lab.server.ip(&["link", "delete", LATE])?;
        assert_eq!(manager.hears()?, "READY=1\nSTATUS=waiting for late0");
    }
    portdemux.ok(&["detach", INTERFACE])?;
    add_late(&lab)?;
    assert_eq!(
        manager.hears()?,
        "READY=1\nSTATUS=attached to every interface"
    );
    ensure!(
        bed::program_on(&lab, INTERFACE)?.is_none(),
        "who detached it meant it"
    );

    // The list is that of the rules in force.
    portdemux.apply("[attach]\ninterface = \"lo\"\n")?;
    wait_until("the new list", PATIENCE, || is_attached(&portdemux, "lo"))?;
    ensure!(
        is_attached(&portdemux, LATE)?,
        "nothing is detached by itself"
    );

    waiting.signal(Signal::SIGTERM)?;
    waiting.wait(PATIENCE)?;
    ensure!(is_attached(&portdemux, LATE)? && is_attached(&portdemux, "lo")?);
    Ok(())
}

#[test]
fn waiting_ends_with_the_instance_and_with_an_interface_that_cannot_be_attached() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let manager = Manager::new(portdemux.state())?;
    let wait = ["attach", INTERFACE, LATE, "--wait"];
    let waiting = manager.start(portdemux.command(&wait))?;
    manager.hears()?;
    portdemux.ok(&["detach", "--all"])?;
    waiting.wait(PATIENCE)?.success()?;

    let mut other = Portdemux::new(&lab.server)?;
    other.set_instance("other");
    other.ok(&["attach", INTERFACE])?;
    add_late(&lab)?;
    let refused = portdemux.fails(1, &wait)?;
    ensure!(
        refused
            .stderr
            .contains("error: wire0 has another portdemux instance's XDP program"),
        "{}",
        refused.stderr
    );
    ensure!(is_attached(&portdemux, LATE)?, "the others are attached");
    Ok(())
}

#[test]
fn a_replaced_binary_goes_on_with_the_rules_in_force() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let manager = Manager::new(portdemux.state())?;
    let (binary, newer) = (
        portdemux.state().join("portdemux"),
        portdemux.state().join("newer"),
    );
    for copy in [&binary, &newer] {
        fs::copy(cli::binary()?, copy)?;
    }
    let file = portdemux.rules_file(RULES)?.display().to_string();
    let arguments = ["attach", "--rules", &file, "--wait"];
    let words = [binary.display().to_string()];
    let command = portdemux.command_through(&words, &arguments.map(str::to_owned));
    let waiting = manager.start(command)?;
    manager.hears()?;
    portdemux.ok(&["add", "9/udp", "--name", "added"])?;
    let program = bed::program_on(&lab, INTERFACE)?;

    fs::rename(&newer, &binary)?;
    assert_eq!(manager.hears()?, "READY=1\nSTATUS=waiting for late0");
    let now = wait_for("a program of the new binary", PATIENCE, || {
        let now = bed::program_on(&lab, INTERFACE)?;
        Ok(now.filter(|_| now != program))
    })?;
    ensure!(Some(now) != program);
    let rules = portdemux.ok(&["export"])?.stdout;
    ensure!(rules.contains("name = \"added\""), "{rules}");
    add_late(&lab)?;
    assert_eq!(
        manager.hears()?,
        "READY=1\nSTATUS=attached to every interface"
    );
    portdemux.ok(&["detach", "--all"])?;
    waiting.wait(PATIENCE)?.success()?;
    Ok(())
}
