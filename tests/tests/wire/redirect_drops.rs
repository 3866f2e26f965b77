//! Packets that were sent to a target and that it did not take: each is counted, with the reason.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portdemux_tests::{
    cli::Portdemux,
    frames::{SERVER_MAC, SERVER_V4},
    lab::{INTERFACE, Lab},
    netns::Netns,
    require,
    veth::{self, End, Offloads},
    wait::{PATIENCE, wait_until},
};
use serde_json::Value;

use crate::{
    Mode,
    destinations::{BOX, BOX_V4, INNER, container, to_the_container},
    in_both_modes, stay_on_one_cpu, xsk,
};

in_both_modes! {
    what_an_interface_that_is_down_does_not_take_is_counted [];
    what_is_too_long_for_an_interface_is_counted [];
    what_a_program_has_no_buffer_for_is_counted [];
}

/// What was lost at targets: each target, why, and how many packets.
fn lost(portdemux: &Portdemux<'_>) -> Result<Vec<(String, String, u64)>> {
    let read = |verb: &str| -> Result<Vec<(String, String, u64)>> {
        let document = portdemux.json(&[verb])?;
        let lost = document["lost"].as_array().context("no list `lost`")?;
        let lost = lost.iter().map(|lost| {
            let word = |key: &str| lost[key].as_str().map(str::to_owned);
            let packets = lost["packets"].as_u64();
            Some((word("to")?, word("reason")?, packets?))
        });
        lost.collect::<Option<_>>().context("a loss lacks a key")
    };
    let stats = read("stats")?;
    assert_eq!(stats, read("status")?);
    Ok(stats)
}

/// Waits until just this was lost, at one target for one reason.
fn wait_for(portdemux: &Portdemux<'_>, to: &str, why: &str, packets: u64) -> Result<()> {
    let expected = vec![(to.to_owned(), why.to_owned(), packets)];
    // The kernel hands frames on in bulk, a moment after they were decided about.
    let result = wait_until("the losses to be counted", PATIENCE, || {
        Ok(lost(portdemux)? == expected)
    });
    result.with_context(|| format!("not {expected:?} but {:?}", lost(portdemux)))
}

/// Sends datagrams of this length from the client.
fn send(lab: &Lab, to: SocketAddr, length: usize, count: usize) -> Result<()> {
    let client = lab
        .client
        .enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    for _ in 0..count {
        client.send_to(&vec![7; length], to)?;
    }
    Ok(())
}

const TO_THE_BOX: SocketAddr = SocketAddr::new(IpAddr::V4(BOX_V4), 90);

fn to_the_box() -> String {
    format!("interface:{BOX}")
}

fn what_an_interface_that_is_down_does_not_take_is_counted(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let inside = container(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, &to_the_container())?;
    assert_eq!(lost(&portdemux)?, []);
    lab.server.ip(&["link", "set", BOX, "down"])?;
    send(&lab, TO_THE_BOX, 10, 9)?;
    wait_for(&portdemux, &to_the_box(), "interface_down", 9)?;
    // They were sent on their way all the same.
    assert_eq!(portdemux.stats()?.reason("rule_interface")?.packets, 9);
    let page = portdemux.ok(&["stats"])?.stdout;
    let line = page.lines().find(|line| line.contains("interface_down"));
    assert_eq!(
        line.map(|line| line.split_whitespace().collect::<Vec<_>>()),
        Some(vec!["interface:box0", "interface_down", "9"]),
        "{page}"
    );
    let status = portdemux.ok(&["status"])?.stdout;
    ensure!(
        status.contains("interface:box0 did not take 9 packets (interface_down)")
            && !status.contains("ready: "),
        "{status}"
    );
    let warned = portdemux.ok(&["status"])?.stderr;
    ensure!(
        warned.contains("interface:box0 is down: its packets are lost (interface_down)\n   help: ip link set box0 up\n"),
        "{warned}"
    );
    let destination =
        || Ok::<_, anyhow::Error>(portdemux.json(&["status"])?["destinations"][0].clone());
    let down = destination()?;
    assert_eq!(
        [&down["up"], &down["takes_frames"]],
        [false, false],
        "{down}"
    );

    // Up again, it takes what comes.
    lab.server.ip(&["link", "set", BOX, "up"])?;
    let up = destination()?;
    assert_eq!([&up["up"], &up["takes_frames"]], [true, true], "{up}");
    let socket = inside.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 90))?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    send(&lab, TO_THE_BOX, 10, 1)?;
    assert_eq!(socket.recv(&mut [0; 16])?, 10);
    wait_for(&portdemux, &to_the_box(), "interface_down", 9)
}

