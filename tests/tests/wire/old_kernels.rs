//! The ways of kernels before Linux 6.6: what is sent is seen by a filter of the qdisc `clsact`; and, before
//! 5.18, no program takes frames in several buffers.
//!
//! The kernel is the one that the tests run on; it only says that it is an old one.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::{CLIENT_V4, CLIENT_V6},
    lab::{INTERFACE, Lab},
    wait::PATIENCE,
};
use serde_json::Value;

use crate::{Mode, in_both_modes};

in_both_modes! {
    flows_are_tracked_by_a_filter_before_linux_6_6 ["cc" "tc"];
    flows_are_tracked_by_a_filter_before_linux_5_18 ["cc" "tc"];
    a_filter_goes_with_its_interface_whatever_that_is_called ["cc" "tc"];
}

const PASS: &str = "# everything passes\n";
const DENY: &str = "[default]\ninbound = \"drop\"\n";
const DENY_WITH_LARGER_TABLES: &str = "[default]\ninbound = \"drop\"\n[flows]\nsize = 300000\n";
const CLIENTS: [IpAddr; 2] = [IpAddr::V4(CLIENT_V4), IpAddr::V6(CLIENT_V6)];

fn attach<'l>(lab: &'l Lab, mode: Mode, version: &str) -> Result<Portdemux<'l>> {
    let mut portdemux = Portdemux::new(&lab.server)?;
    portdemux.pretend_kernel(version)?;
    portdemux.ok(&["attach", INTERFACE, "--mode", mode.name()])?;
    Ok(portdemux)
}

/// The ids of the programs of filters for what an interface sends.
fn filters(lab: &Lab, interface: &str) -> Result<Vec<u64>> {
    let said = lab
        .server
        .run(
            "tc",
            &["-json", "filter", "show", "dev", interface, "egress"],
        )?
        .success()?
        .stdout;
    if said.trim().is_empty() {
        return Ok(Vec::new());
    }
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let list = said.as_array().context("a list")?;
    Ok(list
        .iter()
        .filter(|filter| filter["options"]["bpf_name"] == "portdemux_sent")
        .filter_map(|filter| filter["options"]["prog"]["id"].as_u64())
        .collect())
}

fn links(portdemux: &Portdemux) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(portdemux.pins())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("link") || name.starts_with("sent") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A connection that the server has to a client.
fn connect(lab: &Lab, client: IpAddr) -> Result<(TcpStream, TcpStream)> {
    let listener = lab
        .client
        .enter(|| Ok(TcpListener::bind(SocketAddr::new(client, 0))?))?;
    let to = listener.local_addr()?;
    let ours = lab
        .server
        .enter(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))?;
    let (theirs, _) = listener.accept()?;
    for stream in [&ours, &theirs] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((ours, theirs))
}

fn talk((ours, theirs): &mut (TcpStream, TcpStream)) -> Result<()> {
    let mut heard = [0; 5];
    theirs.write_all(b"well?")?;
    ours.read_exact(&mut heard).context("hear the peer")?;
    ours.write_all(b"yes.\n")?;
    theirs.read_exact(&mut heard).context("hear the host")?;
    Ok(())
}

/// Whether a datagram of the server's is answered, which only a flow lets in.
fn asks(lab: &Lab, client: IpAddr, server_port: u16) -> Result<()> {
    let peer = lab
        .client
        .enter(|| Ok(UdpSocket::bind(SocketAddr::new(client, 0))?))?;
    let any: IpAddr = if client.is_ipv4() {
        IpAddr::V4(portdemux_tests::frames::SERVER_V4)
    } else {
        IpAddr::V6(portdemux_tests::frames::SERVER_V6)
    };
    let host = lab
        .server
        .enter(|| Ok(UdpSocket::bind(SocketAddr::new(any, server_port))?))?;
    for socket in [&peer, &host] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    host.send_to(b"well?", peer.local_addr()?)?;
    let (_, from) = peer.recv_from(&mut [0; 8])?;
    peer.send_to(b"yes.", from)?;
    host.recv_from(&mut [0; 8]).context("hear the answer")?;
    Ok(())
}

