//! What a host that denies by default still needs of its network: the host's own errands, done by the
//! programs that do them elsewhere.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    frames::{self, CLIENT_V4, CLIENT_V6, HOP_BY_HOP, With as _},
    lab::{INTERFACE, Lab},
    netns::Netns,
    run::{self, Output},
    server::{HOST, HOST_V4, HOST_V6, PAGE, Server},
    veth::{self, End, Offloads},
    wait::{PATIENCE, wait_until},
};

use crate::{Mode, SERVERS, deliver, in_both_modes, in_url};

in_both_modes! {
    it_asks_for_a_name_and_fetches_from_there ["nginx" "curl" "dnsmasq" "dig" "unshare"];
    it_pings_and_is_pinged_as_the_rules_say ["ping"];
    the_size_of_a_narrow_path_is_found_though_icmp_is_dropped ["nginx" "curl"];
    an_error_about_what_nobody_sent_does_not_come_in [];
    neighbours_routers_and_listeners_are_never_cut_off ["ping"];
}

const DENY: &str = "[default]\ninbound = \"drop\"\nicmp = \"drop\"\n";
/// The client's addresses of both versions.
const CLIENTS: [IpAddr; 2] = [IpAddr::V4(CLIENT_V4), IpAddr::V6(CLIENT_V6)];

fn it_asks_for_a_name_and_fetches_from_there(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let addresses = [HOST_V4.parse::<IpAddr>()?, HOST_V6.parse()?];
    for (address, gateway) in addresses.into_iter().zip(CLIENTS) {
        veth::add_address(&lab.client, INTERFACE, address)?;
        route(&lab.server, "default", gateway)?;
    }
    let _names = Server::dnsmasq(&lab.client, 53)?;
    let _pages = Server::nginx(&lab.client, 80)?;
    let portdemux = mode.attach_with_rules(&lab, DENY)?;
    for (client, version) in CLIENTS.into_iter().zip(["-4", "-6"]) {
        // By the resolver of the C library, as every program does it.
        let resolver = portdemux.state().join("resolv.conf");
        fs::write(&resolver, format!("nameserver {client}\n"))?;
        let page = with_resolver(
            &lab.server,
            &resolver,
            &["curl", "-sS", version, &format!("http://{HOST}/")],
        )?;
        assert_eq!(page.success()?.stdout, PAGE, "{version}");
        let size = with_resolver(
            &lab.server,
            &resolver,
            &[
                "curl",
                "-sS",
                version,
                "-o",
                "/dev/null",
                "-w",
                "%{size_download}",
                &format!("http://{HOST}/big"),
            ],
        )?;
        assert_eq!(
            size.success()?.stdout,
            (1 << 20).to_string(),
            "{version}, much"
        );
        for transport in ["+notcp", "+tcp"] {
            let server = format!("@{client}");
            let arguments = ["+short", "+tries=1", transport, &server, HOST, "A"];
            let answer = lab.server.run("dig", &arguments)?.success()?;
            assert_eq!(answer.stdout.trim(), HOST_V4, "{client}, {transport}");
        }
    }
    let stats = portdemux.stats()?;
    let dropped: u64 = stats.interface(INTERFACE)?.dropped.packets;
    assert_eq!(dropped, 0, "{:?}", stats.reasons()?);
    let names: Vec<_> = stats.reasons()?.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["reply"]);
    Ok(())
}

/// Runs a program in a namespace, with another file in the place of `/etc/resolv.conf`.
fn with_resolver(namespace: &Netns, file: &Path, words: &[&str]) -> Result<Output> {
    let mut command: Command = namespace.command("unshare");
    command
        .args(["--mount", "--", "sh", "-euc"])
        .arg("mount --bind \"$0\" /etc/resolv.conf; exec \"$@\"")
        .arg(file)
        .args(words);
    run::run(command)
}

fn route(namespace: &Netns, to: &str, via: IpAddr) -> Result<()> {
    let version = if via.is_ipv4() { "-4" } else { "-6" };
    let gateway = via.to_string();
    namespace.ip(&[
        version, "route", "add", to, "via", &gateway, "dev", INTERFACE,
    ])?;
    Ok(())
}

