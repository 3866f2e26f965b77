//! `explain` knows what the instance remembers, changes none of it, and the kernel's side agrees.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::{self, CLIENT_V4, SERVER_V4, With as _},
    lab::{INTERFACE, Lab},
    require,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

use crate::explain::timed_capture;

const RULES: &str = r#"
[default]
inbound = "drop"
fragments = "track"

[flows]

[[rule]]
name = "web"
port = ["80/tcp", "80/udp"]
rate = "1/h"
burst = 3

[[rule]]
name = "each"
port = "81/udp"
new_rate = "2/h"
per = "source"

[[rule]]
name = "app"
port = "8080/tcp"
to = "socket:127.0.0.1:9999"

[[rule]]
name = "tried"
port = "8081/tcp"
shadow = true
to = "local"
"#;

/// A lab where the rules hold.
fn with_rules(lab: &Lab) -> Result<Portdemux<'_>> {
    let portdemux = Portdemux::new(&lab.server)?;
    let file = portdemux.rules_file(RULES)?.display().to_string();
    portdemux.ok(&["attach", INTERFACE, "--rules", &file])?;
    Ok(portdemux)
}

/// What is said about a packet of the client's, with the kernel's consent.
fn explained(
    portdemux: &Portdemux<'_>,
    protocol: &str,
    [from, to]: [u16; 2],
    more: &[&str],
) -> Result<Value> {
    let (from, to) = (format!("{CLIENT_V4}:{from}"), format!("{SERVER_V4}:{to}"));
    let packet = ["explain", "--kernel", protocol, &from, &to];
    portdemux.json(&[&packet[..], more].concat())
}

fn outcome(said: &Value) -> [&str; 2] {
    ["verdict", "reason"].map(|key| said[key].as_str().unwrap_or_default())
}

/// Waits until so many packets came for a port.
fn received(portdemux: &Portdemux<'_>, port: &str, packets: u64) -> Result<()> {
    wait_until(&format!("{packets} packets for {port}"), PATIENCE, || {
        let stats = portdemux.stats()?;
        Ok(stats
            .port(port)
            .is_ok_and(|port| port.received.packets >= packets))
    })
}

#[test]
fn a_reply_to_what_this_host_began_passes_and_shows_its_flow() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = with_rules(&lab)?;
    let peer = SocketAddr::from((CLIENT_V4, 443));
    let listener = lab.client.enter(|| Ok(TcpListener::bind(peer)?))?;
    let ours = lab.server.enter(|| Ok(TcpStream::connect(peer)?))?;
    let port = ours.local_addr()?.port();
    let (_theirs, _) = listener.accept()?;

    let reply = explained(&portdemux, "tcp", [443, port], &["--flags", "ack"])?;
    assert_eq!(outcome(&reply), ["pass", "reply"], "{reply}");
    assert_eq!(reply["relation"], "reply");
    let flow = json!({
        "state": "established", "begun_by": "host", "half_open": false,
        "packets_in": 1, "packets_out": 2,
    });
    assert_eq!(reply["flow"], flow);
    // Asking has changed nothing, also about a packet that would end it.
    let over = explained(&portdemux, "tcp", [443, port], &["--flags", "rst"])?;
    assert_eq!(over["flow"], flow);
    let again = explained(&portdemux, "tcp", [443, port], &["--flags", "ack"])?;
    assert_eq!(again, reply);
    // One from elsewhere is of no flow.
    let other = explained(&portdemux, "tcp", [444, port], &["--flags", "ack"])?;
    assert_eq!(outcome(&other), ["drop", "unclaimed"], "{other}");
    assert_eq!(
        [&other["relation"], &other["flow"]],
        [&json!("new"), &Value::Null]
    );
    Ok(())
}

