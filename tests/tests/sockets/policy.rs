//! Who may use a port is asked once, wherever the packet comes from.

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::{CLIENT_V4, SERVER_V4},
    lab::{INTERFACE, Lab},
    netns::Netns,
};

use crate::bed::{self, have, rule};

#[test]
fn a_rule_s_sources_hold_on_loopback_too() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("policy")?;
    let portdemux = Portdemux::new(&namespace)?;
    let listener = bed::listen(&namespace, "127.0.0.1:8080")?;
    bed::serve(&listener, "in")?;
    let sources = "from = [\"127.0.0.0/30\", \"2001:db8::/32\"]\ndeny = \"127.0.0.2\"";
    portdemux.apply(&rule("web", "\"80/tcp\"", "127.0.0.1:8080", sources))?;
    for (from, is_in) in [
        ("127.0.0.1", true),
        ("127.0.0.2", false),
        ("127.0.0.3", true),
        ("127.0.0.4", false),
    ] {
        let is_let_in = bed::is_let_in(&namespace, from, "127.0.0.1:80")?;
        ensure!(is_let_in == is_in, "{from}");
    }
    let stats = portdemux.stats()?;
    for (reason, count) in [
        ("rule_socket", 2),
        ("source_denied", 1),
        ("source_not_allowed", 1),
    ] {
        ensure!(stats.reason(reason)?.packets == count, "{reason}");
    }
    let web = stats.rule("web")?;
    ensure!(
        (web.received.packets, web.dropped.packets) == (4, 2),
        "{web:?}"
    );
    // Who is added to a set is out at once.
    portdemux.apply(&format!(
        "[sets]\nbanned = []\n{}",
        rule("web", "\"80/tcp\"", "127.0.0.1:8080", "deny = \"@banned\"")
    ))?;
    ensure!(bed::is_let_in(&namespace, "127.0.0.4", "127.0.0.1:80")?);
    portdemux.ok(&["set", "add", "banned", "127.0.0.4"])?;
    ensure!(!bed::is_let_in(&namespace, "127.0.0.4", "127.0.0.1:80")?);
    ensure!(bed::is_let_in(&namespace, "127.0.0.1", "127.0.0.1:80")?);
    Ok(())
}

#[test]
fn lists_that_outgrow_their_map_hold_for_sockets_too() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("many")?;
    let portdemux = Portdemux::new(&namespace)?;
    let listener = bed::listen(&namespace, "127.0.0.1:8080")?;
    bed::serve(&listener, "in")?;
    let many = |count: u32| {
        let addresses = (0..count).map(|number| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + number * 2);
            format!("\"{address}\",")
        });
        let all: String = addresses.collect();
        format!(
            "[sets]\nmany = [{all}\"127.0.0.2\"]\n{}",
            rule("web", "\"80/tcp\"", "127.0.0.1:8080", "from = \"@many\"")
        )
    };
    for count in [10, 100_000] {
        portdemux.apply(&many(count))?;
        ensure!(bed::is_let_in(&namespace, "127.0.0.2", "127.0.0.1:80")?);
        ensure!(!bed::is_let_in(&namespace, "127.0.0.3", "127.0.0.1:80")?);
    }
    Ok(())
}

#[test]
fn what_a_program_has_seen_is_counted_once_and_what_none_has_seen_is_counted_at_its_lookup()
-> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let server = bed::bind(&lab.server, "127.0.0.1:5353")?;
    let client = bed::bind(&lab.client, &bed::at(CLIENT_V4, 0))?;
    let here = bed::bind(&lab.server, "127.0.0.1:0")?;
    let rate = "from = [\"192.0.2.0/24\", \"127.0.0.0/8\"]";
    portdemux.apply(&rule("dns", "\"53/udp\"", "127.0.0.1:5353", rate))?;
    let mut datagram = [0; 16];
    let mut send = |count: usize| -> Result<()> {
        for _ in 0..count {
            client.send_to(b"far", bed::at(SERVER_V4, 53))?;
            server.recv_from(&mut datagram)?;
            here.send_to(b"near", "127.0.0.1:53")?;
            server.recv_from(&mut datagram)?;
        }
        Ok(())
    };
    // Nothing is attached: both are asked about when their socket is looked up.
    send(2)?;
    let dns = portdemux.stats()?.rule("dns")?.received;
    ensure!((dns.packets, dns.bytes) == (4, 0), "{dns:?}");
    portdemux.ok(&["attach", INTERFACE, "--mode", "generic"])?;
    send(3)?;
    let stats = portdemux.stats()?;
    let dns = stats.rule("dns")?.received;
    // An Ethernet, an IP and a UDP header, and three bytes.
    ensure!(
        (dns.packets, dns.bytes) == (10, 3 * (14 + 20 + 8 + 3)),
        "{dns:?}"
    );
    ensure!(stats.reason("rule_socket")?.packets == 10);
    let attached = stats.interface(INTERFACE)?.received.packets;
    ensure!(attached >= 3, "{attached}");
    portdemux.ok(&["detach", INTERFACE])?;
    send(1)?;
    let dns = portdemux.stats()?.rule("dns")?.received;
    ensure!(dns.packets == 12, "{dns:?}");
    Ok(())
}

#[test]
fn rates_hold_for_lookups_on_loopback() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("rates")?;
    let portdemux = Portdemux::new(&namespace)?;
    let listener = bed::listen(&namespace, "127.0.0.1:8080")?;
    bed::serve(&listener, "in")?;
    portdemux.apply(&rule(
        "web",
        "\"80/tcp\"",
        "127.0.0.1:8080",
        "new_rate = \"3/h\"",
    ))?;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(bed::connect(&namespace, "127.0.0.1:80")?);
    }
    ensure!(bed::connect(&namespace, "127.0.0.1:80").is_err());
    ensure!(bed::reason(&portdemux, "rate_limited")? == 1);
    // What has begun goes on.
    for stream in &mut streams {
        ensure!(bed::hear(stream, 2)? == "in");
        bed::talk(stream, "on")?;
    }
    Ok(())
}