/// Whether three pings out of three are answered, or none.
fn pings(from: &Netns, to: IpAddr) -> Result<bool> {
    let to = to.to_string();
    let output = from.run("ping", &["-n", "-c", "3", "-i", "0.1", "-W", "0.5", &to])?;
    if output.stdout.contains(" 3 received") {
        return Ok(true);
    }
    ensure!(
        output.stdout.contains(" 0 received"),
        "some were lost: {}{}",
        output.stdout,
        output.stderr
    );
    Ok(false)
}

fn it_pings_and_is_pinged_as_the_rules_say(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach(&lab)?;
    for (setting, is_pinged) in [("pass", true), ("errors-only", false), ("drop", false)] {
        portdemux.apply(&format!(
            "[default]\ninbound = \"drop\"\nicmp = \"{setting}\"\n"
        ))?;
        let before = portdemux.stats()?.reason("icmp_policy")?.packets;
        for (client, server) in CLIENTS.into_iter().zip(SERVERS) {
            assert!(pings(&lab.server, client)?, "{setting}: to {client}");
            assert_eq!(
                pings(&lab.client, server)?,
                is_pinged,
                "{setting}: to {server}"
            );
        }
        let refused = portdemux.stats()?.reason("icmp_policy")?.packets - before;
        assert_eq!(refused, if is_pinged { 0 } else { 6 }, "{setting}");
    }
    assert_eq!(portdemux.stats()?.reason("reply")?.packets, 18);
    Ok(())
}

/// How much fits through the narrow part of the path.
const NARROW: u32 = 1300;
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9)),
];

/// A host behind the client, which forwards to it what is not too long for a wire of its own.
fn far_away(lab: &Lab) -> Result<Netns> {
    let far = Netns::new("far")?;
    let near_end = End {
        namespace: &lab.client,
        name: "narrow0",
        mac: [2, 0, 0, 0, 0, 3],
        addresses: vec!["198.51.100.1".parse()?, "2001:db8:9::1".parse()?],
    };
    let far_end = End {
        namespace: &far,
        name: INTERFACE,
        mac: [2, 0, 0, 0, 0, 4],
        addresses: FAR.to_vec(),
    };
    veth::connect(&near_end, &far_end, NARROW, Offloads::Off)?;
    // It knows nothing of the narrow part, or its segments would say so.
    far.ip(&["link", "set", INTERFACE, "mtu", "1500"])?;
    for address in &near_end.addresses {
        route(&far, "default", *address)?;
    }
    lab.client.enter(|| {
        for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(Path::new("/proc/sys/net").join(file), "1")?;
        }
        Ok(())
    })?;
    for gateway in CLIENTS {
        route(&lab.server, "default", gateway)?;
    }
    Ok(far)
}

fn the_size_of_a_narrow_path_is_found_though_icmp_is_dropped(mode: Mode) -> Result<()> {
    const MUCH: usize = 300_000;
    let lab = Lab::new()?;
    let far = far_away(&lab)?;
    let portdemux = mode.attach_with_rules(
        &lab,
        &format!("{DENY}[[rule]]\nname = \"web\"\nport = \"80/tcp\"\n"),
    )?;
    let _web = Server::nginx(&lab.server, 80)?;
    for (server, there) in SERVERS.into_iter().zip(FAR) {
        // What it serves.
        let url = format!("http://{}/big", in_url(server));
        let arguments = [
            "-sS",
            "-m",
            "15",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
            &url,
        ];
        let size = far.run("curl", &arguments)?.success()?;
        assert_eq!(size.stdout, (1 << 20).to_string(), "{server}");
        assert_eq!(path_mtu(&lab, there)?, Some(NARROW), "{there}");

        // What it sends by itself, when it has forgotten.
        let version = if there.is_ipv4() { "-4" } else { "-6" };
        lab.server.ip(&[version, "route", "flush", "cache"])?;
        assert_eq!(path_mtu(&lab, there)?, None, "{there}");
        let listener = far.enter(|| Ok(TcpListener::bind(SocketAddr::new(there, 9000))?))?;
        let heard = thread::scope(|scope| -> Result<_> {
            let hearing = scope.spawn(|| -> Result<usize> {
                let (mut stream, _) = listener.accept()?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(stream.read_to_end(&mut Vec::new())?)
            });
            let mut stream = lab.server.enter(|| {
                Ok(TcpStream::connect_timeout(
                    &listener.local_addr()?,
                    PATIENCE,
                )?)
            })?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(&vec![7; MUCH])?;
            drop(stream);
            hearing.join().expect("it does not panic")
        })?;
        assert_eq!(heard, MUCH, "{there}");
        assert_eq!(path_mtu(&lab, there)?, Some(NARROW), "{there}");
    }
    let stats = portdemux.stats()?;
    assert!(stats.reason("related")?.packets >= 4);
    assert_eq!(stats.interface(INTERFACE)?.dropped.packets, 0);
    Ok(())
}

