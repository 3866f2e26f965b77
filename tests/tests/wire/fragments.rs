//! Datagrams that are longer than the wire carries.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType};
use portdemux_tests::{
    cli::Portdemux,
    frames::{self, CLIENT_V4, CLIENT_V6, With as _, ipv4, ipv6, tcp, udp},
    lab::Lab,
    netns::Netns,
    raw::RawSocket,
    wait::{PATIENCE, wait_to_bind, wait_until},
};

use crate::{Mode, SERVERS, deliver, in_both_modes};

in_both_modes! {
    a_long_datagram_for_a_claimed_port_arrives_whole_where_all_else_is_dropped [];
    no_fragment_for_a_port_that_a_rule_drops_reaches_the_stack [];
    fragments_before_their_first_one_are_held_to_what_becomes_of_unclaimed_packets [];
    a_long_reply_comes_in_where_nothing_is_claimed [];
    a_long_echo_comes_back_though_icmp_is_dropped [];
    what_covers_a_header_is_dropped [];
    a_change_of_rules_forgets_first_fragments [];
}

/// Six fragments on a wire with an MTU of 1,500, of either version.
const LONG: usize = 8000;
const PIECES: u64 = 6;

const RULES: &str = r#"
[default]
inbound = "INBOUND"
fragments = "track"

[[rule]]
name = "open"
port = ["7000/udp", "7000/tcp"]

[[rule]]
name = "closed"
port = "7001/udp"
to = "drop"
"#;

fn rules(inbound: &str) -> String {
    RULES.replace("INBOUND", inbound)
}