fn what_is_too_long_for_an_interface_is_counted(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let _inside = container(&lab)?;
    lab.server.ip(&["link", "set", BOX, "mtu", "1000"])?;
    let portdemux = mode.attach_with_rules(&lab, &to_the_container())?;
    send(&lab, TO_THE_BOX, 1100, 3)?;
    wait_for(&portdemux, &to_the_box(), "interface_too_long", 3)
}

fn what_a_program_has_no_buffer_for_is_counted(mode: Mode) -> Result<()> {
    /// More than the program has buffers.
    const COUNT: u64 = 600;
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, &xsk::rule(""))?;
    let echo = xsk::start(&lab, &portdemux)?;
    // It gives no buffer back while it is stopped.
    echo.signal(Signal::SIGSTOP)?;
    let client = lab
        .client
        .enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    for _ in 0..COUNT {
        client.send_to(b"hello", (SERVER_V4, 7))?;
    }
    wait_until("all packets to be decided about", PATIENCE, || {
        Ok(portdemux.stats()?.reason("rule_xsk")?.packets == COUNT)
    })?;
    let [(to, why, packets)] = &lost(&portdemux)?[..] else {
        anyhow::bail!("{:?}", lost(&portdemux));
    };
    assert_eq!((&**to, &**why), ("xsk:echo", "xsk_no_buffer"));
    // What was not lost comes back.
    echo.signal(Signal::SIGCONT)?;
    client.set_read_timeout(Some(PATIENCE))?;
    for number in *packets..COUNT {
        client
            .recv(&mut [0; 16])
            .with_context(|| format!("number {number} of {COUNT}, {packets} lost"))?;
    }
    client.set_read_timeout(Some(Duration::from_millis(50)))?;
    ensure!(client.recv(&mut [0; 16]).is_err(), "one came too many");
    Ok(())
}

/// Where what can be counted depends on drivers that hand frames to each other.
fn natively(test: fn() -> Result<()>) -> Result<()> {
    if require::have(require::WIRE) {
        test()?;
    }
    Ok(())
}

#[test]
fn what_a_veth_takes_from_no_driver_is_counted() -> Result<()> {
    natively(|| {
        let lab = Lab::new()?;
        let inside = container(&lab)?;
        let settings = ["-K", INNER, "gro", "off"];
        inside.run("ethtool", &settings)?.success()?;
        let portdemux = Mode::Native.attach(&lab)?;
        let told = portdemux.apply(&to_the_container())?.stderr;
        ensure!(
            told.contains("box0 takes no frames as things are"),
            "{told}"
        );
        let takes = || -> Result<Value> {
            let status = portdemux.json(&["status"])?;
            Ok(status["destinations"][0]["takes_frames"].clone())
        };
        assert_eq!(takes()?, false);
        let told = portdemux.ok(&["status"])?;
        ensure!(
            told.stderr.contains("interface:box0 takes no frames"),
            "{told:?}"
        );
        ensure!(!told.stdout.contains("ready: interface:box0"), "{told:?}");
        send(&lab, TO_THE_BOX, 10, 5)?;
        wait_for(&portdemux, &to_the_box(), "interface_takes_none", 5)?;

        let settings = ["-K", INNER, "gro", "on"];
        inside.run("ethtool", &settings)?.success()?;
        assert_eq!(takes()?, true);
        let told = portdemux.ok(&["apply", &rules(&portdemux)?])?.stderr;
        ensure!(!told.contains("takes no frames"), "{told}");
        lab.server.ip(&["link", "delete", BOX])?;
        assert_eq!(takes()?, Value::Null);

        // In generic mode it makes no difference.
        portdemux.ok(&["detach", INTERFACE])?;
        portdemux.ok(&["attach", INTERFACE, "--mode", "generic"])?;
        portdemux.apply("[[rule]]\nport = \"90/udp\"\nto = \"interface:lo\"\n")?;
        assert_eq!(takes()?, true);
        Ok(())
    })
}

