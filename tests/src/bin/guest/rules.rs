//! A ruleset with rules of every kind, and packets for all of them.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::{self, CLIENT_V4, SERVER_V4, SERVER_V6, With as _, ipv4, ipv6, sctp, tcp, udp},
    lab::{INTERFACE, Lab},
    netns::Netns,
    veth::{self, End, Offloads},
    wait::{PATIENCE, wait_until},
};

use crate::is_short;

/// The interface before the other namespace.
const BOX: &str = "box0";

/// Of every kind: addresses, ranges, sources, sets, rates, shadows, destinations, flows and fragments.
const RULES: &str = r#"
[default]
inbound = "reject"
malformed = "drop"
fragments = "track"
icmp = "errors-only"

[sets]
office = ["SENDER/32", "2001:db8::/32"]
banned = ["203.0.113.0/24"]

[[rule]]
name = "here"
port = ["7000/tcp", "7000/udp", "7000/sctp"]

[[rule]]
name = "at"
port = "7001/udp"
address = ["SERVER4", "SERVER6"]
to = "drop"

[[rule]]
name = "range"
port = "7100-7199/udp"
to = "reject"

[[rule]]
name = "office"
port = "7002/udp"
from = ["@office"]

[[rule]]
name = "others"
port = "7003/udp"
from = ["203.0.113.7"]

[[rule]]
name = "banned"
port = "7004/udp"
deny = ["SENDER", "@banned"]

[[rule]]
name = "slow"
port = "7005/udp"
rate = "1/h"
burst = 2

[[rule]]
name = "each"
port = "7006/udp"
new_rate = "1/h"
per = "source"

[[rule]]
name = "would"
port = "7000/udp"
to = "drop"
shadow = true

[[rule]]
name = "box"
port = "7007/udp"
to = "interface:box0"

[[rule]]
name = "cpu"
port = "7008/udp"
to = "cpu:0-1"

[[rule]]
name = "xsk"
port = "7009/udp"
to = "xsk:nobody"

[[rule]]
name = "socket"
port = "7010/tcp"
to = "socket:127.0.0.1:8080"

[[rule]]
name = "replies"
port = "53/udp"
role = "source"
connections = "established"
"#;

/// A packet's port and how often it is sent, the reason that is given, and of how many.
const SENT: [(u16, u64, &str); 10] = [
    (7000, 1, "rule_local"),
    (7001, 1, "rule_drop"),
    (7150, 1, "rule_reject"),
    (7002, 1, "rule_local"),
    (7003, 1, "source_not_allowed"),
    (7004, 1, "source_denied"),
    (7007, 1, "rule_interface"),
    (7008, 1, "rule_cpu"),
    (7009, 1, "no_xsk"),
    (9999, 1, "unclaimed"),
];

pub(crate) fn run() -> Result<()> {
    let modes: &[&str] = if is_short() {
        &["native"]
    } else {
        &["native", "generic"]
    };
    for mode in modes {
        in_mode(mode).with_context(|| format!("in {mode} mode"))?;
    }
    Ok(())
}

fn in_mode(mode: &str) -> Result<()> {
    let lab = Lab::new()?;
    let inside = Netns::new("box")?;
    join(&lab, &inside)?;
    let portdemux = Portdemux::new(&lab.server)?;
    let listener = lab.server.enter(|| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 8080)).context("listen on 127.0.0.1:8080")
    })?;
    portdemux.ok(&["attach", INTERFACE, "--mode", mode])?;
    let rules = portdemux.rules_file(
        &RULES
            .replace("SENDER", &CLIENT_V4.to_string())
            .replace("SERVER4", &SERVER_V4.to_string())
            .replace("SERVER6", &SERVER_V6.to_string()),
    )?;
    portdemux.ok(&["apply", &rules.display().to_string()])?;
    let sent = send(&lab)?;
    wait_until("all frames", PATIENCE, || {
        Ok(portdemux.stats()?.interface(INTERFACE)?.received.packets >= sent)
    })?;
    counted(&portdemux, mode)?;
    explained(&portdemux)?;
    drop(listener);
    portdemux.ok(&["detach", "--all"])?;
    ensure!(
        !portdemux.bpffs().join("portdemux/default").exists(),
        "pins stay after detach --all"
    );
    ensure!(!is_attached(&lab)?, "a program stays");
    Ok(())
}

