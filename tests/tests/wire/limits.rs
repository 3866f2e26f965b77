//! How much may come for a rule, and what a shadow would do.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::Result;
use portdemux_tests::{
    frames::{self, Payload, SERVER_V4, With as _},
    lab::Lab,
    wait::PATIENCE,
};

use crate::{Mode, SERVERS, deliver, in_both_modes};

in_both_modes! {
    a_rule_lets_its_burst_in_and_what_is_over_it_is_counted [];
    each_source_has_a_rate_of_its_own_and_a_network_of_ipv6_is_one [];
    what_is_used_up_stays_so_when_other_rules_change_and_a_new_rule_begins_afresh [];
    connections_beyond_their_rate_are_not_made_and_those_that_live_go_on [];
    a_shadow_counts_what_it_would_do_and_does_it_once_it_is_promoted [];
}

/// A UDP datagram from a source.
fn datagram(source: &str, port: u16) -> Result<Vec<u8>> {
    let payload: Payload = frames::udp(40_000, port).into();
    Ok(match source.parse()? {
        IpAddr::V4(source) => frames::ipv4(payload).with(|ip| ip.source = source).frame(),
        IpAddr::V6(source) => frames::ipv6(payload).with(|ip| ip.source = source).frame(),
    }
    .bytes())
}

fn a_rule_lets_its_burst_in_and_what_is_over_it_is_counted(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(
        &lab,
        "[[rule]]\nname = \"dns\"\nport = \"53/udp\"\nrate = \"1/h\"\nburst = 5\n",
    )?;
    let mut sent = Vec::new();
    for number in 0..10 {
        sent.push(datagram(&format!("198.51.100.{number}"), 53)?);
        sent.push(datagram(&format!("2001:db8:{number}::1"), 53)?);
        // No rule is asked about this one.
        sent.push(datagram("198.51.100.1", 54)?);
    }
    let is_limited = |frame: &&Vec<u8>| frame.windows(2).any(|two| two == 53_u16.to_be_bytes());
    let first: Vec<_> = sent.iter().filter(is_limited).take(5).collect();
    let expected: Vec<_> = sent
        .iter()
        .filter(|frame| !is_limited(frame) || first.contains(frame))
        .cloned()
        .collect();
    assert_eq!(deliver(&lab, &sent)?, expected);
    let stats = portdemux.stats()?;
    let rule = stats.rule("dns")?;
    assert_eq!((rule.received.packets, rule.dropped.packets), (20, 15));
    assert_eq!(stats.reason("rate_limited")?.packets, 15);
    assert_eq!(stats.port("54/udp")?.dropped.packets, 0);
    Ok(())
}

fn each_source_has_a_rate_of_its_own_and_a_network_of_ipv6_is_one(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(
        &lab,
        "[[rule]]\nname = \"dns\"\nport = \"53/udp\"\nrate = \"1/h\"\nburst = 2\nper = \"source\"\n",
    )?;
    let all = [
        "198.51.100.1",
        "198.51.100.2",
        "2001:db8:1::1",
        // Of the same network: what is left is shared.
        "2001:db8:1::2",
        "2001:db8:2::1",
    ];
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for round in 0..4 {
        for source in all {
            let frame = datagram(source, 53)?;
            let may_come = match source {
                "2001:db8:1::1" | "2001:db8:1::2" => round < 1,
                _ => round < 2,
            };
            if may_come {
                expected.push(frame.clone());
            }
            sent.push(frame);
        }
    }
    assert_eq!(deliver(&lab, &sent)?, expected);
    let limited = sent.len() - expected.len();
    let stats = portdemux.stats()?;
    assert_eq!(stats.reason("rate_limited")?.packets, limited as u64);
    Ok(())
}

fn what_is_used_up_stays_so_when_other_rules_change_and_a_new_rule_begins_afresh(
    mode: Mode,
) -> Result<()> {
    let lab = Lab::new()?;
    let rule = |name: &str, port: u16| {
        format!("[[rule]]\nname = \"{name}\"\nport = \"{port}/udp\"\nrate = \"1/h\"\nburst = 1\n")
    };
    let portdemux = mode.attach_with_rules(&lab, &rule("dns", 53))?;
    let frame = datagram("198.51.100.1", 53)?;
    let twice = [frame.clone(), frame.clone()];
    assert_eq!(deliver(&lab, &twice)?, std::slice::from_ref(&frame));
    portdemux.apply(&format!("{}{}", rule("dns", 53), rule("ntp", 123)))?;
    assert_eq!(deliver(&lab, &twice)?, Vec::<Vec<u8>>::new());
    // The id of the rule that is gone may be given to the one that comes.
    portdemux.apply("[default]\n")?;
    portdemux.apply(&rule("names", 53))?;
    assert_eq!(deliver(&lab, &twice)?, [frame]);
    Ok(())
}

