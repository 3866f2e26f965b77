//! Sockets that are registered under a name.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd as _},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::{self, CLIENT_MAC, With as _},
    lab::{INTERFACE, Lab},
    netns::Netns,
    run::Output,
    veth,
    wait::{PATIENCE, wait_for, wait_until},
};

use crate::bed::{self, have, rule};

/// Registers a socket of this process.
fn register(portdemux: &Portdemux, name: &str, socket: impl AsFd) -> Result<Output> {
    let pid = std::process::id().to_string();
    let descriptor = socket.as_fd().as_raw_fd().to_string();
    portdemux.ok(&["socket", "add", name, "--pid", &pid, "--fd", &descriptor])
}

fn unregister(portdemux: &Portdemux, name: &str, socket: impl AsFd) -> Result<Output> {
    let pid = std::process::id().to_string();
    let descriptor = socket.as_fd().as_raw_fd().to_string();
    portdemux.ok(&["socket", "remove", name, "--pid", &pid, "--fd", &descriptor])
}

/// Which of the servers gets a datagram of each client.
fn owners(clients: &[UdpSocket], servers: &[&UdpSocket]) -> Result<BTreeMap<u16, usize>> {
    for client in clients {
        client.send_to(b"whose?", "127.0.0.1:53")?;
    }
    let mut owners = BTreeMap::new();
    for (number, server) in servers.iter().enumerate() {
        server.set_read_timeout(Some(Duration::from_millis(1)))?;
        let mut datagram = [0; 16];
        // On loopback it is there when the sender is done.
        while let Ok((_, from)) = server.recv_from(&mut datagram) {
            ensure!(owners.insert(from.port(), number).is_none(), "{from} twice");
        }
    }
    ensure!(owners.len() == clients.len(), "{owners:?}");
    Ok(owners)
}

#[test]
fn datagrams_are_shared_by_flow_and_who_leaves_takes_only_his_own_with_him() -> Result<()> {
    const CLIENTS: usize = 240;
    const SERVERS: usize = 8;
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("udp")?;
    let portdemux = Portdemux::new(&namespace)?;
    let bind = |_| bed::bind(&namespace, "127.0.0.1:0");
    let servers: Vec<UdpSocket> = (0..SERVERS).map(bind).collect::<Result<_>>()?;
    let clients: Vec<UdpSocket> = (0..CLIENTS).map(bind).collect::<Result<_>>()?;
    for server in &servers {
        register(&portdemux, "dns", server)?;
    }
    portdemux.apply(&rule("dns", "\"53/udp\"", "dns", ""))?;
    let all: Vec<&UdpSocket> = servers.iter().collect();
    let before = owners(&clients, &all)?;
    let mut shares = [0; SERVERS];
    for &owner in before.values() {
        shares[owner] += 1;
    }
    // 30 each on average; that a fair hash gives one less than 8 or more than 60 is no chance.
    ensure!(
        shares.iter().all(|share| (8..60).contains(share)),
        "{shares:?}"
    );
    ensure!(owners(&clients, &all)? == before, "a flow moved");

    let moved = |before: &BTreeMap<u16, usize>, after: &BTreeMap<u16, usize>| -> BTreeSet<u16> {
        let differ = before.iter().filter(|(port, owner)| after[port] != **owner);
        differ.map(|(port, _)| *port).collect()
    };
    let of = |owners: &BTreeMap<u16, usize>, who: usize| -> BTreeSet<u16> {
        let his = owners.iter().filter(|(_, owner)| **owner == who);
        his.map(|(port, _)| *port).collect()
    };
    // One is removed; the same when one is closed.
    unregister(&portdemux, "dns", &servers[3])?;
    let after = owners(&clients, &all)?;
    ensure!(moved(&before, &after) == of(&before, 3));
    // It comes back and gets them back.
    register(&portdemux, "dns", &servers[3])?;
    ensure!(owners(&clients, &all)? == before);
    let mut servers = servers;
    let closed = servers.remove(5);
    drop(closed);
    let rest: Vec<&UdpSocket> = servers.iter().collect();
    let after = owners(&clients, &rest)?;
    // Those behind it have moved up in this list.
    let after: BTreeMap<u16, usize> = after
        .into_iter()
        .map(|(port, owner)| (port, owner + usize::from(owner >= 5)))
        .collect();
    ensure!(moved(&before, &after) == of(&before, 5));
    let listed = portdemux.json(&["socket", "list"])?;
    let members = listed["sockets"][0]["members"]
        .as_array()
        .context("members")?;
    ensure!(members.len() == SERVERS - 1, "{listed}");
    let received = portdemux.stats()?.rule("dns")?.received;
    ensure!(received.packets == 5 * CLIENTS as u64, "{received:?}");
    Ok(())
}