fn socket(namespace: &Netns, address: impl Into<SocketAddr>) -> Result<UdpSocket> {
    let address = address.into();
    let socket = namespace.enter(|| wait_to_bind(|| UdpSocket::bind(address)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Bytes of which no two fragments have the same.
fn long() -> Vec<u8> {
    (0..LONG as u64 / 8).flat_map(u64::to_be_bytes).collect()
}

fn receive(socket: &UdpSocket) -> Result<(Vec<u8>, SocketAddr)> {
    let mut bytes = vec![0; 2 * LONG];
    let (length, from) = socket.recv_from(&mut bytes).context("a datagram")?;
    bytes.truncate(length);
    Ok((bytes, from))
}

/// How many fragments and how many whole packets the stack of a namespace has made of them.
fn reassembled(namespace: &Netns) -> Result<(u64, u64)> {
    namespace.enter(|| {
        let v6 = fs::read_to_string("/proc/thread-self/net/snmp6")?;
        let v4 = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let mut lines = v4.lines().filter(|line| line.starts_with("Ip: "));
        let (names, values) = lines.next().zip(lines.next()).context("no line of IP")?;
        let number = |name: &str| -> Result<u64> {
            let mut pairs = names.split(' ').zip(values.split(' '));
            let v4 = pairs.find(|(known, _)| *known == name);
            let (_, v4) = v4.with_context(|| format!("no {name}"))?;
            let v6 = v6.lines().find_map(|line| {
                let rest = line.strip_prefix("Ip6")?.strip_prefix(name)?;
                Some(rest.trim())
            });
            let v6 = v6.with_context(|| format!("no Ip6{name}"))?;
            Ok(v4.parse::<u64>()? + v6.parse::<u64>()?)
        };
        Ok((number("ReasmReqds")?, number("ReasmOKs")?))
    })
}

fn a_long_datagram_for_a_claimed_port_arrives_whole_where_all_else_is_dropped(
    mode: Mode,
) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, &rules("drop"))?;
    for server in SERVERS {
        let waiting = socket(&lab.server, (server, 7000))?;
        let asking = socket(&lab.client, (client_of(server), 0))?;
        asking.send_to(&long(), (server, 7000))?;
        let (bytes, _) = receive(&waiting)?;
        ensure!(bytes == long(), "{server}: {} bytes came", bytes.len());
    }
    let stats = portdemux.stats()?;
    let open = stats.rule("open")?;
    assert_eq!(
        (open.received.packets, open.dropped.packets),
        (2 * PIECES, 0)
    );
    assert_eq!(stats.port("7000/udp")?, open);
    assert_eq!(stats.reason("rule_local")?, open.received);
    Ok(())
}

/// The client's address of the same version.
fn client_of(server: IpAddr) -> IpAddr {
    if server.is_ipv4() {
        CLIENT_V4.into()
    } else {
        CLIENT_V6.into()
    }
}

fn no_fragment_for_a_port_that_a_rule_drops_reaches_the_stack(mode: Mode) -> Result<()> {
    for inbound in ["pass", "drop"] {
        let lab = Lab::new()?;
        let portdemux = mode.attach_with_rules(&lab, &rules(inbound))?;
        for server in SERVERS {
            let asking = socket(&lab.client, (client_of(server), 0))?;
            asking.send_to(&long(), (server, 7001))?;
        }
        wait_until("all fragments", PATIENCE, || {
            Ok(portdemux.stats()?.rule("closed")?.received.packets == 2 * PIECES)
        })?;
        let stats = portdemux.stats()?;
        let closed = stats.rule("closed")?;
        assert_eq!(closed.dropped, closed.received);
        assert_eq!(stats.port("7001/udp")?, closed);
        assert_eq!(stats.reason("rule_drop")?, closed.received);
        assert_eq!(reassembled(&lab.server)?, (0, 0));
    }
    Ok(())
}

/// A long datagram for a port in fragments, the last one first, of both versions; its identification is
/// the port.
fn backwards(port: u16) -> Vec<Vec<u8>> {
    let datagram = || udp(40_000, port).with(|udp| udp.data = long());
    let v4 = ipv4(datagram()).with(|ip| ip.id = port).fragments(1480);
    let mut v6 = ipv6(datagram()).fragments(1448);
    for header in v6.iter_mut().flat_map(|piece| &mut piece.extensions) {
        header.body[2..4].copy_from_slice(&port.to_be_bytes());
    }
    let v4 = v4.iter().rev().map(|piece| piece.frame().bytes());
    let v6 = v6.iter().rev().map(|piece| piece.frame().bytes());
    v4.chain(v6).collect()
}

fn send(client: &RawSocket, frames: &[Vec<u8>]) -> Result<()> {
    thread::scope(|scope| {
        let send = || -> Result<()> {
            crate::stay_on_one_cpu()?;
            frames.iter().try_for_each(|frame| client.send(frame))
        };
        scope.spawn(send).join().expect("it does not panic")
    })
}

fn received(portdemux: &Portdemux<'_>) -> Result<u64> {
    let reasons = portdemux.stats()?.reasons()?;
    Ok(reasons.iter().map(|(_, count)| count.packets).sum())
}

fn fragments_before_their_first_one_are_held_to_what_becomes_of_unclaimed_packets(
    mode: Mode,
) -> Result<()> {
    for (inbound, passes) in [("pass", true), ("drop", false)] {
        let lab = Lab::new()?;
        let portdemux = mode.attach_with_rules(&lab, &rules(inbound))?;
        let waiting = SERVERS
            .iter()
            .map(|&server| socket(&lab.server, (server, 7000)))
            .collect::<Result<Vec<_>>>()?;
        let client = lab.client_socket()?;
        send(&client, &backwards(7000))?;
        wait_until("all fragments", PATIENCE, || {
            Ok(received(&portdemux)? == 2 * PIECES)
        })?;
        let stats = portdemux.stats()?;
        let unknown = stats.reason("fragment_unknown")?.packets;
        assert_eq!(unknown, 2 * (PIECES - 1), "{inbound}");
        assert_eq!(stats.rule("open")?.received.packets, 2, "{inbound}");
        let dropped = stats.interface("wire0")?.dropped.packets;
        assert_eq!(dropped, if passes { 0 } else { unknown }, "{inbound}");
        if passes {
            for socket in &waiting {
                assert_eq!(receive(socket)?.0, long());
            }
        }
        // What passed before its first one came to nothing, as that did not pass.
        let before = reassembled(&lab.server)?;
        send(&client, &backwards(7001))?;
        wait_until("all fragments", PATIENCE, || {
            Ok(received(&portdemux)? == 4 * PIECES)
        })?;
        assert_eq!(portdemux.stats()?.rule("closed")?.dropped.packets, 2);
        assert_eq!(reassembled(&lab.server)?.1, before.1, "{inbound}");
    }
    Ok(())
}

fn a_long_reply_comes_in_where_nothing_is_claimed(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(
        &lab,
        "[default]\ninbound = \"drop\"\nfragments = \"track\"\n",
    )?;
    for server in SERVERS {
        let peer = socket(&lab.client, (client_of(server), 7000))?;
        let asking = socket(&lab.server, (server, 0))?;
        asking.send_to(&long(), peer.local_addr()?)?;
        let (bytes, from) = receive(&peer)?;
        peer.send_to(&bytes, from)?;
        assert_eq!(receive(&asking)?.0, long());
    }
    let stats = portdemux.stats()?;
    assert_eq!(stats.reason("reply")?.packets, 2 * PIECES);
    assert_eq!(stats.interface("wire0")?.dropped.packets, 0);
    Ok(())
}

/// A socket whose datagrams are echo requests to an address.
fn ping(namespace: &Netns, to: IpAddr) -> Result<UdpSocket> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = namespace.enter(|| {
        // Of both versions; otherwise nobody may.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(socket::socket(family, SockType::Datagram, flags, protocol)?)
    })?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((to, 0))?;
    Ok(socket)
}