#[test]
fn it_says_what_is_left_of_rates_and_takes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = with_rules(&lab)?;
    let client = lab
        .client
        .enter(|| Ok(UdpSocket::bind((CLIENT_V4, 5_000))?))?;
    let left = |port: u16, from: u16| -> Result<(Value, Value)> {
        let said = explained(&portdemux, "udp", [from, port], &[])?;
        Ok((said["rates"].clone(), said["reason"].clone()))
    };
    let rate = |left: u64| json!([{ "key": "rate", "per": "rule", "left": left, "burst": 3 }]);
    assert_eq!(left(80, 5_000)?, (rate(3), json!("rule_local")));
    assert_eq!(left(80, 5_000)?.0, rate(3));
    for (sent, reason) in [(1, "rule_local"), (2, "rule_local"), (3, "rate_limited")] {
        client.send_to(b"?", (SERVER_V4, 80))?;
        received(&portdemux, "80/udp", sent)?;
        assert_eq!(
            left(80, 5_000)?,
            (rate(3 - sent), json!(reason)),
            "after {sent}"
        );
    }
    // For each source, and only of packets that begin a flow.
    let each =
        |left: u64| json!([{ "key": "new_rate", "per": "source", "left": left, "burst": 2 }]);
    assert_eq!(left(81, 5_000)?.0, each(2));
    client.send_to(b"?", (SERVER_V4, 81))?;
    received(&portdemux, "81/udp", 1)?;
    assert_eq!(left(81, 5_001)?.0, each(1));
    assert_eq!(left(81, 5_000)?.0, json!([]));
    Ok(())
}

#[test]
fn it_says_where_a_socket_a_program_or_an_interface_is_missing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = with_rules(&lab)?;
    let said = explained(&portdemux, "tcp", [5_000, 8080], &[])?;
    assert_eq!(outcome(&said), ["reject", "no_socket"], "{said}");
    let _listener = lab
        .server
        .enter(|| Ok(TcpListener::bind("127.0.0.1:9999")?))?;
    wait_until("the socket is found", PATIENCE, || {
        let said = explained(&portdemux, "tcp", [5_000, 8080], &[])?;
        Ok(outcome(&said) == ["pass", "rule_socket"])
    })?;
    // What opens no connection the kernel gives to no listener: it is let in to be answered.
    let said = explained(&portdemux, "tcp", [5_000, 8080], &["--flags", "ack"])?;
    assert_eq!(outcome(&said), ["pass", "rule_socket"], "{said}");

    let said = explained(&portdemux, "tcp", [5_000, 8081], &[])?;
    assert_eq!(outcome(&said), ["drop", "unclaimed"], "{said}");
    assert_eq!(
        said["shadow"],
        json!({ "rule": "tried", "verdict": "pass", "reason": "rule_local" })
    );

    let (from, to) = (format!("{CLIENT_V4}:1"), format!("{SERVER_V4}:80"));
    let packet = ["explain", "tcp", &from, &to];
    assert_eq!(portdemux.ok(&packet)?.stderr, "");
    assert_eq!(
        portdemux
            .ok(&[&packet[..], &["--interface", INTERFACE]].concat())?
            .stderr,
        ""
    );
    let elsewhere = portdemux
        .ok(&[&packet[..], &["--interface", "lo"]].concat())?
        .stderr;
    ensure!(elsewhere.contains("lo has no program"), "{elsewhere}");
    portdemux.ok(&["detach", INTERFACE])?;
    let nowhere = portdemux.ok(&packet)?.stderr;
    ensure!(
        nowhere.contains("no interface has the program"),
        "{nowhere}"
    );
    Ok(())
}

