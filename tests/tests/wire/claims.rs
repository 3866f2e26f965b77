//! Which claim counts, and claims that change while traffic flows.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use portdemux_tests::{
    cli::{Count, Portdemux},
    frames::{self, Payload, SERVER_V4, SERVER_V6, With as _},
    lab::Lab,
    server::{PAGE, Server},
    wait::{PATIENCE, wait_for, wait_until},
};

use crate::{Mode, deliver, in_both_modes, in_url, tap::Tap};

in_both_modes! {
    claims_come_and_go_while_a_connection_loses_nothing ["socat"];
    a_claim_of_an_exact_address_beats_one_of_any_address ["nginx" "curl"];
    a_single_port_beats_a_range_and_a_narrower_range_a_wider [];
}

fn claims_come_and_go_while_a_connection_loses_nothing(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach(&lab)?;
    let _echo = Server::tcp_echo(&lab.server, 7)?;
    let (stop, echoed) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let connection = scope.spawn(|| lab.client.enter(|| talk(&stop, &echoed)));
        let changed = change_claims(&portdemux, &mut tap, &echoed);
        stop.store(true, Ordering::Relaxed);
        connection
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the client panicked")))?;
        changed
    })?;
    let stats = tap.agrees(&portdemux, &[])?;
    assert_eq!(stats.reason("rule_drop")?, Count::default());
    let (claimed, unclaimed) = (stats.reason("rule_local")?, stats.reason("unclaimed")?);
    assert!(claimed.packets > 0 && unclaimed.packets > 0);
    Ok(())
}

