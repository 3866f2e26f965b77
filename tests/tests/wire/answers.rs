//! What the senders of rejected packets hear.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::{self, CLIENT_V4, CLIENT_V6, With as _},
    lab::Lab,
    veth::Offloads,
    wait::PATIENCE,
};

use crate::{Mode, SERVERS, in_both_modes};

in_both_modes! {
    whoever_uses_a_rejected_port_is_refused_at_once [];
    whoever_uses_a_rejected_port_is_refused_where_cards_do_checksums [];
    a_host_that_rejects_by_default_serves_what_it_claims_and_hears_replies [];
    a_connection_ends_when_its_port_is_rejected [];
    a_flood_is_answered_at_a_bounded_rate [];
}

const REJECT_1000: &str = "[[rule]]\nname = \"no\"\nport = [\"1000/tcp\", \"1000/udp\", \"1000/sctp\"]\nto = \"reject\"\n";

/// How many answers were sent, held back for the rate, and never to be sent.
fn answers(portdemux: &Portdemux<'_>) -> Result<[u64; 3]> {
    let status = portdemux.json(&["status"])?;
    let count = |word: &str| status["answers"][word].as_u64().context("no such count");
    Ok([count("sent")?, count("limited")?, count("unanswerable")?])
}

/// How a connection from the client comes to nothing.
fn refusal_of_tcp(lab: &Lab, to: SocketAddr) -> Result<Option<ErrorKind>> {
    lab.client.enter(|| {
        let connected = TcpStream::connect_timeout(&to, PATIENCE);
        Ok(connected.err().map(|error| error.kind()))
    })
}

/// What the client hears of a datagram.
fn refusal_of_udp(lab: &Lab, to: SocketAddr, length: usize) -> Result<Option<ErrorKind>> {
    lab.client.enter(|| {
        let any: IpAddr = match to.ip() {
            IpAddr::V4(_) => CLIENT_V4.into(),
            IpAddr::V6(_) => CLIENT_V6.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        socket.send(&vec![7; length])?;
        Ok(socket.recv(&mut [0; 8]).err().map(|error| error.kind()))
    })
}

const REFUSED: Option<ErrorKind> = Some(ErrorKind::ConnectionRefused);

fn is_refused(mode: Mode, offloads: Offloads) -> Result<()> {
    let lab = Lab::with(1500, offloads)?;
    let _hears = Portdemux::hearing_answers(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, REJECT_1000)?;
    for server in SERVERS {
        let to = SocketAddr::new(server, 1000);
        // It is not the host's stack that refuses.
        let _listener = lab.server.enter(|| Ok(TcpListener::bind(to)?))?;
        let _receiver = lab.server.enter(|| Ok(UdpSocket::bind(to)?))?;
        assert_eq!(refusal_of_tcp(&lab, to)?, REFUSED, "{to}");
        for length in [0, 1, 100, 1400] {
            assert_eq!(refusal_of_udp(&lab, to, length)?, REFUSED, "{to}, {length}");
        }
    }
    assert_eq!(answers(&portdemux)?, [10, 0, 0]);
    assert_eq!(portdemux.stats()?.reason("rule_reject")?.packets, 10);
    assert_eq!(portdemux.stats()?.rule("no")?.dropped.packets, 10);
    Ok(())
}

fn whoever_uses_a_rejected_port_is_refused_at_once(mode: Mode) -> Result<()> {
    is_refused(mode, Offloads::Off)
}

fn whoever_uses_a_rejected_port_is_refused_where_cards_do_checksums(mode: Mode) -> Result<()> {
    is_refused(mode, Offloads::On)
}

fn a_host_that_rejects_by_default_serves_what_it_claims_and_hears_replies(
    mode: Mode,
) -> Result<()> {
    let lab = Lab::new()?;
    let _hears = Portdemux::hearing_answers(&lab)?;
    let portdemux = mode.attach_with_rules(
        &lab,
        "[default]\ninbound = \"reject\"\n[[rule]]\nname = \"yes\"\nport = \"80/tcp\"\n",
    )?;
    let clients = [IpAddr::V4(CLIENT_V4), IpAddr::V6(CLIENT_V6)];
    for (client, server) in clients.into_iter().zip(SERVERS) {
        let claimed = SocketAddr::new(server, 80);
        let _claimed = lab.server.enter(|| Ok(TcpListener::bind(claimed)?))?;
        let unclaimed = SocketAddr::new(server, 81);
        let _unclaimed = lab.server.enter(|| Ok(TcpListener::bind(unclaimed)?))?;
        assert_eq!(refusal_of_tcp(&lab, claimed)?, None);
        assert_eq!(refusal_of_tcp(&lab, unclaimed)?, REFUSED, "{unclaimed}");
        assert_eq!(refusal_of_udp(&lab, unclaimed, 10)?, REFUSED, "{unclaimed}");

        let elsewhere = lab.client.enter(|| Ok(TcpListener::bind((client, 0))?))?;
        let to = elsewhere.local_addr()?;
        let (mut ours, mut theirs) = connected(&lab, &elsewhere, to)?;
        theirs.write_all(b"hello")?;
        let mut heard = [0; 5];
        ours.set_read_timeout(Some(PATIENCE))?;
        ours.read_exact(&mut heard)?;
        assert_eq!(&heard, b"hello");
    }
    assert_eq!(answers(&portdemux)?, [4, 0, 0]);
    let unclaimed = portdemux.stats()?.port("81/tcp")?;
    assert_eq!(
        (unclaimed.received.packets, unclaimed.dropped.packets),
        (2, 2)
    );
    Ok(())
}

/// A connection from the server to a listener of the client.
fn connected(lab: &Lab, listener: &TcpListener, to: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    thread::scope(|scope| {
        let accepting = scope.spawn(|| listener.accept());
        let ours = lab
            .server
            .enter(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))?;
        let (theirs, _) = accepting.join().expect("it does not panic")?;
        Ok((ours, theirs))
    })
}