/// An echo request; the kernel fills in the identifier and the checksum.
fn echo_request(to: IpAddr) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    [&[kind, 0, 0, 0, 0, 0, 0, 1], &*long()].concat()
}

fn a_long_echo_comes_back_though_icmp_is_dropped(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(
        &lab,
        "[default]\ninbound = \"drop\"\nfragments = \"track\"\nicmp = \"drop\"\n",
    )?;
    for server in SERVERS {
        let client = client_of(server);
        let socket = ping(&lab.server, client)?;
        socket.send(&echo_request(client))?;
        let (reply, _) = receive(&socket)?;
        ensure!(reply[8..] == long(), "{} bytes came back", reply.len());
    }
    let stats = portdemux.stats()?;
    assert_eq!(stats.reason("reply")?.packets, 2 * PIECES);
    assert_eq!(stats.interface("wire0")?.dropped.packets, 0);
    // Nobody gets in who was not asked.
    for server in SERVERS {
        ping(&lab.client, server)?.send(&echo_request(server))?;
    }
    wait_until("all fragments", PATIENCE, || {
        Ok(portdemux.stats()?.reason("icmp_policy")?.packets == 2 * PIECES)
    })?;
    let dropped = portdemux.stats()?.interface("wire0")?.dropped.packets;
    assert_eq!(dropped, 2 * PIECES);
    Ok(())
}

fn what_covers_a_header_is_dropped(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, &rules("pass"))?;
    let later = |id, offset| {
        ipv4(frames::other(frames::TCP, [2; 40]))
            .with(|ip| (ip.id, ip.offset) = (id, offset))
            .frame()
            .bytes()
    };
    let segment = tcp(40_000, 7000).with(|tcp| tcp.data = vec![0; 1000]);
    let first = ipv4(segment).with(|ip| ip.id = 1).fragments(800).remove(0);
    let frames = [
        (first.frame().bytes(), true),
        (later(1, 100), true),
        // Over the data of the first one; then nothing more of it.
        (later(1, 99), false),
        (later(1, 100), false),
        // Over the header of one that is not known (RFC 3128).
        (later(2, 1), false),
        (later(2, 2), false),
        (later(2, 3), true),
    ];
    let sent: Vec<_> = frames.iter().map(|(frame, _)| frame.clone()).collect();
    let passing = frames.into_iter().filter(|(_, passes)| *passes);
    let expected: Vec<_> = passing.map(|(frame, _)| frame).collect();
    assert_eq!(deliver(&lab, &sent)?, expected);
    let stats = portdemux.stats()?;
    assert_eq!(stats.reason("fragment_overlap")?.packets, 4);
    assert_eq!(stats.reason("fragment_unknown")?.packets, 1);
    let open = stats.rule("open")?;
    assert_eq!((open.received.packets, open.dropped.packets), (4, 2));
    Ok(())
}

fn a_change_of_rules_forgets_first_fragments(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, &rules("drop"))?;
    let datagram = udp(40_000, 7000).with(|udp| udp.data = long());
    let pieces: Vec<_> = ipv4(datagram)
        .fragments(1480)
        .iter()
        .map(|piece| piece.frame().bytes())
        .collect();
    assert_eq!(deliver(&lab, &pieces[..2])?, &pieces[..2]);
    portdemux.ok(&["remove", "open"])?;
    assert_eq!(deliver(&lab, &pieces[2..3])?, Vec::<Vec<u8>>::new());
    let stats = portdemux.stats()?;
    assert_eq!(stats.reason("fragment_unknown")?.packets, 1);
    assert_eq!(deliver(&lab, &pieces)?, Vec::<Vec<u8>>::new());
    let port = portdemux.stats()?.port("7000/udp")?;
    assert_eq!(
        (port.received.packets, port.dropped.packets),
        (2 + PIECES, PIECES)
    );
    Ok(())
}