fn rules(portdemux: &Portdemux<'_>) -> Result<String> {
    let file = portdemux.rules_file(&to_the_container())?;
    Ok(file.to_string_lossy().into_owned())
}

/// Of what an interface accepts and does not transmit, the kernel names the interfaces alone, and those of
/// another network namespace can have the same numbers.
#[test]
fn what_an_interface_does_not_transmit_is_counted_by_the_instance_whose_it_was() -> Result<()> {
    natively(|| {
        let labs = [Lab::new()?, Lab::new()?];
        let mut all: Vec<(&Lab, Netns, Portdemux<'_>)> = Vec::new();
        for lab in &labs {
            let inside = container(lab)?;
            let portdemux = Mode::Native.attach_with_rules(lab, &to_the_container())?;
            all.push((lab, inside, portdemux));
        }
        let index = |lab: &Lab| -> Result<String> {
            let path = format!("/sys/class/net/{BOX}/ifindex");
            let read = lab.server.run("cat", &[&path]);
            Ok(read?.stdout)
        };
        assert_eq!(index(&labs[0])?, index(&labs[1])?);
        // Who is at the other end takes no frames of that length.
        for (lab, inside, _) in &all {
            inside.ip(&["link", "set", INNER, "mtu", "1000"])?;
            send(lab, TO_THE_BOX, 10, 1)?;
        }
        send(&labs[0], TO_THE_BOX, 1100, 7)?;
        wait_for(&all[0].2, &to_the_box(), "interface_no_room", 7)?;
        send(&labs[1], TO_THE_BOX, 1100, 2)?;
        wait_for(&all[1].2, &to_the_box(), "interface_no_room", 2)?;
        wait_for(&all[0].2, &to_the_box(), "interface_no_room", 7)?;

        // Nobody takes frames at that end.
        all[0].1.ip(&["link", "set", INNER, "down"])?;
        send(&labs[0], TO_THE_BOX, 10, 4)?;
        wait_until("all to be counted", PATIENCE, || {
            let lost = lost(&all[0].2)?;
            Ok(lost.len() == 2 && lost[1].1 == "interface_takes_none" && lost[1].2 == 4)
        })
        .with_context(|| format!("{:?}", lost(&all[0].2)))
    })
}

#[test]
fn what_finds_no_room_in_the_queue_of_a_cpu_is_counted() -> Result<()> {
    const COUNT: u64 = 3000;
    natively(|| {
        let lab = Lab::new()?;
        let portdemux = Mode::Native.attach_with_rules(
            &lab,
            "[[rule]]\nname = \"one\"\nport = \"9000/udp\"\nto = \"cpu:0\"\nqueue = 1\n",
        )?;
        let to = SocketAddr::new(SERVER_V4.into(), 9000);
        let socket = lab.server.enter(|| Ok(UdpSocket::bind(to)?))?;
        // The CPU that is to take them up sends them, and does nothing else meanwhile.
        std::thread::scope(|scope| {
            let burst = || -> Result<()> {
                stay_on_one_cpu()?;
                go_before_others()?;
                send(&lab, to, 10, usize::try_from(COUNT)?)
            };
            scope.spawn(burst).join()
        })
        .unwrap_or_else(|_| Err(anyhow::anyhow!("the sender panicked")))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut arrived = 0;
        while socket.recv(&mut [0; 16]).is_ok() {
            arrived += 1;
        }
        let [(cpu, why, packets)] = &lost(&portdemux)?[..] else {
            anyhow::bail!("{:?}", lost(&portdemux));
        };
        assert_eq!((&**cpu, &**why), ("cpu:0", "cpu_full"));
        assert_eq!(portdemux.stats()?.reason("rule_cpu")?.packets, COUNT);
        let full = full_buffers(&lab)?;
        assert_eq!(arrived + packets + full, COUNT, "{arrived} arrived");
        Ok(())
    })
}

/// Has this thread run before all others on its CPU that are not of a higher priority (`SCHED_FIFO`).
fn go_before_others() -> Result<()> {
    let thread = nix::unistd::gettid().to_string();
    let status = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &thread])
        .status()?;
    ensure!(status.success(), "chrt: {status}");
    Ok(())
}