/// What the server's kernel has learned of the path to an address.
fn path_mtu(lab: &Lab, to: IpAddr) -> Result<Option<u32>> {
    let route = lab.server.ip(&["route", "get", &to.to_string()])?.stdout;
    let mut words = route.split_whitespace();
    words
        .find(|&word| word == "mtu")
        .and_then(|_| words.next())
        .map(|number| number.parse().with_context(|| route.clone()))
        .transpose()
}

fn an_error_about_what_nobody_sent_does_not_come_in(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, DENY)?;
    let segment = || frames::tcp(50_000, 80).with(|tcp| tcp.data = vec![7; 40]);
    let quoted4 = frames::ipv4(segment()).back();
    let quoted6 = frames::ipv6(segment()).back();
    let lies = [
        // Fragmentation needed, unreachable, time exceeded.
        frames::ipv4(frames::icmp(3, 4).with(|icmp| {
            icmp.rest = [0, 0, 2, 0x40];
            icmp.body = quoted4.bytes();
        })),
        frames::ipv4(frames::icmp(3, 1).with(|icmp| icmp.body = quoted4.bytes())),
        frames::ipv4(frames::icmp(11, 0).with(|icmp| icmp.body = quoted4.bytes())),
    ]
    .map(|packet| packet.frame().bytes())
    .into_iter()
    .chain(
        [
            // Packet too big, unreachable, time exceeded.
            frames::ipv6(frames::icmp(2, 0).with(|icmp| {
                icmp.rest = [0, 0, 5, 0];
                icmp.body = quoted6.bytes();
            })),
            frames::ipv6(frames::icmp(1, 0).with(|icmp| icmp.body = quoted6.bytes())),
            frames::ipv6(frames::icmp(3, 0).with(|icmp| icmp.body = quoted6.bytes())),
        ]
        .map(|packet| packet.frame().bytes()),
    );
    let lies: Vec<_> = lies.collect();
    assert_eq!(deliver(&lab, &lies)?, Vec::<Vec<u8>>::new());
    let stats = portdemux.stats()?;
    assert_eq!(stats.reason("icmp_policy")?.packets, 6);
    assert_eq!(stats.reason("related")?.packets, 0);
    let port = &portdemux.json(&["stats", "50000/tcp"])?["ports"][0];
    let nothing = serde_json::json!({ "new": 0, "established": 0, "replies": 0, "related": 0 });
    assert_eq!(port["flows"], nothing, "{port}");
    Ok(())
}

