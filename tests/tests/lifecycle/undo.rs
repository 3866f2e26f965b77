//! Changes on trial that are undone although something is in the way.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::UdpSocket,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    probe::Probe,
    require,
    wait::{PATIENCE, wait_until},
};
use serde_json::json;

use crate::{
    bed::{self, Rules},
    trial::{amend, apply_for, long_ago},
};

/// A small disk in the place of a directory. On drop it is taken away.
struct SmallDisk<'p>(&'p Path);

impl<'p> SmallDisk<'p> {
    fn on(directory: &'p Path) -> Result<Self> {
        mount(
            Some("tmpfs"),
            directory,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=64k"),
        )
        .context("mount a tmpfs")?;
        Ok(Self(directory))
    }

    /// Leaves no room on it.
    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.0.join("ballast"))?;
        let error = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        ensure!(error.kind() == io::ErrorKind::StorageFull, "{error}");
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("ballast"))?)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _: nix::Result<()> = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

/// The record of the text that is put back.
fn record_of(portdemux: &Portdemux, text: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(portdemux.state().join("default"))? {
        let path = entry?.path();
        let kept = fs::read_to_string(&path).unwrap_or_default();
        if path.extension().is_some_and(|ending| ending == "toml") && kept.ends_with(text) {
            return Ok(path);
        }
    }
    anyhow::bail!("no record of {text}")
}

fn wait_for_the_old_rules(portdemux: &Portdemux) -> Result<()> {
    wait_until("the old rules", PATIENCE, || {
        Ok(portdemux.ok(&["export"])?.stdout == Rules::Old.text())
    })
}

#[test]
fn a_full_disk_keeps_no_change_from_being_undone() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let disk = SmallDisk::on(portdemux.state())?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;

    // By the guardian.
    portdemux.ok(&apply_for(&portdemux, "2s")?)?;
    disk.fill()?;
    wait_for_the_old_rules(&portdemux)?;
    portdemux.wait_for_no_guardian()?;
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::Old, 3));
    let status = portdemux.json(&["status"])?;
    ensure!(
        status["pending"].is_null() && status["undone"] == 2,
        "{status}"
    );

    // What has to be written cannot be, and then nothing is changed.
    // What was undone takes some room until something else is changed.
    disk.clear()?;
    portdemux.ok(&["add", "9/sctp"])?;
    portdemux.ok(&["remove", "9/sctp"])?;
    disk.fill()?;
    let add = portdemux.fails(1, &["add", "9/sctp"])?.stderr;
    ensure!(add.contains("No space left on device"), "{add}");
    let apply = apply_words(&portdemux)?;
    portdemux.fails(1, &apply)?;
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::Old, 5));
    portdemux.wait_for_no_guardian()?;
    disk.clear()?;

    // By hand.
    portdemux.ok(&apply_for(&portdemux, "1h")?)?;
    disk.fill()?;
    portdemux.ok(&["confirm", "--undo"])?;
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::Old, 7));
    portdemux.wait_for_no_guardian()?;
    disk.clear()?;

    // By the next command.
    portdemux.ok(&apply_for(&portdemux, "1h")?)?;
    portdemux.kill_guardians()?;
    amend(&portdemux, "deadline", long_ago())?;
    disk.fill()?;
    let attach = portdemux.ok(&["attach", INTERFACE])?.stderr;
    ensure!(
        attach.contains(
            "generation 8 was not confirmed in time: the rules before it are in force again, as generation 9"
        ),
        "{attach}"
    );
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::Old, 9));
    disk.clear()?;
    portdemux.ok(&["add", "9/sctp"])?;
    ensure!(portdemux.records()?.len() == 1);
    Ok(())
}

/// The words that put the new rules in force; their file was written when there was room.
fn apply_words(portdemux: &Portdemux) -> Result<[String; 4]> {
    let file = portdemux.state().join("new.toml");
    let file = file.to_str().context("a path")?;
    Ok(["apply", file, "--confirm", "1h"].map(str::to_owned))
}

#[test]
fn changes_of_sets_are_part_of_what_is_put_back() -> Result<()> {
    const SETS: &str = "[sets]\nbanned = [\"192.0.2.66\"]\n\n[[rule]]\nname = \"turns\"\nport = \"1001/udp\"\n\
                        deny = \"@banned\"\n";
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let disk = SmallDisk::on(portdemux.state())?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(SETS)?;
    portdemux.ok(&["set", "add", "banned", "192.0.2.1", "--expires", "1h"])?;
    let before = portdemux.ok(&["export"])?.stdout;
    ensure!(before.contains("\"192.0.2.1\", until"), "{before}");
    portdemux.ok(&apply_for(&portdemux, "2s")?)?;
    disk.fill()?;
    wait_until("the rules before", PATIENCE, || {
        Ok(portdemux.ok(&["export"])?.stdout == before)
    })?;
    let probe = Probe::new(&lab)?;
    ensure!(probe.passing(&[1001])?.is_empty(), "a ban was lost");
    Ok(())
}