/// A connection as this host's interface sees it: what comes in and what goes out, and at which second.
fn connection() -> Vec<(u32, Vec<u8>)> {
    const HOUR: u32 = 3_600;
    let segment = |is_sent: bool, flags: u8, sequence: u32, acknowledgement: u32| {
        let (from, to) = if is_sent { (80, 5_000) } else { (5_000, 80) };
        let payload = frames::tcp(from, to).with(|tcp| {
            (tcp.flags, tcp.sequence, tcp.acknowledgement) = (flags, sequence, acknowledgement);
        });
        let ip = frames::ipv4(payload).with(|ip| {
            (ip.source, ip.destination) = if is_sent {
                (SERVER_V4, CLIENT_V4)
            } else {
                (CLIENT_V4, SERVER_V4)
            };
        });
        ip.frame().bytes()
    };
    vec![
        (100, segment(false, 0x02, 100, 0)),
        (100, segment(true, 0x12, 500, 101)),
        (101, segment(false, 0x10, 101, 501)),
        (101, segment(false, 0x18, 101, 501)),
        (102, segment(false, 0x18, 102, 501)),
        // The rate has recovered, the flow is known still; then it was forgotten.
        (102 + HOUR, segment(false, 0x18, 102, 501)),
        (102 + 30 * HOUR, segment(false, 0x18, 103, 501)),
    ]
}

#[test]
fn a_capture_knows_which_way_frames_go_and_follows_flows_if_asked() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = with_rules(&lab)?;
    let path = timed_capture(&portdemux, &connection())?;
    let explain = ["explain", "--pcap", &path, "--kernel", "--json"];
    let said = |more: &[&str]| -> Result<Vec<[String; 4]>> {
        let lines = portdemux.ok(&[&explain[..], more].concat())?.stdout;
        let keys = ["direction", "reason", "relation", "frame"];
        let line = |line: &str| -> Result<[String; 4]> {
            let line: Value = serde_json::from_str(line)?;
            Ok(keys.map(|key| line[key].to_string().trim_matches('"').to_owned()))
        };
        lines.lines().map(line).collect()
    };
    let rows = |rows: &[[&str; 4]]| rows.iter().map(|row| row.map(str::to_owned)).collect();
    let apart: Vec<_> = rows(&[
        ["in", "rule_local", "new", "1"],
        ["out", "egress", "null", "2"],
        ["in", "rule_local", "new", "3"],
        ["in", "rule_local", "new", "4"],
        ["in", "rule_local", "new", "5"],
        ["in", "rule_local", "new", "6"],
        ["in", "rule_local", "new", "7"],
    ]);
    assert_eq!(said(&[])?, apart);
    let together: Vec<_> = rows(&[
        ["in", "rule_local", "new", "1"],
        ["out", "egress", "null", "2"],
        ["in", "rule_local", "new", "3"],
        ["in", "rule_local", "established", "4"],
        ["in", "rate_limited", "established", "5"],
        ["in", "rule_local", "established", "6"],
        ["in", "rule_local", "new", "7"],
    ]);
    let tracked = said(&["--track"])?;
    assert_eq!(tracked, together);
    let only = |way: &str| {
        together
            .iter()
            .filter(|row| row[0] == way)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(said(&["--track", "--direction", "in"])?, only("in"));
    assert_eq!(said(&["--track", "--direction", "out"])?, only("out"));

    let table = portdemux.ok(&["explain", "--pcap", &path])?.stdout;
    let last = table.lines().last().context("no line")?;
    assert_eq!(
        last.split_whitespace().collect::<Vec<_>>(),
        ["1", "pass", "egress"]
    );
    // Nothing of this was real.
    let stats = portdemux.stats()?;
    assert_eq!(
        stats.port("80/tcp").map_or(0, |port| port.received.packets),
        0
    );
    Ok(())
}

#[test]
fn flags_are_words_that_tcp_has() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = with_rules(&lab)?;
    let packet = ["explain", "tcp", "192.0.2.1:1", "192.0.2.2:80"];
    let said = |flags: &str| portdemux.ok(&[&packet[..], &["--flags", flags]].concat());
    for (flags, words) in [
        ("ack,syn", "TCP SYN ACK"),
        ("fin,psh,urg", "TCP FIN PSH URG"),
        ("none", "TCP without flags"),
    ] {
        let said = said(flags)?.stdout;
        ensure!(said.contains(words) && !said.contains("assumed"), "{said}");
    }
    let assumed = portdemux.ok(&packet)?.stdout;
    ensure!(
        assumed.contains("TCP SYN\n") && assumed.contains("assumed"),
        "{assumed}"
    );
    let udp = [
        "explain",
        "udp",
        "192.0.2.1:1",
        "192.0.2.2:80",
        "--flags",
        "syn",
    ];
    let refused = portdemux.run(&udp)?;
    ensure!(refused.code() == Some(2), "{refused:?}");
    Ok(())
}

