//! Packets that go elsewhere than to the host's own stack: to a container, to chosen CPUs.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    libc,
    sys::socket::{getsockopt, sockopt},
};
use portdemux_tests::{
    cli::Portdemux,
    frames::{CLIENT_MAC, CLIENT_V4, CLIENT_V6, Mac, SERVER_MAC},
    lab::{INTERFACE, Lab},
    netns::Netns,
    raw::RawSocket,
    require,
    server::{PAGE, Server},
    veth::{self, End, Offloads},
    wait::{PATIENCE, wait_to_bind, wait_until},
};

use crate::{Mode, SERVERS, in_both_modes, in_url};

in_both_modes! {
    a_container_behind_an_interface_serves_under_its_own_address ["nginx" "curl"];
    a_container_is_reached_by_rules_on_both_ways ["nginx" "curl"];
    all_fragments_of_a_datagram_follow_the_first_to_an_interface [];
    an_interface_that_vanishes_falls_back_and_is_noticed_when_it_returns [];
}

/// The interface before the container, and the one in it.
pub(crate) const BOX: &str = "box0";
pub(crate) const INNER: &str = "inner0";
const BOX_MAC: Mac = [2, 0, 0x5e, 0x10, 0, 3];
/// What the interface before the container gets in the course of a test.
const OTHER_MAC: Mac = [2, 0, 0x5e, 0x10, 0, 5];
const INNER_MAC: Mac = [2, 0, 0x5e, 0x10, 0, 4];
pub(crate) const BOX_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const BOX_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 10);
const BOXES: [IpAddr; 2] = [IpAddr::V4(BOX_V4), IpAddr::V6(BOX_V6)];

/// A namespace behind the server that has addresses of its own and sends everything to the server.
pub(crate) fn container(lab: &Lab) -> Result<Netns> {
    let inside = Netns::new("box")?;
    join(lab, &inside)?;
    for address in BOXES {
        // The client sends to the server what is for the container.
        let destination = address.to_string();
        lab.client
            .ip(&["route", "add", &destination, "dev", INTERFACE])?;
        veth::add_neighbour(&lab.client, INTERFACE, address, SERVER_MAC)?;
    }
    Ok(inside)
}

/// Joins the server and the namespace by a pair of interfaces.
fn join(lab: &Lab, inside: &Netns) -> Result<()> {
    let outer = End {
        namespace: &lab.server,
        name: BOX,
        mac: BOX_MAC,
        addresses: Vec::new(),
    };
    let inner = End {
        namespace: inside,
        name: INNER,
        mac: INNER_MAC,
        addresses: BOXES.to_vec(),
    };
    veth::connect(&outer, &inner, 1500, Offloads::Off)?;
    for client in [IpAddr::V4(CLIENT_V4), IpAddr::V6(CLIENT_V6)] {
        inside.ip(&["route", "add", &client.to_string(), "dev", INNER])?;
        veth::add_neighbour(inside, INNER, client, BOX_MAC)?;
    }
    // An end of a pair takes frames from a driver only if it polls.
    let settings = ["-K", INNER, "gro", "on"];
    inside.run("ethtool", &settings)?.success()?;
    Ok(())
}