#[test]
fn what_cannot_be_undone_is_tried_again_and_status_says_so() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    portdemux.ok(&apply_for(&portdemux, "1s")?)?;
    // The record is there and cannot be read.
    let record = record_of(&portdemux, Rules::Old.text())?;
    let aside = portdemux.state().join("aside");
    fs::rename(&record, &aside)?;
    fs::create_dir(&record)?;
    wait_until("two tries", PATIENCE, || {
        Ok(portdemux.json(&["status"])?["pending"]["tries"].as_u64() >= Some(2))
    })?;
    let waiting = &portdemux.json(&["status"])?["pending"];
    ensure!(
        waiting["overdue"] == true && waiting["generation"] == 2 && waiting["seconds_left"] == 0.0,
        "{waiting}"
    );
    let error = waiting["last_error"].as_str().context("last_error")?;
    ensure!(error.contains("Is a directory"), "{error}");
    let said = portdemux.ok(&["status"])?.stderr;
    ensure!(
        said.contains(
            "generation 2 was not confirmed in time and is still in force: undoing it failed"
        ),
        "{said}"
    );
    // Nor by another command, which changes nothing then.
    for words in [&["add", "9/sctp"][..], &["confirm"], &["confirm", "--undo"]] {
        let said = portdemux.fails(1, words)?.stderr;
        ensure!(said.contains("Is a directory"), "{words:?}: {said}");
    }
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::New, 2));

    fs::remove_dir(&record)?;
    fs::rename(&aside, &record)?;
    wait_for_the_old_rules(&portdemux)?;
    portdemux.wait_for_no_guardian()?;
    let status = portdemux.json(&["status"])?;
    ensure!(
        status["pending"].is_null() && status["undone"] == 2,
        "{status}"
    );
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::Old, 3));
    Ok(())
}

#[test]
fn where_nothing_is_left_to_return_to_a_whole_file_gets_out_of_it() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    portdemux.ok(&apply_for(&portdemux, "1h")?)?;
    fs::remove_file(record_of(&portdemux, Rules::Old.text())?)?;
    portdemux.kill_guardians()?;
    amend(&portdemux, "deadline", long_ago())?;
    let said = portdemux.fails(1, &["add", "9/sctp"])?.stderr;
    ensure!(
        said.contains("generation 2 waits to be confirmed"),
        "{said}"
    );
    for words in [&["confirm"][..], &["confirm", "--undo"]] {
        let said = portdemux.fails(1, words)?.stderr;
        ensure!(
            said.contains("the text of the rules before is lost (")
                && said.contains("portdemux apply FILE"),
            "{words:?}: {said}"
        );
    }
    ensure!(portdemux.json(&["status"])?["pending"]["overdue"] == true);
    Rules::Old.apply(&portdemux)?;
    ensure!(bed::in_force(&portdemux, &probe)? == (Rules::Old, 3));
    let status = portdemux.json(&["status"])?;
    ensure!(
        status["pending"].is_null() && status["undone"].is_null(),
        "{status}"
    );
    Ok(())
}

#[test]
fn what_the_rules_before_name_may_be_gone_when_they_return() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    lab.server.ip(&[
        "link", "add", "gone0", "type", "veth", "peer", "name", "gone1",
    ])?;
    let before = "[[rule]]\nname = \"out\"\nport = \"1001/udp\"\nto = \"interface:gone0\"\n\n[[rule]]\nname = \
                  \"in\"\nport = \"1002/tcp\"\nto = \"socket:127.0.0.1:8080\"\n";
    portdemux.apply(before)?;
    let other = "[[rule]]\nname = \"in\"\nport = \"1002/tcp\"\nto = \"socket:127.0.0.1:8081\"\n";
    let file = portdemux.rules_file(other)?.display().to_string();
    portdemux.ok(&["apply", &file, "--confirm", "1h"])?;
    lab.server.ip(&["link", "delete", "gone0"])?;
    // Typed where the sockets are not.
    let undo = portdemux.command_in(&lab.client, &["confirm", "--undo"]);
    let undone = portdemux_tests::run::run(undo)?.success()?;
    ensure!(
        undone.stderr.contains("are in another network namespace"),
        "{}",
        undone.stderr
    );
    ensure!(portdemux.ok(&["export"])?.stdout == before);
    let destinations = &portdemux.json(&["status"])?["destinations"];
    ensure!(destinations[0]["state"] == "missing", "{destinations}");
    ensure!(portdemux.json(&["status"])?["pending"] == json!(null));
    Ok(())
}

#[test]
fn a_rule_returns_whose_process_has_ended_meanwhile() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let before =
        "[[rule]]\nname = \"in\"\nport = \"1001/udp\"\nto = \"socket:echo\"\nfallback = \"drop\"\n";
    let other = "[[rule]]\nname = \"in\"\nport = \"1001/udp\"\n";
    for by_hand in [true, false] {
        // To the kernel a process that ends is one that closes its sockets.
        let socket = lab.server.enter(|| Ok(UdpSocket::bind("127.0.0.1:0")?))?;
        let (pid, fd) = (std::process::id(), socket.as_raw_fd());
        let words = [
            "socket",
            "add",
            "echo",
            "--pid",
            &pid.to_string(),
            "--fd",
            &fd.to_string(),
        ];
        portdemux.ok(&words)?;
        portdemux.apply(before)?;
        let file = portdemux.rules_file(other)?.display().to_string();
        portdemux.ok(&[
            "apply",
            &file,
            "--confirm",
            if by_hand { "1h" } else { "2s" },
        ])?;
        drop(socket);
        if by_hand {
            portdemux.ok(&["confirm", "--undo"])?;
        }
        wait_until("the rules before", PATIENCE, || {
            Ok(portdemux.ok(&["export"])?.stdout == before)
        })?;
        portdemux.wait_for_no_guardian()?;
        let status = portdemux.json(&["status"])?;
        ensure!(status["pending"].is_null(), "{status}");
        // What comes for it meets the fallback, as of any rule whose socket is not there.
        Probe::new(&lab)?.passing(&[1001])?;
        let dropped = portdemux.stats()?.rule("in")?.dropped.packets;
        ensure!(dropped > 0, "{by_hand}");
    }
    Ok(())
}
