//! What happens to what comes while no socket is there.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::{SERVER_V4, SERVER_V6},
    lab::{INTERFACE, Lab},
    netns::Netns,
    wait::PATIENCE,
};

use crate::bed::{self, have, rule};

/// How long nothing is heard for it to be silence.
const SILENCE: Duration = Duration::from_millis(300);

const RULES: [(&str, &str, &str); 3] = [
    ("rejected", "80", "reject"),
    ("left", "81", "local"),
    ("dropped", "82", "drop"),
];

fn rules() -> String {
    let rule = |&(name, port, fallback): &(&str, &str, &str)| {
        let ports = format!("[\"{port}/tcp\", \"{port}/udp\"]");
        rule(
            name,
            &ports,
            "127.0.0.1:8080",
            &format!("fallback = \"{fallback}\""),
        )
    };
    RULES.iter().map(rule).collect()
}

/// Whether a datagram to a port is answered with an ICMP error.
fn is_told(namespace: &Netns, to: &str) -> Result<bool> {
    let to: SocketAddr = to.parse()?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = bed::bind(namespace, any)?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.connect(to)?;
    socket.send(b"anybody?")?;
    let mut answer = [0; 16];
    match socket.recv(&mut answer) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        other => anyhow::bail!("{other:?}"),
    }
}

#[test]
fn the_fallback_of_a_rule_is_obeyed_on_loopback_where_drop_tells_the_sender() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("missing")?;
    let portdemux = Portdemux::new(&namespace)?;
    portdemux.apply(&rules())?;
    let listener = bed::listen(&namespace, "127.0.0.1:81")?;
    bed::serve(&listener, "local")?;
    ensure!(bed::connect(&namespace, "127.0.0.1:80").is_err());
    let mut stream = bed::connect(&namespace, "127.0.0.1:81")?;
    ensure!(bed::hear(&mut stream, 5)? == "local");
    // The kernel answers for itself, as no program runs where it could be dropped.
    ensure!(bed::connect(&namespace, "127.0.0.1:82").is_err());
    ensure!(is_told(&namespace, "127.0.0.1:80")?);
    ensure!(is_told(&namespace, "127.0.0.1:82")?);
    let stats = portdemux.stats()?;
    for (name, _, fallback) in RULES {
        let rule = stats.rule(name)?;
        let dropped = if fallback == "local" { 0 } else { 2 };
        ensure!(rule.dropped.packets == dropped, "{name}: {rule:?}");
    }
    ensure!(stats.reason("no_socket")?.packets == 5);
    // Somebody comes, and gets all three.
    let listener = bed::listen(&namespace, "127.0.0.1:8080")?;
    bed::serve(&listener, "there")?;
    for (_, port, _) in RULES {
        let mut stream = bed::connect(&namespace, &format!("127.0.0.1:{port}"))?;
        ensure!(bed::hear(&mut stream, 5)? == "there", "{port}");
    }
    Ok(())
}

#[test]
fn where_a_program_sees_packets_first_the_fallback_drop_is_silent() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE, "--mode", "generic"])?;
    portdemux.apply(&rules().replace("127.0.0.1:8080", "[::]:8080"))?;
    let server = |port: &str, v6: bool| {
        let port = port.parse().unwrap_or_default();
        if v6 {
            bed::at(SERVER_V6, port)
        } else {
            bed::at(SERVER_V4, port)
        }
    };
    for v6 in [false, true] {
        for (name, port, fallback) in RULES {
            let to = server(port, v6);
            let is_silent = fallback == "drop";
            let address: SocketAddr = to.parse()?;
            let connected = lab
                .client
                .enter(|| Ok(TcpStream::connect_timeout(&address, SILENCE)))?;
            let kind = connected.map(drop).map_err(|error| error.kind());
            let expected = if is_silent {
                ErrorKind::TimedOut
            } else {
                // Nobody listens on the port itself either.
                ErrorKind::ConnectionRefused
            };
            ensure!(kind == Err(expected), "{name} at {to}: {kind:?}");
            ensure!(is_told(&lab.client, &to)? != is_silent, "{name} at {to}");
        }
    }
    let stats = portdemux.stats()?;
    let none = stats.reason("no_socket")?;
    // A SYN and a datagram for each rule and version. Each is counted once, by who saw it first.
    ensure!(none.packets == 12 && none.bytes > 12 * 28, "{none:?}");
    ensure!(bed::reason(&portdemux, "rule_socket")? == 0);
    for (name, _, fallback) in RULES {
        let rule = stats.rule(name)?;
        let dropped = if fallback == "local" { 0 } else { 4 };
        ensure!(
            (rule.received.packets, rule.dropped.packets) == (4, dropped),
            "{name}: {rule:?}"
        );
    }
    // Somebody comes.
    let listener = bed::listen(&lab.server, "[::]:8080")?;
    bed::serve(&listener, "there")?;
    for v6 in [false, true] {
        for (_, port, _) in RULES {
            let to: SocketAddr = server(port, v6).parse()?;
            let mut stream = lab
                .client
                .enter(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))?;
            ensure!(bed::hear(&mut stream, 5)? == "there", "{to}");
        }
    }
    ensure!(bed::reason(&portdemux, "no_socket")? == 12);
    Ok(())
}
