//! Interfaces that are attached again, renamed, removed and made again; the counters through all of
//! that.

use anyhow::{Context as _, Result};
use portdemux_tests::{
    cli::Portdemux,
    frames::{
        self, CLIENT_MAC, CLIENT_V4, CLIENT_V6, SERVER_MAC, SERVER_V4, SERVER_V6, ipv4, ipv6, udp,
    },
    lab::{INTERFACE, Lab},
    netns::Netns,
    veth::{self, End, Offloads},
    wait::{PATIENCE, wait_until},
};
use serde_json::Value;

use crate::{Mode, deliver, in_both_modes, tap::Tap};

in_both_modes! {
    counters_survive_an_attach_over_the_old_program [];
    counters_survive_a_detach_and_an_attach [];
    nothing_is_counted_or_dropped_while_detached [];
    a_renamed_interface_is_reported_and_goes_on [];
    a_removed_interface_is_reported_and_keeps_its_counters [];
    an_interface_that_was_made_again_is_reported_and_can_be_attached [];
}

const WEB_IS_CLOSED: &str = "[[rule]]\nname = \"web\"\nport = \"443/udp\"\nto = \"drop\"\n";

fn some_frames() -> [Vec<u8>; 4] {
    [
        ipv4(udp(40_000, 443)).frame().bytes(),
        ipv6(udp(40_000, 443)).frame().bytes(),
        ipv4(udp(40_000, 80)).frame().bytes(),
        frames::ethernet(frames::ARP, [0; 28]).bytes(),
    ]
}

fn counters_survive_an_attach_over_the_old_program(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, WEB_IS_CLOSED)?;
    for _ in 0..3 {
        assert_eq!(deliver(&lab, &some_frames())?, some_frames()[2..]);
        let before = tap.agrees(&portdemux, &["443/udp"])?;
        portdemux.ok(&["attach", INTERFACE, "--mode", mode.name()])?;
        let after = tap.agrees(&portdemux, &["443/udp"])?;
        assert_eq!(before.0["rules"], after.0["rules"]);
        assert_eq!(before.generation()?, after.generation()?);
        let auto = portdemux.ok(&["attach", INTERFACE])?;
        assert!(auto.stdout.contains(mode.name()), "{}", auto.stdout);
    }
    let stats = tap.agrees(&portdemux, &["443/udp"])?;
    assert_eq!(stats.rule("web")?.dropped.packets, 6);
    Ok(())
}

fn counters_survive_a_detach_and_an_attach(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, WEB_IS_CLOSED)?;
    for round in 1..=3 {
        assert_eq!(deliver(&lab, &some_frames())?, some_frames()[2..]);
        tap.agrees(&portdemux, &["443/udp"])?;
        portdemux.ok(&["detach", INTERFACE])?;
        assert_eq!(interface(&portdemux)?["state"], "detached");
        let stats = tap.agrees(&portdemux, &["443/udp"])?;
        assert_eq!(stats.rule("web")?.dropped.packets, 2 * round);
        portdemux.ok(&["attach", INTERFACE, "--mode", mode.name()])?;
        assert_eq!(interface(&portdemux)?["state"], "attached");
        tap.agrees(&portdemux, &["443/udp"])?;
    }
    Ok(())
}

fn nothing_is_counted_or_dropped_while_detached(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, WEB_IS_CLOSED)?;
    portdemux.ok(&["detach", INTERFACE])?;
    let before = portdemux.stats()?;
    assert_eq!(deliver(&lab, &some_frames())?, some_frames());
    let after = portdemux.stats()?;
    assert_eq!(before.reasons()?, after.reasons()?);
    assert_eq!(after.reasons()?, []);
    assert_eq!(before.ports()?, after.ports()?);
    Ok(())
}

