//! A host that lets in what it claims and what it has asked for.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    frames::{self, CLIENT_V4, CLIENT_V6, With as _},
    lab::{INTERFACE, Lab},
    server::{PAGE, Server},
    veth::Offloads,
    wait::PATIENCE,
};

use crate::{Mode, SERVERS, in_both_modes, in_url};

in_both_modes! {
    a_host_that_denies_by_default_serves_what_it_claims_and_hears_replies ["nginx" "curl"];
    what_is_sent_begins_flows_wherever_its_headers_lie [];
    errors_about_what_a_host_sent_come_in_though_icmp_is_dropped [];
    a_rule_for_established_connections_lets_replies_in_and_lets_nobody_begin ["nginx" "curl"];
    a_connection_from_before_goes_on_when_everything_is_denied [];
    flows_that_begin_while_the_tables_grow_are_not_lost [];
    a_ruleset_that_needs_no_flows_leaves_nothing_of_them_behind [];
}

const DENY: &str = "[default]\ninbound = \"drop\"\n";
const CLAIM_80: &str = "[[rule]]\nname = \"web\"\nport = \"80/tcp\"\n";
/// The client's addresses of both versions.
const CLIENTS: [IpAddr; 2] = [IpAddr::V4(CLIENT_V4), IpAddr::V6(CLIENT_V6)];

/// What curl says of a page: the page, or that nobody has answered.
fn page(
    from: &portdemux_tests::netns::Netns,
    address: IpAddr,
    port: u16,
) -> Result<Option<String>> {
    let url = format!("http://{}:{port}/", in_url(address));
    let got = from.run("curl", &["-sS", "--connect-timeout", "1", &url])?;
    match got.code() {
        // A connection that was not made in time.
        Some(28) => Ok(None),
        _ => Ok(Some(got.success()?.stdout)),
    }
}

fn a_host_that_denies_by_default_serves_what_it_claims_and_hears_replies(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let _claimed = Server::nginx(&lab.server, 80)?;
    let _unclaimed = Server::nginx(&lab.server, 81)?;
    let _elsewhere = Server::nginx(&lab.client, 8000)?;
    let portdemux = mode.attach_with_rules(&lab, &format!("{DENY}{CLAIM_80}"))?;
    for (client, server) in CLIENTS.into_iter().zip(SERVERS) {
        assert_eq!(
            page(&lab.client, server, 80)?.as_deref(),
            Some(PAGE),
            "{server}"
        );
        assert_eq!(page(&lab.client, server, 81)?, None, "{server}");
        assert_eq!(
            page(&lab.server, client, 8000)?.as_deref(),
            Some(PAGE),
            "{client}"
        );
    }
    let stats = portdemux.stats()?;
    assert!(stats.reason("reply")?.packets >= 6);
    let unclaimed = stats.port("81/tcp")?;
    assert!(unclaimed.dropped.packets >= 2);
    assert_eq!(unclaimed.dropped, unclaimed.received);
    assert_eq!(stats.port("80/tcp")?.dropped.packets, 0);
    Ok(())
}

fn what_is_sent_begins_flows_wherever_its_headers_lie(mode: Mode) -> Result<()> {
    let lab = Lab::with(9000, Offloads::Off)?;
    let portdemux = mode.attach_with_rules(&lab, &format!("{DENY}icmp = \"drop\"\n"))?;
    let server = lab.server_socket()?;
    // The rest of the first frames would be in one buffer.
    let data = vec![7; 5000];
    let mut replies = Vec::new();
    // Ends of the headers of Ethernet, IPv4, UDP over it, IPv6, UDP over that and TCP.
    for (number, linear) in (0..).zip([14, 34, 42, 54, 62, 74]) {
        let port = 50_000 + number;
        let datagram = || frames::udp(port, 53).with(|udp| udp.data.clone_from(&data));
        let segment = frames::tcp(port, 80).with(|tcp| tcp.data.clone_from(&data));
        let packet = frames::sctp(port, 80).with(|sctp| sctp.chunks.clone_from(&data));
        let echo = |kind| {
            frames::icmp(kind, 0).with(|icmp| {
                let [high, low] = port.to_be_bytes();
                icmp.rest = [high, low, 0, 1];
            })
        };
        let request = echo(8).with(|icmp| icmp.body.clone_from(&data));
        for sent in [
            frames::ipv4(datagram()).back().frame(),
            frames::ipv4(segment).back().frame(),
            frames::ipv4(packet).back().frame(),
            frames::ipv4(request).back().frame(),
            frames::ipv6(datagram()).back().frame(),
        ] {
            server.send_in_pages(&sent.bytes(), linear)?;
        }
        replies.extend(
            [
                frames::ipv4(frames::udp(53, port)).frame(),
                frames::ipv4(frames::tcp(80, port).with(|tcp| tcp.flags = 0x12)).frame(),
                frames::ipv4(frames::sctp(80, port)).frame(),
                frames::ipv4(echo(0)).frame(),
                frames::ipv6(frames::udp(53, port)).frame(),
            ]
            .map(|frame| frame.bytes()),
        );
    }
    assert_eq!(crate::deliver(&lab, &replies)?, replies);
    let stats = portdemux.stats()?;
    assert_eq!(stats.reason("reply")?.packets, replies.len() as u64);
    Ok(())
}