/// Lets the server forward what comes from the container, and nothing else of it.
fn let_the_server_forward(lab: &Lab) -> Result<()> {
    lab.server.enter(|| {
        for file in [
            "/proc/sys/net/ipv4/ip_forward",
            "/proc/sys/net/ipv6/conf/all/forwarding",
        ] {
            fs::write(file, "1").with_context(|| format!("write {file}"))?;
        }
        for interface in ["all", "default", BOX, INTERFACE] {
            let file = format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter");
            fs::write(&file, "0").with_context(|| format!("write {file}"))?;
        }
        Ok(())
    })
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What is for port 80 of the container goes there.
pub(crate) fn to_the_container() -> String {
    format!(
        "[[rule]]\nname = \"box\"\nport = [\"80/tcp\", \"90/udp\"]\naddress = [\"{BOX_V4}\", \
         \"{BOX_V6}\"]\nto = \"interface:{BOX}\"\nmac = \"{}\"\n",
        text(INNER_MAC)
    )
}

fn fetch(lab: &Lab) -> Result<()> {
    for address in BOXES {
        let url = format!("http://{}/", in_url(address));
        let page = lab
            .client
            .run("curl", &["-s", "-m", "10", "-g", &url])?
            .success()?;
        assert_eq!(page.stdout, PAGE, "{url}");
    }
    Ok(())
}

fn a_container_behind_an_interface_serves_under_its_own_address(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let inside = container(&lab)?;
    let_the_server_forward(&lab)?;
    let _nginx = Server::nginx(&inside, 80)?;
    let portdemux = mode.attach_with_rules(&lab, &to_the_container())?;
    fetch(&lab)?;
    let stats = portdemux.stats()?;
    let rule = stats.rule("box")?;
    assert_eq!(
        stats.reason("rule_interface")?.packets,
        rule.received.packets
    );
    assert_eq!(rule.dropped.packets, 0);
    // Only by the rule: the server itself has no route there.
    ensure!(rule.received.packets >= 10, "{rule:?}");
    let ready = portdemux.json(&["status"])?;
    assert_eq!(ready["destinations"][0]["to"], format!("interface:{BOX}"));
    assert_eq!(ready["destinations"][0]["state"], "ready");
    Ok(())
}

fn a_container_is_reached_by_rules_on_both_ways(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let inside = container(&lab)?;
    let _nginx = Server::nginx(&inside, 80)?;
    let settings = ["-K", INTERFACE, "gro", "on"];
    lab.client.run("ethtool", &settings)?.success()?;
    let portdemux = mode.attach(&lab)?;
    portdemux.ok(&["attach", BOX, "--mode", mode.name()])?;
    let back = format!(
        "[[rule]]\nname = \"back\"\nport = \"80/tcp\"\nrole = \"source\"\nto = \
         \"interface:{INTERFACE}\"\nmac = \"{}\"\n",
        text(CLIENT_MAC)
    );
    portdemux.apply(&(to_the_container() + &back))?;
    fetch(&lab)?;
    let stats = portdemux.stats()?;
    for rule in ["box", "back"] {
        let rule = stats.rule(rule)?;
        ensure!(
            rule.received.packets >= 8 && rule.dropped.packets == 0,
            "{rule:?}"
        );
    }
    Ok(())
}

fn all_fragments_of_a_datagram_follow_the_first_to_an_interface(mode: Mode) -> Result<()> {
    /// Three fragments.
    const LENGTH: usize = 4000;
    let lab = Lab::new()?;
    let inside = container(&lab)?;
    let portdemux = mode.attach(&lab)?;
    for (fragments, arrives) in [("track", true), ("pass", false)] {
        let defaults = format!("[default]\nfragments = \"{fragments}\"\n");
        portdemux.apply(&(defaults + &to_the_container()))?;
        let before = portdemux.stats()?.reason("rule_interface")?.packets;
        for address in BOXES {
            let socket = inside.enter(|| Ok(UdpSocket::bind((address, 90))?))?;
            let any = if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let client = lab.client.enter(|| Ok(UdpSocket::bind(any)?))?;
            let sent: Vec<u8> = (0..=u8::MAX).cycle().take(LENGTH).collect();
            client.send_to(&sent, (address, 90))?;
            let patience = if arrives {
                PATIENCE
            } else {
                Duration::from_millis(300)
            };
            socket.set_read_timeout(Some(patience))?;
            let mut received = vec![0; 2 * LENGTH];
            match socket.recv(&mut received) {
                Ok(length) => ensure!(arrives && received[..length] == sent, "{length} bytes"),
                Err(error) => ensure!(!arrives, "{fragments}, {address}: {error}"),
            }
        }
        let redirected = portdemux.stats()?.reason("rule_interface")?.packets - before;
        // Of those that are not tracked, the first of each.
        assert_eq!(redirected, if arrives { 6 } else { 2 }, "{fragments}");
    }
    Ok(())
}

/// Sends a datagram to the container and says whether it got there.
fn arrives(lab: &Lab, inside: &UdpSocket) -> Result<bool> {
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    let client = lab.client.enter(|| Ok(UdpSocket::bind(any)?))?;
    client.send_to(b"hello", (BOX_V4, 90))?;
    inside.set_read_timeout(Some(Duration::from_millis(300)))?;
    Ok(inside.recv(&mut [0; 8]).is_ok())
}

fn an_interface_that_vanishes_falls_back_and_is_noticed_when_it_returns(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let inside = container(&lab)?;
    let socket = inside.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 90))?))?;
    let portdemux = mode.attach_with_rules(&lab, &to_the_container())?;
    assert!(arrives(&lab, &socket)?);

    lab.server.ip(&["link", "delete", BOX])?;
    let state = |expected: &str| -> Result<()> {
        let status = portdemux.json(&["status"])?;
        assert_eq!(status["destinations"][0]["state"], expected);
        Ok(())
    };
    state("missing")?;
    assert!(!arrives(&lab, &socket)?);
    let missing = portdemux.stats()?.reason("no_interface")?.packets;
    assert_eq!(missing, 1);
    assert_eq!(portdemux.stats()?.rule("box")?.dropped.packets, 1);

    // No command is needed.
    join(&lab, &inside)?;
    let is_ready = || Ok(portdemux.json(&["status"])?["destinations"][0]["state"] == "ready");
    wait_until("the packets of the interface", PATIENCE, is_ready)?;
    assert!(arrives(&lab, &socket)?);
    assert_eq!(portdemux.stats()?.reason("no_interface")?.packets, 1);
    // Frames have the address that the interface has by then.
    let sniffer = RawSocket::open(&inside, INNER)?;
    lab.server
        .ip(&["link", "set", BOX, "address", &text(OTHER_MAC)])?;
    wait_until("frames from the other address", PATIENCE, || {
        arrives(&lab, &socket)?;
        let next = || sniffer.receive(Duration::ZERO);
        let mut frames = std::iter::from_fn(|| next().transpose());
        frames.try_fold(false, |found, frame| {
            Ok(found || frame?.get(6..12) == Some(OTHER_MAC.as_slice()))
        })
    })?;

    // Where nobody hears of it, any change does.
    portdemux.kill_follower()?;
    lab.server.ip(&["link", "delete", BOX])?;
    join(&lab, &inside)?;
    state("returned")?;
    assert!(!arrives(&lab, &socket)?);
    let told = portdemux.ok(&["status"])?.stderr;
    ensure!(
        told.contains("nothing gives packets back to interfaces"),
        "{told}"
    );
    let told = portdemux.ok(&["add", "99/udp"])?.stderr;
    ensure!(told.contains("interface:box0 is there again"), "{told}");
    state("ready")?;
    assert!(arrives(&lab, &socket)?);
    assert_eq!(portdemux.stats()?.reason("no_interface")?.packets, 2);
    assert_eq!(
        portdemux.json(&["status"])?["sockets"]["follower_runs"],
        true
    );
    Ok(())
}