fn a_renamed_interface_is_reported_and_goes_on(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, WEB_IS_CLOSED)?;
    lab.server.ip(&["link", "set", INTERFACE, "down"])?;
    lab.server
        .ip(&["link", "set", INTERFACE, "name", "uplink0"])?;
    lab.server.ip(&["link", "set", "uplink0", "up"])?;
    let renamed = interface(&portdemux)?;
    assert_eq!(renamed["name"], INTERFACE);
    assert_eq!(renamed["renamed"], "uplink0");
    assert_eq!(renamed["state"], "attached");

    carrier(&lab.server, "uplink0")?;
    carrier(&lab.client, INTERFACE)?;
    let client = lab.client_socket()?;
    for frame in some_frames() {
        client.send(&frame)?;
    }
    let stats = tap.agrees(&portdemux, &["443/udp"])?;
    assert_eq!(stats.rule("web")?.dropped.packets, 2);

    // It can be attached and detached by the name it has.
    portdemux.ok(&["attach", "uplink0", "--mode", mode.name()])?;
    interface(&portdemux)?;
    assert_eq!(portdemux.stats()?.rule("web")?.dropped.packets, 2);
    portdemux.ok(&["detach", "uplink0"])?;
    assert_eq!(interface(&portdemux)?["state"], "detached");
    let link = lab.server.ip(&["link", "show", "uplink0"])?.stdout;
    assert!(!link.contains("xdp"), "{link}");
    Ok(())
}

fn a_removed_interface_is_reported_and_keeps_its_counters(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, WEB_IS_CLOSED)?;
    deliver(&lab, &some_frames())?;
    tap.agrees(&portdemux, &["443/udp"])?;
    lab.server.ip(&["link", "delete", INTERFACE])?;

    let status = interface(&portdemux)?;
    assert_eq!(status["name"], INTERFACE);
    assert_eq!(status["state"], "vanished");
    assert_eq!(portdemux.stats()?.rule("web")?.dropped.packets, 2);
    // Nothing else is the worse for it.
    for command in [["status"].as_slice(), &["rules"], &["stats"], &["export"]] {
        portdemux.ok(command)?;
    }
    portdemux.ok(&["add", "53/udp"])?;
    portdemux.ok(&["detach", INTERFACE])?;
    assert_eq!(interface(&portdemux)?["state"], "detached");
    assert_eq!(portdemux.stats()?.rule("web")?.dropped.packets, 2);
    Ok(())
}

fn an_interface_that_was_made_again_is_reported_and_can_be_attached(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, WEB_IS_CLOSED)?;
    deliver(&lab, &some_frames())?;
    lab.server.ip(&["link", "delete", INTERFACE])?;
    connect_again(&lab)?;
    assert_eq!(interface(&portdemux)?["state"], "returned");
    // Without the program everything passes.
    assert_eq!(deliver(&lab, &some_frames())?, some_frames());
    assert_eq!(portdemux.stats()?.rule("web")?.dropped.packets, 2);

    portdemux.ok(&["attach", INTERFACE, "--mode", mode.name()])?;
    let status = portdemux.json(&["status"])?;
    let attached = status["interfaces"].as_array().map_or(0, |interfaces| {
        let is_attached = |interface: &&Value| interface["state"] == "attached";
        interfaces.iter().filter(is_attached).count()
    });
    assert_eq!(attached, 1, "{status}");
    assert_eq!(deliver(&lab, &some_frames())?, some_frames()[2..]);
    assert_eq!(portdemux.stats()?.rule("web")?.dropped.packets, 4);
    portdemux.ok(&["detach", INTERFACE])?;
    assert_eq!(deliver(&lab, &some_frames())?, some_frames());
    Ok(())
}

fn connect_again(lab: &Lab) -> Result<()> {
    let end = |namespace, mac, addresses| End {
        namespace,
        name: INTERFACE,
        mac,
        addresses,
    };
    veth::connect(
        &end(
            &lab.client,
            CLIENT_MAC,
            vec![CLIENT_V4.into(), CLIENT_V6.into()],
        ),
        &end(
            &lab.server,
            SERVER_MAC,
            vec![SERVER_V4.into(), SERVER_V6.into()],
        ),
        1500,
        Offloads::Off,
    )
}

/// Waits until an interface that was set up can send.
fn carrier(namespace: &Netns, name: &str) -> Result<()> {
    wait_until("a carrier", PATIENCE, || {
        let link = namespace.ip(&["link", "show", name])?.stdout;
        Ok(link.contains("state UP"))
    })
}

/// What `status --json` says about the only interface.
fn interface(portdemux: &Portdemux<'_>) -> Result<Value> {
    let status = portdemux.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().context("no interfaces")?;
    assert_eq!(interfaces.len(), 1, "{status}");
    Ok(interfaces[0].clone())
}