fn errors_about_what_a_host_sent_come_in_though_icmp_is_dropped(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, &format!("{DENY}icmp = \"drop\"\n"))?;
    for (client, server) in CLIENTS.into_iter().zip(SERVERS) {
        let error = lab.server.enter(|| {
            let socket = UdpSocket::bind(SocketAddr::new(server, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            // Nobody is there.
            socket.connect(SocketAddr::new(client, 9))?;
            socket.send(b"anybody?")?;
            Ok(socket.recv(&mut [0; 8]).map_err(|error| error.kind()))
        })?;
        assert_eq!(error, Err(ErrorKind::ConnectionRefused), "{client}");
    }
    assert_eq!(portdemux.stats()?.reason("related")?.packets, 2);
    Ok(())
}

fn a_rule_for_established_connections_lets_replies_in_and_lets_nobody_begin(
    mode: Mode,
) -> Result<()> {
    let lab = Lab::new()?;
    let _elsewhere = Server::nginx(&lab.client, 8000)?;
    let portdemux = mode.attach_with_rules(
        &lab,
        "[[rule]]\nname = \"replies\"\nport = \"32768-60999/tcp\"\nconnections = \"established\"\n",
    )?;
    for client in CLIENTS {
        assert_eq!(
            page(&lab.server, client, 8000)?.as_deref(),
            Some(PAGE),
            "{client}"
        );
    }
    let before = portdemux.stats()?.rule("replies")?;
    assert!(before.received.packets > 0);
    assert_eq!(before.dropped.packets, 0);

    let begins = frames::tcp(8000, 33_000);
    let frame = frames::ipv4(begins).frame().bytes();
    assert_eq!(crate::deliver(&lab, &[frame])?, Vec::<Vec<u8>>::new());
    assert_eq!(portdemux.stats()?.reason("not_established")?.packets, 1);
    Ok(())
}

fn a_connection_from_before_goes_on_when_everything_is_denied(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    for (client, server) in CLIENTS.into_iter().zip(SERVERS) {
        let portdemux = mode.attach(&lab)?;
        let listener = lab.client.enter(|| Ok(TcpListener::bind((client, 0))?))?;
        let address = listener.local_addr()?;
        let (ours, theirs) = thread::scope(|scope| -> Result<_> {
            let accepting = scope.spawn(|| listener.accept());
            let ours = lab.server.enter(|| Ok(TcpStream::connect(address)?))?;
            let (theirs, _) = accepting.join().expect("it does not panic")?;
            Ok((ours, theirs))
        })?;
        ensure!(ours.local_addr()?.ip() == server, "another way was taken");
        portdemux.apply(DENY)?;
        // The first packet after the change is the peer's.
        exchange(theirs.try_clone()?, ours.try_clone()?)?;
        exchange(ours, theirs)?;
        assert!(portdemux.stats()?.reason("reply")?.packets > 0);
        portdemux.ok(&["detach", "--all"])?;
    }
    Ok(())
}

fn exchange(mut from: TcpStream, mut to: TcpStream) -> Result<()> {
    to.set_read_timeout(Some(PATIENCE.max(Duration::from_secs(1))))?;
    from.write_all(b"still there?")?;
    let mut heard = [0; 12];
    to.read_exact(&mut heard)?;
    assert_eq!(&heard, b"still there?");
    Ok(())
}

fn flows_that_begin_while_the_tables_grow_are_not_lost(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, DENY)?;
    for (client, server) in CLIENTS.into_iter().zip(SERVERS) {
        let peer = lab.client.enter(|| Ok(UdpSocket::bind((client, 0))?))?;
        let to = peer.local_addr()?;
        let is_over = AtomicBool::new(false);
        // They ask all the time, and are answered when the tables have grown and shrunk again.
        let asked = thread::scope(|scope| -> Result<_> {
            let asking = scope.spawn(|| {
                lab.server.enter(|| {
                    let mut asked = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        let socket = UdpSocket::bind((server, 0))?;
                        socket.set_read_timeout(Some(PATIENCE))?;
                        socket.send_to(b"well?", to)?;
                        asked.push(socket);
                        thread::sleep(Duration::from_millis(2));
                    }
                    Ok(asked)
                })
            });
            let changed = portdemux
                .apply(&format!("{DENY}[flows]\nsize = 300000\n"))
                .and_then(|_| portdemux.apply(DENY));
            is_over.store(true, Ordering::Relaxed);
            let asked = asking.join().expect("it does not panic")?;
            changed.map(|_| asked)
        })?;
        ensure!(asked.len() > 20, "{} asked", asked.len());
        for (number, socket) in asked.iter().enumerate() {
            peer.send_to(b"yes.", socket.local_addr()?)?;
            let heard = socket.recv(&mut [0; 8]);
            heard.with_context(|| format!("{client}: answer {number} of {}", asked.len()))?;
        }
    }
    Ok(())
}

fn a_ruleset_that_needs_no_flows_leaves_nothing_of_them_behind(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, CLAIM_80)?;
    let pins = || -> Result<Vec<String>> {
        let entries = std::fs::read_dir(portdemux.pins())?;
        let mut names: Vec<String> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    };
    let without = pins()?;
    portdemux.apply(DENY)?;
    let with = pins()?;
    assert_eq!(
        with.iter()
            .filter(|name| !without.contains(name))
            .collect::<Vec<_>>(),
        ["flows", "sent0"]
    );
    let program = || {
        lab.server
            .ip(&["link", "show", INTERFACE])
            .map(|link| link.stdout)
    };
    let tracking = program()?;
    portdemux.apply(CLAIM_80)?;
    assert_eq!(pins()?, without);
    assert_ne!(program()?, tracking, "the program is another one");
    Ok(())
}