fn neighbours_routers_and_listeners_are_never_cut_off(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, DENY)?;
    for (namespace, addresses) in [(&lab.client, CLIENTS), (&lab.server, SERVERS)] {
        speak(namespace, &addresses)?;
    }
    // Neither end knows the other's MAC address.
    for (client, server) in CLIENTS.into_iter().zip(SERVERS) {
        assert!(pings(&lab.server, client)?, "to {client}");
        is_neighbour(&lab.server, client)?;
        // It is not to be pinged, but to be found.
        assert!(!pings(&lab.client, server)?, "to {server}");
        is_neighbour(&lab.client, server)?;
    }

    let wire = lab.client_socket()?;
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let to_all = |message: frames::Icmp, hop_limit: u8| {
        frames::ipv6(message).with(|ip| {
            (ip.source, ip.destination) = (router, all_nodes);
            ip.hop_limit = hop_limit;
        })
    };
    let framed = |packet: frames::Ipv6| {
        packet
            .frame()
            .with(|frame| frame.destination = [0x33, 0x33, 0, 0, 0, 1])
            .bytes()
    };
    // A router tells of a network (RFC 4861 §4.2, §4.6.2).
    let network = [0x2001, 0xdb8, 5];
    let advertisement = frames::icmp(134, 0).with(|icmp| {
        icmp.rest = [64, 0, 0x07, 0x08];
        icmp.body = vec![0; 8];
        icmp.body.extend([3, 4, 64, 0xc0]);
        icmp.body.extend(3600_u32.to_be_bytes());
        icmp.body.extend(3600_u32.to_be_bytes());
        icmp.body.extend([0; 4]);
        icmp.body.extend(network.map(u16::to_be_bytes).concat());
        icmp.body.extend([0; 10]);
    });
    wire.send(&framed(to_all(advertisement, 255)))?;
    wait_until(
        "an address of the network that was told of",
        PATIENCE,
        || {
            let addresses = lab
                .server
                .ip(&["-6", "address", "show", "dev", INTERFACE])?;
            Ok(addresses.stdout.contains("2001:db8:5:"))
        },
    )?;

    // A router asks who listens (RFC 3810 §5.1), with the alert of RFC 2711.
    let query = frames::icmp(130, 0).with(|icmp| {
        icmp.rest = [0, 100, 0, 0];
        icmp.body = vec![0; 20];
    });
    let alert = frames::extension(HOP_BY_HOP, 0).with(|header| {
        header.body = vec![5, 2, 0, 0, 1, 0];
    });
    let is_report = |frame: &[u8]| {
        // Behind the header for hops, of version 2.
        frame.get(12..14) == Some(&[0x86, 0xdd])
            && frame.get(20) == Some(&HOP_BY_HOP)
            && frame.get(62) == Some(&143)
    };
    // What it told by itself when it joined.
    while wire
        .receive(std::time::Duration::from_millis(50))?
        .is_some()
    {}
    wire.send(&framed(to_all(query, 1).then(alert)))?;
    wire.expect("a report of who listens", PATIENCE, is_report)?;
    assert_eq!(portdemux.stats()?.reason("icmp_policy")?.packets, 6);
    Ok(())
}

/// Lets a host speak of itself and ask for others, as hosts do that are not in a lab.
fn speak(namespace: &Netns, addresses: &[IpAddr]) -> Result<()> {
    namespace.enter(|| {
        let directory = Path::new("/proc/sys/net/ipv6/conf").join(INTERFACE);
        for (file, value) in [
            ("accept_ra", "2"),
            ("addr_gen_mode", "0"),
            ("autoconf", "1"),
        ] {
            fs::write(directory.join(file), value)?;
        }
        Ok(())
    })?;
    namespace.ip(&["link", "set", INTERFACE, "down"])?;
    namespace.ip(&["neighbour", "flush", "dev", INTERFACE])?;
    namespace.ip(&["address", "flush", "dev", INTERFACE])?;
    namespace.ip(&["link", "set", INTERFACE, "arp", "on", "up"])?;
    addresses
        .iter()
        .try_for_each(|&address| veth::add_address(namespace, INTERFACE, address))
}

fn is_neighbour(namespace: &Netns, address: IpAddr) -> Result<()> {
    let neighbours = namespace
        .ip(&["neighbour", "show", "dev", INTERFACE])?
        .stdout;
    let known = neighbours
        .lines()
        .find(|line| line.split_whitespace().next() == Some(&address.to_string()));
    let line = known.with_context(|| format!("{address} is not among {neighbours}"))?;
    ensure!(line.contains("lladdr"), "{line}");
    Ok(())
}
