//! What somebody finds who tries every door.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
};

use crate::{Mode, SERVERS, in_both_modes};

in_both_modes! {
    a_scan_finds_open_closed_and_filtered_what_the_rules_make_so ["nmap"];
}

const RULES: &str = r#"
[default]
inbound = "INBOUND"

[[rule]]
name = "open"
port = ["22/tcp", "23/tcp", "1022/udp", "1023/udp"]

[[rule]]
name = "dropped"
port = ["80/tcp", "1080/udp"]
to = "drop"

[[rule]]
name = "rejected"
port = ["443/tcp", "1443/udp"]
to = "reject"

[[rule]]
name = "for-others"
port = ["25/tcp", "1025/udp"]
from = ["203.0.113.0/24", "2001:db8:7::/48"]

[[rule]]
name = "replies"
port = ["26/tcp", "1026/udp"]
connections = "established"
"#;

/// Where a server is on every port but those on which, without one, the host itself refuses.
const SERVED: [u16; 7] = [22, 80, 443, 25, 26, 8080, 8081];
const SERVED_UDP: [u16; 6] = [1022, 1080, 1443, 1025, 1026, 9090];

/// What nmap says of each port, by `tcp` and `udp`; `unclaimed` is what it says of one that no rule
/// claims.
fn expected(unclaimed: [&str; 2]) -> BTreeMap<String, String> {
    let tcp = [
        (22, "open"),
        (23, "closed"),
        (80, "filtered"),
        (443, "closed"),
        (25, "filtered"),
        (26, "filtered"),
        (8080, unclaimed[0]),
    ];
    // Silence is what an open port may answer, too.
    let udp = [
        (1022, "open"),
        (1023, "closed"),
        (1080, "open|filtered"),
        (1443, "closed"),
        (1025, "open|filtered"),
        (1026, "open|filtered"),
        (9090, unclaimed[1]),
    ];
    let tcp = tcp.map(|(port, state)| (format!("{port}/tcp"), state.to_owned()));
    let udp = udp.map(|(port, state)| (format!("{port}/udp"), state.to_owned()));
    tcp.into_iter().chain(udp).collect()
}

fn a_scan_finds_open_closed_and_filtered_what_the_rules_make_so(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    // One end of a pair is not woken for what the other sends back unless it has a program of its own.
    let hears = Portdemux::new(&lab.client)?;
    hears.ok(&["attach", INTERFACE, "--mode", "native"])?;
    let portdemux = mode.attach(&lab)?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut listeners = Vec::new();
        for server in SERVERS {
            for port in SERVED {
                let at = SocketAddr::new(server, port);
                listeners.push(lab.server.enter(|| Ok(TcpListener::bind(at)?))?);
            }
            for port in SERVED_UDP {
                let at = SocketAddr::new(server, port);
                let socket = lab.server.enter(|| Ok(UdpSocket::bind(at)?))?;
                let is_over = &is_over;
                scope.spawn(move || answer(&socket, is_over));
            }
        }
        let scans = || -> Result<()> {
            for (inbound, unclaimed) in [
                ("drop", ["filtered", "open|filtered"]),
                ("reject", ["closed", "closed"]),
            ] {
                portdemux.apply(&RULES.replace("INBOUND", inbound))?;
                for server in SERVERS {
                    let expected = expected(unclaimed);
                    let found = scan(&lab, &server.to_string(), &["-sS", "-sU"])?;
                    assert_eq!(found, expected, "{inbound}, {server}");
                    let (found, mut expected) =
                        (scan(&lab, &server.to_string(), &["-sT"])?, expected);
                    expected.retain(|port, _| port.ends_with("/tcp"));
                    assert_eq!(found, expected, "{inbound}, {server}, by connecting");
                }
            }
            Ok(())
        };
        let result = scans();
        is_over.store(true, Ordering::Relaxed);
        result
    })
}

/// Answers every datagram.
fn answer(socket: &UdpSocket, is_over: &AtomicBool) {
    let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
    while !is_over.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut [0; 2048]) {
            let _ = socket.send_to(b"here", from);
        }
    }
}

/// What nmap finds.
fn scan(lab: &Lab, address: &str, kinds: &[&str]) -> Result<BTreeMap<String, String>> {
    let tcp = "T:22,23,80,443,25,26,8080";
    let ports = if kinds.contains(&"-sU") {
        format!("{tcp},U:1022,1023,1080,1443,1025,1026,9090")
    } else {
        tcp.to_owned()
    };
    let mut arguments = vec![
        "-n",
        "-Pn",
        "--send-ip",
        "--max-retries",
        "1",
        "-T5",
        "-oG",
        "-",
    ];
    if address.contains(':') {
        arguments.push("-6");
    }
    arguments.extend(kinds);
    arguments.extend(["-p", &ports, address]);
    let said = lab.client.run("nmap", &arguments)?.success()?.stdout;
    // Host: ADDRESS ()	Ports: 22/open/tcp//ssh///, 23/closed/tcp//telnet///
    let list = said
        .lines()
        .find_map(|line| line.split_once("Ports: "))
        .with_context(|| said.clone())?
        .1;
    let list = list.split('\t').next().unwrap_or_default();
    Ok(list
        .split(", ")
        .filter_map(|entry| {
            let mut words = entry.split('/');
            let (port, state, protocol) = (words.next()?, words.next()?, words.next()?);
            Some((format!("{port}/{protocol}"), state.to_owned()))
        })
        .collect())
}