fn connections_beyond_their_rate_are_not_made_and_those_that_live_go_on(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(
        &lab,
        "[[rule]]\nname = \"echo\"\nport = \"7/tcp\"\nnew_rate = \"1/h\"\nnew_burst = 2\nper = \"source\"\n",
    )?;
    for server in SERVERS {
        let at = SocketAddr::new(server, 7);
        let listener = lab.server.enter(|| Ok(TcpListener::bind(at)?))?;
        let mut live = Vec::new();
        for _ in 0..2 {
            let client = lab
                .client
                .enter(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?))?;
            let (peer, _) = listener.accept()?;
            live.push((client, peer));
        }
        let third = lab.client.enter(|| {
            // Long enough for a SYN to be sent again.
            let third = TcpStream::connect_timeout(&at, Duration::from_millis(1_500));
            Ok(third.map(|_| ()).map_err(|error| error.kind()))
        })?;
        assert_eq!(third, Err(ErrorKind::TimedOut), "{server}");
        for (client, peer) in &mut live {
            client.set_read_timeout(Some(PATIENCE))?;
            peer.set_read_timeout(Some(PATIENCE))?;
            for _ in 0..20 {
                client.write_all(b"still?")?;
                let mut heard = [0; 6];
                peer.read_exact(&mut heard)?;
                assert_eq!(&heard, b"still?");
            }
        }
    }
    let stats = portdemux.stats()?;
    let limited = stats.reason("rate_limited")?.packets;
    assert!((4..=8).contains(&limited), "{limited}");
    assert_eq!(stats.rule("echo")?.dropped.packets, limited);
    Ok(())
}

fn a_shadow_counts_what_it_would_do_and_does_it_once_it_is_promoted(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(
        &lab,
        &format!(
            r#"
            [[rule]]
            name = "dns"
            port = "53/udp"

            [[rule]]
            name = "only-lan"
            port = "1-100/udp"
            from = "198.51.100.0/24"
            shadow = true

            [[rule]]
            name = "none-here"
            port = "60/udp"
            address = "{SERVER_V4}"
            to = "drop"
            shadow = true

            [[rule]]
            name = "few"
            port = "200/udp"
            rate = "1/h"
            burst = 2
            shadow = true
            "#
        ),
    )?;
    let (lan, other, other6) = ("198.51.100.1", "203.0.113.1", "2001:db8:9::1");
    let mut sent = Vec::new();
    for source in [lan, other, other6] {
        for port in [53, 60, 101, 200] {
            sent.push(datagram(source, port)?);
        }
    }
    assert_eq!(deliver(&lab, &sent)?, sent, "a shadow stops nothing");
    let packets = |rule: &str| -> Result<(u64, u64)> {
        let traffic = portdemux.stats()?.rule(rule)?;
        Ok((traffic.received.packets, traffic.dropped.packets))
    };
    assert_eq!(packets("dns")?, (3, 0));
    // Three for port 53 and, of the address that no shadow names, one for port 60.
    assert_eq!(packets("only-lan")?, (4, 3));
    assert_eq!(packets("none-here")?, (2, 2));
    assert_eq!(packets("few")?, (3, 1));
    let stats = portdemux.stats()?;
    for port in ["53/udp", "60/udp", "101/udp", "200/udp"] {
        let traffic = stats.port(port)?;
        assert_eq!(
            (traffic.received.packets, traffic.dropped.packets),
            (3, 0),
            "{port}"
        );
    }

    portdemux.ok(&["promote", "none-here"])?;
    let expected: Vec<_> = sent
        .iter()
        .enumerate()
        // Port 60 over IPv4.
        .filter(|(position, _)| !matches!(position, 1 | 5))
        .map(|(_, frame)| frame.clone())
        .collect();
    assert_eq!(deliver(&lab, &sent)?, expected);
    assert_eq!(packets("none-here")?, (4, 4), "its counters go on");
    // What a rule of the very address gets is counted by the shadow that names none.
    assert_eq!(packets("only-lan")?, (10, 7));
    Ok(())
}