fn tracked_by_a_filter(mode: Mode, version: &str) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = attach(&lab, mode, version)?;
    assert!(filters(&lab, INTERFACE)?.is_empty());
    // One from before flows are tracked.
    let mut first = connect(&lab, CLIENTS[0])?;
    portdemux.apply(DENY)?;
    assert_eq!(links(&portdemux)?, ["link0"]);
    let before = filters(&lab, INTERFACE)?;
    assert_eq!(before.len(), 1);
    talk(&mut first)?;
    for client in CLIENTS {
        asks(&lab, client, 0)?;
        talk(&mut connect(&lab, client)?)?;
        // Nobody begins anything.
        let server = if client.is_ipv4() {
            IpAddr::V4(portdemux_tests::frames::SERVER_V4)
        } else {
            IpAddr::V6(portdemux_tests::frames::SERVER_V6)
        };
        let closed = lab
            .server
            .enter(|| Ok(TcpListener::bind(SocketAddr::new(server, 80))?))?;
        let to = closed.local_addr()?;
        let refused = lab.client.enter(|| {
            let timeout = std::time::Duration::from_millis(300);
            Ok(TcpStream::connect_timeout(&to, timeout).is_err())
        })?;
        ensure!(refused, "{to} is open");
    }
    assert_eq!(
        portdemux.json(&["status"])?["interfaces"][0]["state"],
        "attached"
    );

    // What begins while the tables are made anew may be forgotten; who is known stays so.
    portdemux.apply(DENY_WITH_LARGER_TABLES)?;
    talk(&mut first)?;
    // Replaced in place while the host asks all the time; no packet that it sends goes unseen.
    let mut second = connect(&lab, CLIENTS[1])?;
    thread::scope(|scope| -> Result<()> {
        let asking = scope.spawn(|| {
            (0..150_u16).try_for_each(|number| {
                asks(&lab, CLIENTS[usize::from(number % 2)], 20_000 + number)
            })
        });
        for _ in 0..2 {
            portdemux.ok(&["attach", INTERFACE])?;
        }
        asking.join().expect("it does not panic")
    })?;
    let after = filters(&lab, INTERFACE)?;
    ensure!(after.len() == 1 && after != before, "{before:?}, {after:?}");
    talk(&mut first)?;
    talk(&mut second)?;

    portdemux.apply(PASS)?;
    assert!(filters(&lab, INTERFACE)?.is_empty());
    portdemux.apply(DENY)?;
    assert_eq!(filters(&lab, INTERFACE)?.len(), 1);
    portdemux.ok(&["detach", INTERFACE])?;
    assert!(filters(&lab, INTERFACE)?.is_empty());
    portdemux.ok(&["attach", INTERFACE, "--mode", mode.name()])?;
    assert_eq!(filters(&lab, INTERFACE)?.len(), 1);
    asks(&lab, CLIENTS[0], 0)?;
    portdemux.ok(&["detach", "--all"])?;
    assert!(filters(&lab, INTERFACE)?.is_empty());
    Ok(())
}

fn flows_are_tracked_by_a_filter_before_linux_6_6(mode: Mode) -> Result<()> {
    tracked_by_a_filter(mode, "6.5.0")
}

fn flows_are_tracked_by_a_filter_before_linux_5_18(mode: Mode) -> Result<()> {
    tracked_by_a_filter(mode, "5.15.0")
}

fn a_filter_goes_with_its_interface_whatever_that_is_called(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = attach(&lab, mode, "6.1.0")?;
    portdemux.apply(DENY)?;
    lab.server
        .ip(&["link", "set", INTERFACE, "down"])
        .and_then(|_| {
            lab.server
                .ip(&["link", "set", INTERFACE, "name", "uplink", "up"])
        })?;
    assert_eq!(filters(&lab, "uplink")?.len(), 1);
    portdemux.apply(PASS)?;
    assert!(filters(&lab, "uplink")?.is_empty());
    portdemux.apply(DENY)?;
    assert_eq!(filters(&lab, "uplink")?.len(), 1);
    portdemux.ok(&["detach", "--all"])?;
    assert!(filters(&lab, "uplink")?.is_empty());
    Ok(())
}