/// Says something and waits to hear it again, over and over on one connection.
fn talk(stop: &AtomicBool, echoed: &AtomicU64) -> Result<()> {
    let mut connection = TcpStream::connect_timeout(&(SERVER_V4, 7).into(), PATIENCE)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    while !stop.load(Ordering::Relaxed) {
        let number = echoed.load(Ordering::Relaxed);
        let said = [number.to_be_bytes(); 64].concat();
        connection.write_all(&said)?;
        let mut heard = vec![0; said.len()];
        connection.read_exact(&mut heard)?;
        ensure!(heard == said, "the echo of message {number} is another");
        echoed.fetch_add(1, Ordering::Relaxed);
        // A few hundred messages a second leave the machine to the commands.
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Claims and gives up ports, among them the one of the connection, which has to go on each time.
fn change_claims(portdemux: &Portdemux<'_>, tap: &mut Tap, echoed: &AtomicU64) -> Result<()> {
    for _ in 0..5 {
        for (change, reason) in [
            (["add", "7/tcp", "--name", "echo"].as_slice(), "rule_local"),
            (&["add", "9/tcp", "--to", "drop"], "rule_local"),
            (&["remove", "9/tcp"], "rule_local"),
            (&["remove", "echo"], "unclaimed"),
        ] {
            tap.read()?;
            portdemux.ok(change)?;
            let said = echoed.load(Ordering::Relaxed);
            let before = portdemux.stats()?;
            let now = wait_for("traffic under the new rules", PATIENCE, || {
                tap.read()?;
                let stats = portdemux.stats()?;
                let packets = stats.reason(reason)?.packets;
                Ok((packets > before.reason(reason)?.packets + 10).then_some(stats))
            })?;
            // From the change on nothing is decided by the rules before it.
            let other = match reason {
                "unclaimed" => "rule_local",
                _ => "unclaimed",
            };
            assert_eq!(before.reason(other)?, now.reason(other)?);
            wait_until("the connection to go on", PATIENCE, || {
                Ok(echoed.load(Ordering::Relaxed) > said)
            })?;
        }
    }
    Ok(())
}

const OTHER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3);

fn a_claim_of_an_exact_address_beats_one_of_any_address(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    for address in [IpAddr::V4(OTHER_V4), OTHER_V6.into()] {
        lab.add_server_address(address)?;
    }
    let portdemux = mode.attach_with_rules(
        &lab,
        r#"
        [[rule]]
        name = "web-anywhere"
        port = ["443/tcp", "443/udp"]
        to = "drop"

        [[rule]]
        name = "web-here"
        port = ["443/tcp", "443/udp"]
        address = ["192.0.2.2", "2001:db8::2"]

        [[rule]]
        name = "dns-anywhere"
        port = ["53/udp"]

        [[rule]]
        name = "dns-there"
        port = ["53/udp"]
        address = ["192.0.2.3", "2001:db8::3"]
        to = "drop"
        "#,
    )?;
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for (port, passes_here) in [(443, true), (53, false), (443, true), (54, true)] {
        for is_here in [true, false] {
            for frame in to(is_here, frames::udp(40_000, port)) {
                sent.push(frame.clone());
                let passes = match port {
                    443 => passes_here == is_here,
                    53 => passes_here != is_here,
                    _ => true,
                };
                if passes {
                    expected.push(frame);
                }
            }
        }
    }
    assert_eq!(deliver(&lab, &sent)?, expected);
    let stats = portdemux.stats()?;
    for (rule, received, dropped) in [
        ("web-anywhere", 4, 4),
        ("web-here", 4, 0),
        ("dns-anywhere", 2, 0),
        ("dns-there", 2, 2),
    ] {
        let traffic = stats.rule(rule)?;
        let packets = (traffic.received.packets, traffic.dropped.packets);
        assert_eq!(packets, (received, dropped), "{rule}");
    }
    let web = stats.port("443/udp")?;
    assert_eq!((web.received.packets, web.dropped.packets), (8, 4));

    // And so does a real connection.
    let _nginx = Server::nginx(&lab.server, 443)?;
    for (address, is_open) in [
        (IpAddr::V4(SERVER_V4), true),
        (SERVER_V6.into(), true),
        (OTHER_V4.into(), false),
        (OTHER_V6.into(), false),
    ] {
        let url = format!("http://{}:443/", in_url(address));
        let arguments = ["-sS", "--connect-timeout", "0.5", &url];
        let page = lab.client.run("curl", &arguments)?;
        if is_open {
            assert_eq!(page.success()?.stdout, PAGE);
        } else {
            assert_eq!(page.code(), Some(28), "{address}");
        }
    }
    Ok(())
}

/// A frame of each version, to the server's first address or to its other one.
fn to(is_here: bool, payload: impl Into<Payload>) -> [Vec<u8>; 2] {
    let payload = payload.into();
    let v4 = frames::ipv4(payload.clone()).with(|ip| {
        if !is_here {
            ip.destination = OTHER_V4;
        }
    });
    let v6 = frames::ipv6(payload).with(|ip| {
        if !is_here {
            ip.destination = OTHER_V6;
        }
    });
    [v4.frame().bytes(), v6.frame().bytes()]
}

fn a_single_port_beats_a_range_and_a_narrower_range_a_wider(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(
        &lab,
        r#"
        [[rule]]
        name = "wide"
        port = "8000-8999/udp"
        to = "drop"

        [[rule]]
        name = "narrow"
        port = "8080-8089/udp"

        [[rule]]
        name = "single"
        port = "8085/udp"
        to = "drop"
        "#,
    )?;
    let ports = [
        (7999, None),
        (8000, Some("wide")),
        (8079, Some("wide")),
        (8080, Some("narrow")),
        (8084, Some("narrow")),
        (8085, Some("single")),
        (8086, Some("narrow")),
        (8089, Some("narrow")),
        (8090, Some("wide")),
        (8999, Some("wide")),
        (9000, None),
    ];
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for (port, rule) in ports {
        for frame in to(true, frames::udp(40_000, port)) {
            sent.push(frame.clone());
            if matches!(rule, None | Some("narrow")) {
                expected.push(frame);
            }
        }
        // Another protocol's ports are other ports.
        for frame in to(true, frames::sctp(40_000, port)) {
            sent.push(frame.clone());
            expected.push(frame);
        }
    }
    assert_eq!(deliver(&lab, &sent)?, expected);
    let dropped = ["8000/udp", "8079/udp", "8085/udp", "8090/udp", "8999/udp"];
    let stats = tap.agrees(&portdemux, &dropped)?;
    for (port, rule) in ports {
        assert_eq!(stats.rule_of(&format!("{port}/udp"))?.as_deref(), rule);
        assert_eq!(stats.rule_of(&format!("{port}/sctp"))?, None);
    }
    for (rule, packets) in [("wide", 8), ("narrow", 8), ("single", 2)] {
        assert_eq!(stats.rule(rule)?.received.packets, packets, "{rule}");
    }
    Ok(())
}