#[derive(Clone, Copy, Debug)]
struct IncomingCpu;

nix::getsockopt_impl!(
    IncomingCpu,
    libc::SOL_SOCKET,
    libc::SO_INCOMING_CPU,
    libc::c_int,
    sockopt::GetStruct<libc::c_int>
);

/// Sends a datagram from each of some ports to the server, and returns on which CPUs its stack took them, by
/// the sender's port.
fn cpus_of(lab: &Lab, to: SocketAddr) -> Result<Vec<(u16, i32)>> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => CLIENT_V4.into(),
        SocketAddr::V6(_) => CLIENT_V6.into(),
    };
    let mut seen = Vec::new();
    let server = lab.server.enter(|| wait_to_bind(|| UdpSocket::bind(to)))?;
    server.set_read_timeout(Some(PATIENCE))?;
    for port in 20_000..20_064 {
        let from = (any, port);
        let client = lab
            .client
            .enter(|| wait_to_bind(|| UdpSocket::bind(from)))?;
        // Only of a peer that it knows a socket notes the CPU (Linux 6.18, net/ipv4/udp.c).
        server.connect((any, port))?;
        client.send_to(b"hello", to)?;
        server.recv(&mut [0; 8])?;
        seen.push((port, getsockopt(&server, IncomingCpu)?));
    }
    Ok(seen)
}