/// How many datagrams the server's sockets had no room for.
fn full_buffers(lab: &Lab) -> Result<u64> {
    let text = lab
        .server
        .enter(|| fs::read_to_string("/proc/thread-self/net/snmp").context("read snmp"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next(), lines.next());
    let mut pairs = names
        .unwrap_or_default()
        .split_whitespace()
        .zip(values.unwrap_or_default().split_whitespace());
    let found = pairs.find(|(name, _)| *name == "RcvbufErrors");
    Ok(found.context("no RcvbufErrors")?.1.parse()?)
}

#[test]
fn nothing_is_on_the_tracepoints_but_for_the_targets_of_rules_in_force() -> Result<()> {
    natively(|| {
        let lab = Lab::new()?;
        let _inside = container(&lab)?;
        let portdemux = Mode::Native.attach(&lab)?;
        let programs = |expected: &[&str]| -> Result<()> {
            let mut found = Vec::new();
            for entry in fs::read_dir(portdemux.pins())? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                found.extend(name.strip_prefix("lost_").map(str::to_owned));
            }
            found.sort();
            assert_eq!(found, expected);
            Ok(())
        };
        let counted = || -> Result<Option<bool>> {
            Ok(portdemux.json(&["status"])?["losses_counted"].as_bool())
        };
        programs(&[])?;
        assert_eq!(counted()?, None);
        for (to, expected) in [
            (to_the_box(), &["redirect", "transmit"][..]),
            ("cpu:0".into(), &["enqueue", "redirect", "take"]),
            ("xsk:echo".into(), &["redirect"]),
            ("local".into(), &[]),
        ] {
            portdemux.apply(&format!("[[rule]]\nport = \"90/udp\"\nto = \"{to}\"\n"))?;
            programs(expected)?;
            assert_eq!(counted()?, (!expected.is_empty()).then_some(true), "{to}");
        }
        // A rule that is only tried changes nothing.
        portdemux.ok(&["apply", &rules(&portdemux)?, "--dry-run"])?;
        programs(&[])
    })
}

/// A destination that gives its place to another takes its losses with it.
#[test]
fn what_a_new_target_did_not_take_begins_at_zero() -> Result<()> {
    natively(|| {
        let lab = Lab::new()?;
        let inside = container(&lab)?;
        let second = End {
            namespace: &lab.server,
            name: "box1",
            mac: SERVER_MAC,
            addresses: Vec::new(),
        };
        let other = End {
            namespace: &inside,
            name: "inner1",
            mac: SERVER_MAC,
            addresses: Vec::new(),
        };
        veth::connect(&second, &other, 1500, Offloads::Off)?;
        let portdemux = Mode::Native.attach_with_rules(&lab, &to_the_container())?;
        lab.server.ip(&["link", "set", BOX, "down"])?;
        send(&lab, TO_THE_BOX, 10, 2)?;
        wait_for(&portdemux, &to_the_box(), "interface_down", 2)?;
        // Named by another rule, it is the same.
        portdemux
            .apply("[[rule]]\nname = \"new\"\nport = \"90/udp\"\nto = \"interface:box0\"\n")?;
        wait_for(&portdemux, &to_the_box(), "interface_down", 2)?;
        portdemux
            .apply("[[rule]]\nname = \"new\"\nport = \"90/udp\"\nto = \"interface:box1\"\n")?;
        assert_eq!(lost(&portdemux)?, []);
        send(&lab, TO_THE_BOX, 10, 3)?;
        wait_for(&portdemux, "interface:box1", "interface_takes_none", 3)?;
        portdemux.apply(&to_the_container())?;
        assert_eq!(lost(&portdemux)?, []);
        portdemux.ok(&["detach", INTERFACE])?;
        Ok(())
    })
}