const TARGETS: &str = r#"
[default]
fragments = "track"

[[rule]]
name = "out"
port = "90/udp"
to = "interface:away"
fallback = "reject"

[[rule]]
name = "cpus"
port = "91/udp"
to = "cpu:0"

[[rule]]
name = "raw"
port = "92/udp"
to = "xsk:nobody"
fallback = "reject"
"#;

#[test]
fn it_knows_which_targets_are_there_and_so_does_the_kernel() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let peer = [
        "link",
        "add",
        "away",
        "type",
        "veth",
        "peer",
        "name",
        "away-peer",
    ];
    lab.server.ip(&peer)?.success()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let file = portdemux.rules_file(TARGETS)?.display().to_string();
    portdemux.ok(&["attach", INTERFACE, "--rules", &file])?;
    let said = |port: u16| -> Result<[String; 2]> {
        let said = explained(&portdemux, "udp", [5_000, port], &[])?;
        Ok(outcome(&said).map(str::to_owned))
    };
    assert_eq!(said(90)?, ["redirect", "rule_interface"]);
    assert_eq!(said(91)?, ["redirect", "rule_cpu"]);
    // Nobody takes raw frames, which the kernel alone can tell.
    assert_eq!(said(92)?, ["reject", "no_xsk"]);

    lab.server.ip(&["link", "del", "away"])?.success()?;
    wait_until("the kernel has taken the interface out", PATIENCE, || {
        Ok(said(90)? == ["reject", "no_interface"])
    })?;
    // Later fragments go where the first one went, which is nowhere.
    let piece = |offset: u16, payload: frames::Payload| {
        let ip = frames::ipv4(payload).with(|ip| {
            // MF in the first one.
            (ip.id, ip.offset, ip.flags) = (7, offset, u8::from(offset == 0));
        });
        (0, ip.frame().bytes())
    };
    let first = frames::udp(5_000, 90).with(|udp| {
        udp.data = vec![0; 24];
        udp.length = Some(100);
    });
    let pieces = [
        piece(0, first.into()),
        piece(4, frames::other(frames::UDP, [0; 16])),
    ];
    let path = timed_capture(&portdemux, &pieces)?;
    let lines = portdemux
        .ok(&["explain", "--pcap", &path, "--kernel", "--json"])?
        .stdout;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line)?;
        assert_eq!(outcome(&line), ["reject", "no_interface"], "{line}");
    }

    // In generic mode packets are handed to no CPU.
    portdemux.ok(&["detach", INTERFACE])?;
    portdemux.ok(&["attach", INTERFACE, "--mode", "generic"])?;
    assert_eq!(said(91)?, ["pass", "no_cpu"]);
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_said() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = with_rules(&lab)?;
    let (here, there) = (format!("{SERVER_V4}:80"), format!("{CLIENT_V4}:5000"));
    let swapped = portdemux.ok(&["explain", "tcp", &here, &there])?.stderr;
    ensure!(swapped.contains("swap SRC and DST"), "{swapped}");
    let packet = ["explain", "tcp", &there, &here];
    let unknown = portdemux.fails(1, &[&packet[..], &["--interface", "nope"]].concat())?;
    ensure!(
        unknown.stderr.contains("there is no interface nope"),
        "{unknown:?}"
    );
    portdemux.fails(2, &[&packet[..], &["--track"]].concat())?;
    portdemux.fails(2, &[&packet[..], &["--direction", "in"]].concat())?;
    portdemux.fails(2, &[&packet[..], &["--flags", "synack"]].concat())?;
    Ok(())
}