#[test]
fn a_listener_that_is_removed_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("drain")?;
    let portdemux = Portdemux::new(&namespace)?;
    portdemux.apply(&rule("web", "\"80/tcp\"", "web", ""))?;
    ensure!(bed::connect(&namespace, "127.0.0.1:80").is_err());
    let old = bed::listen(&namespace, "127.0.0.1:0")?;
    register(&portdemux, "web", &old)?;
    // Connected, and not yet accepted.
    let mut waiting = bed::connect(&namespace, "127.0.0.1:80")?;
    let mut open = bed::connect(&namespace, "127.0.0.1:80")?;
    let new = bed::listen(&namespace, "127.0.0.1:0")?;
    register(&portdemux, "web", &new)?;
    unregister(&portdemux, "web", &old)?;
    bed::serve(&old, "old")?;
    bed::serve(&new, "new")?;
    for stream in [&mut waiting, &mut open] {
        ensure!(bed::hear(stream, 3)? == "old");
        bed::talk(stream, "still there")?;
    }
    for _ in 0..8 {
        let mut stream = bed::connect(&namespace, "127.0.0.1:80")?;
        ensure!(bed::hear(&mut stream, 3)? == "new");
    }
    // Whatever becomes of the rules, the name keeps its sockets.
    portdemux.apply("# nothing\n")?;
    ensure!(bed::connect(&namespace, "127.0.0.1:80").is_err());
    let again = rule("web", "\"81/tcp\"", "web", "");
    portdemux.apply(&again)?;
    let mut stream = bed::connect(&namespace, "127.0.0.1:81")?;
    ensure!(bed::hear(&mut stream, 3)? == "new");
    let said = portdemux.ok(&["socket", "remove", "web"])?.stdout;
    ensure!(said.starts_with("- web  1 socket"), "{said}");
    ensure!(bed::connect(&namespace, "127.0.0.1:81").is_err());
    bed::talk(&mut stream, "still there")
}

#[test]
fn connections_are_shared_among_the_listeners_of_a_name() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("shared")?;
    let portdemux = Portdemux::new(&namespace)?;
    let words = ["one", "two", "six"];
    let mut listeners = Vec::new();
    for word in words {
        let listener = bed::listen(&namespace, "127.0.0.1:0")?;
        register(&portdemux, "web", &listener)?;
        bed::serve(&listener, word)?;
        listeners.push(listener);
    }
    portdemux.apply(&rule("web", "\"80/tcp\"", "web", ""))?;
    let mut heard = BTreeMap::new();
    for _ in 0..90 {
        let mut stream = bed::connect(&namespace, "127.0.0.1:80")?;
        *heard.entry(bed::hear(&mut stream, 3)?).or_insert(0) += 1;
    }
    ensure!(
        words.iter().all(|word| heard.get(*word) > Some(&8)),
        "{heard:?}"
    );
    Ok(())
}

#[test]
fn a_connection_that_was_being_opened_when_its_listener_was_removed_comes_about() -> Result<()> {
    /// Of nobody, so that no stack answers for it.
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
    const ACK: u8 = 16;
    const SYN_ACK: u8 = 18;
    if !have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    veth::add_neighbour(&lab.server, INTERFACE, PEER.into(), CLIENT_MAC)?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(&rule("web", "\"80/tcp\"", "web", "fallback = \"drop\""))?;
    let listener = bed::listen(&lab.server, "0.0.0.0:0")?;
    register(&portdemux, "web", &listener)?;
    let peer = lab.client_socket()?;
    let send = |segment: frames::Tcp| {
        let packet = frames::ipv4(segment).with(|ip| ip.source = PEER);
        peer.send(&packet.frame().bytes())
    };
    // The number that the server begins with, once it has answered; its address and port are as they
    // stand behind an Ethernet header and one of IPv4 without options.
    let begun = |port: u16| -> Result<Option<u32>> {
        while let Some(frame) = peer.receive(Duration::from_millis(50))? {
            let is_it = frame.get(30..34) == Some(&PEER.octets())
                && frame.get(36..38) == Some(&port.to_be_bytes())
                && frame.get(47) == Some(&SYN_ACK);
            if is_it && let Some(&[a, b, c, d]) = frame.get(38..42) {
                return Ok(Some(u32::from_be_bytes([a, b, c, d])));
            }
        }
        Ok(None)
    };
    send(frames::tcp(5000, 80))?;
    let number = wait_for("the answer to a SYN", PATIENCE, || begun(5000))?;
    let said = unregister(&portdemux, "web", &listener)?.stdout;
    ensure!(said.starts_with("- web  1 socket"), "{said}");
    // Nothing begins any more, and what has begun is completed.
    send(frames::tcp(5001, 80))?;
    let missed = || Ok(bed::reason(&portdemux, "no_socket")? == 1);
    wait_until("a packet for nobody", PATIENCE, missed)?;
    send(frames::tcp(5000, 80).with(|tcp| {
        tcp.sequence += 1;
        tcp.acknowledgement = number.wrapping_add(1);
        tcp.flags = ACK;
        tcp.data = b"still there".to_vec();
    }))?;
    listener.set_nonblocking(true)?;
    let accepted = || match listener.accept() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        accepted => Ok(Some(accepted?)),
    };
    let (mut stream, from) = wait_for("the connection", PATIENCE, accepted)?;
    ensure!(from == (PEER, 5000).into(), "{from}");
    stream.set_read_timeout(Some(PATIENCE))?;
    ensure!(bed::hear(&mut stream, 11)? == "still there");
    ensure!(begun(5001)?.is_none());
    Ok(())
}