fn join(lab: &Lab, inside: &Netns) -> Result<()> {
    let end = |namespace, name, last| End {
        namespace,
        name,
        mac: [2, 0, 0x5e, 0x10, 0, last],
        addresses: Vec::new(),
    };
    let (outer, inner) = (end(&lab.server, BOX, 3), end(inside, "inner0", 4));
    veth::connect(&outer, &inner, 1500, Offloads::Off)?;
    inside
        .run("ethtool", &["-K", "inner0", "gro", "on"])?
        .success()?;
    Ok(())
}

/// Sends packets for every rule; returns how many.
fn send(lab: &Lab) -> Result<u64> {
    let socket = lab.client_socket()?;
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for (port, times, _) in SENT {
        for _ in 0..times {
            frames.push(ipv4(udp(40_000, port)).frame().bytes());
            frames.push(ipv6(udp(40_000, port)).frame().bytes());
        }
    }
    for port in [7005, 7006] {
        for source in 0..3 {
            frames.push(ipv4(udp(40_000 + source, port)).frame().bytes());
        }
    }
    frames.push(ipv4(sctp(40_000, 7000)).frame().bytes());
    frames.push(ipv4(tcp(40_000, 9998)).frame().bytes());
    frames.push(ipv4(udp(53, 40_001)).frame().bytes());
    // Malformed, no IP, and a long datagram in fragments.
    frames.push(ipv4(udp(40_000, 7000)).frame().cut(30));
    frames.push(frames::ethernet(0x88b5, [0; 46]).bytes());
    let long = ipv4(udp(40_000, 7000).with(|udp| udp.data = vec![7; 3000]));
    frames.extend(
        long.fragments(1400)
            .iter()
            .map(|piece| piece.frame().bytes()),
    );
    for frame in &frames {
        socket.send_when_there_is_room(frame)?;
    }
    Ok(frames.len() as u64)
}

/// Holds the counters to what was sent.
fn counted(portdemux: &Portdemux, mode: &str) -> Result<()> {
    let stats = portdemux.stats()?;
    for (rule, received, dropped) in [
        ("at", 2, 2),
        ("range", 2, 2),
        ("office", 2, 0),
        ("others", 2, 2),
        ("banned", 2, 1),
        ("slow", 3, 1),
        ("each", 3, 2),
        ("box", 2, 0),
        ("cpu", 2, 0),
        ("xsk", 2, 2),
        ("replies", 1, 1),
    ] {
        let traffic = stats.rule(rule)?;
        ensure!(
            (traffic.received.packets, traffic.dropped.packets) == (received, dropped),
            "{rule}: {traffic:?}, {received} and {dropped} expected; {:?}",
            stats.reasons()?
        );
    }
    for (_, _, reason) in SENT {
        // Nothing is handed to other CPUs from generic mode.
        let reason = match (mode, reason) {
            ("generic", "rule_cpu") => "no_cpu",
            _ => reason,
        };
        ensure!(stats.reason(reason)?.packets > 0, "no {reason}");
    }
    ensure!(
        stats.rule("would")?.received.packets > 0,
        "the shadow counts nothing"
    );
    Ok(())
}

/// Asks the kernel about packets, and holds its word to the host's.
fn explained(portdemux: &Portdemux) -> Result<()> {
    let client = format!("{CLIENT_V4}:40000");
    for (port, word) in [
        (7001, "rule_drop"),
        (7002, "rule_local"),
        (9999, "unclaimed"),
    ] {
        let server = format!("{SERVER_V4}:{port}");
        let said = portdemux
            .ok(&["explain", "--kernel", "udp", &client, &server])?
            .stdout;
        ensure!(said.contains(word), "no {word} in {said}");
    }
    Ok(())
}

/// Whether the interface still has a program.
fn is_attached(lab: &Lab) -> Result<bool> {
    let link = lab.server.ip(&["link", "show", INTERFACE])?.stdout;
    Ok(link.contains("xdp"))
}
