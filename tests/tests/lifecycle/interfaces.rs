//! Interfaces that go, come back and change their names; several of them; several instances.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames,
    lab::{INTERFACE, Lab},
    probe::Probe,
    raw::RawSocket,
    require,
    wait::{PATIENCE, wait_until},
};
use serde_json::Value;

use crate::bed::{self, PORTS, Rules};

/// A second wire, from the server to the client.
const SECOND: &str = "wire1";

fn add_second_wire(lab: &Lab) -> Result<()> {
    let client = lab.client.name();
    lab.server.ip(&[
        "link", "add", SECOND, "type", "veth", "peer", "name", SECOND, "netns", client,
    ])?;
    for namespace in [&lab.server, &lab.client] {
        // Without IPv6 it says nothing by itself.
        let setting = format!("/proc/sys/net/ipv6/conf/{SECOND}/disable_ipv6");
        namespace.enter(|| Ok(std::fs::write(&setting, "1")?))?;
        namespace.ip(&["link", "set", SECOND, "up"])?;
    }
    is_whole(lab, SECOND)
}

/// Waits until the kernel has noticed that both ends are up: until then a wire carries nothing.
fn is_whole(lab: &Lab, name: &str) -> Result<()> {
    wait_until("the wire to be whole", PATIENCE, || {
        let shown = lab.client.ip(&["link", "show", name])?.stdout;
        Ok(shown.contains("state UP"))
    })
}

fn interface(portdemux: &Portdemux, name: &str) -> Result<Value> {
    let status = portdemux.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().context("interfaces")?;
    let found = interfaces
        .iter()
        .find(|interface| interface["name"] == name);
    Ok(found
        .with_context(|| format!("no {name} in {status}"))?
        .clone())
}

#[test]
fn a_renamed_interface_keeps_its_program_and_is_found_under_its_new_name() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    ensure!(Probe::new(&lab)?.passing(&PORTS)? == Rules::Old.passing());
    for words in [["down"].as_slice(), &["name", "lan0"], &["up"]] {
        let name = if words == ["up"] { "lan0" } else { INTERFACE };
        lab.server.ip(&[&["link", "set", name], words].concat())?;
    }
    is_whole(&lab, INTERFACE)?;
    let probe = Probe::to(&lab, "lan0")?;
    ensure!(probe.passing(&PORTS)? == Rules::Old.passing());
    let known = interface(&portdemux, INTERFACE)?;
    ensure!(
        known["state"] == "attached" && known["renamed"] == "lan0",
        "{known}"
    );
    let status = portdemux.ok(&["status"])?;
    ensure!(status.stdout.contains("lan0"), "{}", status.stdout);
    ensure!(
        status.stderr.contains("lan0 was wire0"),
        "{}",
        status.stderr
    );
    // Attached again, it is the same interface with the same counters.
    let received = known["received"]["packets"].as_u64().context("packets")?;
    portdemux.ok(&["attach", "lan0"])?;
    let known = interface(&portdemux, "lan0")?;
    ensure!(known["renamed"].is_null(), "{known}");
    ensure!(known["received"]["packets"] == received, "{known}");
    portdemux.ok(&["detach", "lan0"])?;
    ensure!(probe.passing(&PORTS)?.len() == PORTS.len());
    Ok(())
}

#[test]
fn an_interface_that_vanishes_and_comes_back_is_reported() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    add_second_wire(&lab)?;
    portdemux.ok(&["attach", INTERFACE, SECOND])?;
    portdemux.apply("[[rule]]\nname = \"no\"\nport = \"7/udp\"\nto = \"drop\"\n")?;
    send(&lab, 7)?;
    counted(&portdemux, 1)?;

    lab.server.ip(&["link", "delete", SECOND])?;
    ensure!(interface(&portdemux, SECOND)?["state"] == "vanished");
    ensure!(interface(&portdemux, INTERFACE)?["state"] == "attached");
    let status = portdemux.ok(&["status"])?;
    ensure!(status.stderr.contains("wire1 is gone"), "{}", status.stderr);
    ensure!(
        interface(&portdemux, SECOND)?["dropped"]["packets"] == 1,
        "counters are kept"
    );
    for command in [
        &["stats"][..],
        &["rules"],
        &["add", "9/sctp"],
        &["remove", "9/sctp"],
    ] {
        portdemux.ok(command)?;
    }

    add_second_wire(&lab)?;
    ensure!(interface(&portdemux, SECOND)?["state"] == "returned");
    let status = portdemux.ok(&["status"])?;
    ensure!(status.stderr.contains("made again"), "{}", status.stderr);
    ensure!(
        status.stderr.contains("portdemux attach wire1"),
        "{}",
        status.stderr
    );
    portdemux.ok(&["attach", SECOND])?;
    ensure!(interface(&portdemux, SECOND)?["state"] == "attached");
    send(&lab, 7)?;
    counted(&portdemux, 2)?;
    ensure!(
        interface(&portdemux, SECOND)?["dropped"]["packets"] == 2,
        "one place, one counter"
    );

    // One that is gone for good can be taken off.
    lab.server.ip(&["link", "delete", SECOND])?;
    portdemux.ok(&["detach", SECOND])?;
    ensure!(interface(&portdemux, SECOND)?["state"] == "detached");
    Ok(())
}