#[test]
fn packets_go_to_the_cpus_of_their_rule_and_a_flow_stays_on_one() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Mode::Native.attach(&lab)?;
    for server in SERVERS {
        let to = SocketAddr::new(server, 9000);
        for cpus in ["0", "1", "0-1"] {
            portdemux.apply(&format!(
                "[[rule]]\nname = \"spread\"\nport = \"9000/udp\"\nto = \"cpu:{cpus}\"\n"
            ))?;
            let seen = cpus_of(&lab, to)?;
            let used: BTreeSet<i32> = seen.iter().map(|&(_, cpu)| cpu).collect();
            let expected: BTreeSet<i32> = match cpus {
                "0" => [0].into(),
                "1" => [1].into(),
                _ => [0, 1].into(),
            };
            assert_eq!(used, expected, "cpu:{cpus}");
            assert_eq!(cpus_of(&lab, to)?, seen, "cpu:{cpus}");
        }
    }
    let stats = portdemux.stats()?;
    assert_eq!(stats.reason("rule_cpu")?.packets, 2 * 3 * 128);
    assert_eq!(stats.rule("spread")?.dropped.packets, 0);
    Ok(())
}

const SPREAD: &str = "[[rule]]\nname = \"spread\"\nport = \"9000/udp\"\nto = \"cpu:0-1\"\n";

/// The kernel loses what is handed to another CPU in generic mode.
#[test]
fn in_generic_mode_packets_stay_on_the_cpu_that_they_came_by() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let to = SocketAddr::new(SERVERS[0], 9000);
    let portdemux = Mode::Generic.attach(&lab)?;
    let told = portdemux.apply(SPREAD)?.stderr;
    ensure!(told.contains("stay on the one that they came by"), "{told}");
    assert_eq!(cpus_of(&lab, to)?.len(), 64);
    assert_eq!(portdemux.stats()?.reason("no_cpu")?.packets, 64);
    assert_eq!(portdemux.stats()?.rule("spread")?.dropped.packets, 0);

    // Attached anew in the other mode, and back.
    portdemux.ok(&["detach", INTERFACE])?;
    portdemux.ok(&["attach", INTERFACE, "--mode", "native"])?;
    portdemux.ok(&["add", "9001/udp"])?;
    assert_eq!(cpus_of(&lab, to)?.len(), 64);
    assert_eq!(portdemux.stats()?.reason("rule_cpu")?.packets, 64);
    portdemux.ok(&["detach", INTERFACE])?;
    portdemux.ok(&["attach", INTERFACE, "--mode", "generic"])?;
    assert_eq!(cpus_of(&lab, to)?.len(), 64);
    assert_eq!(portdemux.stats()?.reason("no_cpu")?.packets, 128);
    Ok(())
}

/// Where there is a second CPU and a rule for it, `apply` takes it; one that is not online is refused.
#[test]
fn a_cpu_that_is_not_online_is_refused() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux: Portdemux<'_> = Mode::Generic.attach(&lab)?;
    let told = portdemux
        .fails(1, &["add", "53/udp", "--to", "cpu:0,4095"])?
        .stderr;
    ensure!(told.contains("CPU 4095 is not online"), "{told}");
    ensure!(told.contains("nothing was changed"), "{told}");
    assert_eq!(portdemux.stats()?.generation()?, 0);
    Ok(())
}