fn a_connection_ends_when_its_port_is_rejected(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let _hears = Portdemux::hearing_answers(&lab)?;
    let portdemux = mode.attach(&lab)?;
    for server in SERVERS {
        portdemux.apply("[default]\n")?;
        let to = SocketAddr::new(server, 1000);
        let _listener = lab.server.enter(|| Ok(TcpListener::bind(to)?))?;
        let mut client = lab
            .client
            .enter(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))?;
        portdemux.apply(REJECT_1000)?;
        client.write_all(b"still there?")?;
        client.set_read_timeout(Some(PATIENCE))?;
        let end = client.read(&mut [0; 8]).map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::ConnectionReset), "{to}");
    }
    Ok(())
}

fn a_flood_is_answered_at_a_bounded_rate(mode: Mode) -> Result<()> {
    const FLOOD: u64 = 5_000;
    let lab = Lab::new()?;
    let _hears = Portdemux::hearing_answers(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, REJECT_1000)?;
    let client = lab.client_socket()?;
    let silent = frames::ipv4(frames::tcp(40_000, 1000).with(|tcp| tcp.flags = 4));
    let begun = Instant::now();
    for number in 0..FLOOD {
        let port = 20_000 + u16::try_from(number)?;
        let frame = match number % 3 {
            0 => frames::ipv4(frames::tcp(port, 1000)).frame(),
            1 => frames::ipv6(frames::udp(port, 1000)).frame(),
            _ => frames::ipv4(frames::sctp(port, 1000)).frame(),
        };
        client.send(&frame.bytes())?;
    }
    client.send(&silent.frame().bytes())?;
    // For another host, which this one only overhears.
    let mut overheard = frames::ipv4(frames::tcp(40_000, 1000)).frame().bytes();
    overheard[5] ^= 1;
    client.send(&overheard)?;
    let mut heard = 0;
    let all = || -> Result<_> {
        let [sent, limited, unanswerable] = answers(&portdemux)?;
        Ok((sent + limited == FLOOD && unanswerable == 2).then_some(sent))
    };
    let sent = portdemux_tests::wait::wait_for("all to be counted", PATIENCE, all)?;
    let milliseconds = u64::try_from(begun.elapsed().as_millis())?;
    while client.receive(Duration::from_millis(100))?.is_some() {
        heard += 1;
    }
    assert_eq!(heard, sent);
    ensure!(
        (50..=50 + milliseconds + 1).contains(&sent),
        "{sent} in {milliseconds} ms"
    );
    Ok(())
}