/// Sends a datagram for a port over the second wire.
fn send(lab: &Lab, port: u16) -> Result<()> {
    let client = RawSocket::open(&lab.client, SECOND)?;
    client.send(&frames::ipv4(frames::udp(40_000, port)).frame().bytes())
}

fn counted(portdemux: &Portdemux, packets: u64) -> Result<()> {
    wait_until("the datagram to be counted", PATIENCE, || {
        Ok(portdemux.stats()?.port("7/udp")?.dropped.packets == packets)
    })
}

#[test]
fn detaching_one_of_two_interfaces_leaves_the_other_as_it_is() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    add_second_wire(&lab)?;
    portdemux.ok(&["attach", INTERFACE, SECOND])?;
    Rules::Old.apply(&portdemux)?;
    let detach = portdemux.ok(&["detach", SECOND])?;
    ensure!(detach.stdout == "wire1  detached\n", "{}", detach.stdout);
    ensure!(bed::program_on(&lab, SECOND)?.is_none());
    bed::holds(&lab, &portdemux, &probe, Rules::Old)?;

    let error = portdemux.fails(1, &["detach", SECOND])?.stderr;
    ensure!(error.contains("wire1 is not attached"), "{error}");
    // Of two names, one of which is wrong, neither is detached.
    portdemux.fails(1, &["detach", INTERFACE, SECOND])?;
    bed::holds(&lab, &portdemux, &probe, Rules::Old)?;

    let before = portdemux.stats()?;
    let detach = portdemux.ok(&["detach", INTERFACE])?;
    ensure!(
        detach.stdout.contains("Rules and counters are kept"),
        "{}",
        detach.stdout
    );
    ensure!(probe.passing(&PORTS)?.len() == PORTS.len());
    let after = portdemux.stats()?;
    ensure!(before.port("1001/udp")? == after.port("1001/udp")?);
    portdemux.ok(&["attach", INTERFACE])?;
    bed::holds(&lab, &portdemux, &probe, Rules::Old)?;
    ensure!(
        portdemux.stats()?.port("1001/udp")?.received.packets
            == before.port("1001/udp")?.received.packets + 1
    );
    Ok(())
}

#[test]
fn a_detach_has_happened_when_the_command_ends() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    for round in 0..20 {
        portdemux.ok(&["attach", INTERFACE])?;
        if round == 0 {
            Rules::Old.apply(&portdemux)?;
        }
        ensure!(
            probe.passing(&PORTS)? == Rules::Old.passing(),
            "round {round}"
        );
        portdemux.ok(&["detach", INTERFACE])?;
        let passing = probe.passing(&PORTS)?;
        ensure!(passing.len() == PORTS.len(), "round {round}: {passing:?}");
    }
    for round in 0..10 {
        portdemux.ok(&["attach", INTERFACE])?;
        Rules::Old.apply(&portdemux)?;
        portdemux.ok(&["detach", "--all"])?;
        let passing = probe.passing(&PORTS)?;
        ensure!(
            passing.len() == PORTS.len(),
            "all, round {round}: {passing:?}"
        );
    }
    Ok(())
}

#[test]
fn instances_share_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    add_second_wire(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    portdemux.set_instance("second");
    let attach = portdemux.ok(&["attach", SECOND])?;
    ensure!(
        attach.stdout.contains("--instance second"),
        "{}",
        attach.stdout
    );
    portdemux.apply("[[rule]]\nname = \"no\"\nport = \"7/udp\"\nto = \"drop\"\n")?;
    send(&lab, 7)?;
    counted(&portdemux, 1)?;
    let second = portdemux.stats()?;
    ensure!(second.0["instance"] == "second" && second.rule_of("1001/udp")?.is_none());
    ensure!(second.0["interfaces"].as_array().map(Vec::len) == Some(1));

    portdemux.set_instance("default");
    bed::holds(&lab, &portdemux, &probe, Rules::Old)?;
    let first = portdemux.stats()?;
    ensure!(first.rule_of("7/udp")?.is_none() && first.port("7/udp")?.received.packets == 0);
    portdemux.fails(1, &["detach", SECOND])?;
    portdemux.ok(&["detach", "--all"])?;

    portdemux.set_instance("second");
    send(&lab, 7)?;
    counted(&portdemux, 2)?;
    portdemux.ok(&["detach", "--all"])?;
    Ok(())
}

#[test]
fn an_interface_in_another_namespace_is_said_to_be_elsewhere() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let there =
        |words: &[&str]| portdemux_tests::run::run(portdemux.command_in(&lab.client, words));
    let status = there(&["status"])?.success()?;
    ensure!(
        status
            .stderr
            .contains("wire0 lies in another network namespace"),
        "{}",
        status.stderr
    );
    // The interface of the same name here is another one.
    there(&["attach", INTERFACE])?.success()?;
    ensure!(bed::program_on(&lab, INTERFACE)?.is_some());
    there(&["detach", INTERFACE])?.success()?;
    ensure!(bed::program_on(&lab, INTERFACE)?.is_some());
    ensure!(bed::state(&portdemux)?.as_deref() == Some("attached"));
    Ok(())
}
