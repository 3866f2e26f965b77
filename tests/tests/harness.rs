//! The harness does what the other suites rely on.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    bpffs::Bpffs,
    frames::{
        self, CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6, SERVICE_VLAN, Tcp, VLAN, With as _,
    },
    lab::{INTERFACE, Lab},
    netns::{self, Netns},
    require::{self, Need},
    run::Running,
    server::{HOST, HOST_V4, HOST_V6, PAGE, Server, Sshd},
    veth::Offloads,
    wait::{PATIENCE, wait_until},
};

#[test]
fn both_ends_of_a_wire_reach_each_other() -> Result<()> {
    if !require::have(&[require::LAB, &[Need::Tool("socat")]].concat()) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let _echo = Server::tcp_echo(&lab.server, 7)?;
    let _reverse = Server::tcp_echo(&lab.client, 7)?;
    for (from, to) in [
        (&lab.client, IpAddr::from(SERVER_V4)),
        (&lab.client, IpAddr::from(SERVER_V6)),
        (&lab.server, IpAddr::from(CLIENT_V4)),
        (&lab.server, IpAddr::from(CLIENT_V6)),
    ] {
        from.enter(|| {
            let mut connection = TcpStream::connect_timeout(&(to, 7).into(), PATIENCE)?;
            connection.write_all(b"hello")?;
            connection.shutdown(Shutdown::Write)?;
            let mut said = String::new();
            connection.read_to_string(&mut said)?;
            ensure!(said == "hello", "{to} said {said}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_wire_is_quiet_but_for_what_a_test_sends() -> Result<()> {
    if !require::have(require::LAB) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (client, server) = (lab.client_socket()?, lab.server_socket()?);
    // Groups are reported and routers asked within the first seconds.
    ensure!(
        server.receive(Duration::from_secs(3))?.is_none(),
        "the server heard something"
    );
    ensure!(
        client.receive(Duration::from_millis(1))?.is_none(),
        "the client heard something"
    );
    Ok(())
}

#[test]
fn frames_arrive_as_they_were_sent() -> Result<()> {
    if !require::have(require::LAB) {
        return Ok(());
    }
    let lab = Lab::with(9000, Offloads::Off)?;
    let (client, server) = (lab.client_socket()?, lab.server_socket()?);
    let web = frames::ipv4(frames::tcp(40_000, 443)).frame();
    let large = frames::udp(40_000, 53).with(|udp| udp.data = vec![7; 8000]);
    for frame in [
        web.clone(),
        web.clone().tag(VLAN, 7),
        web.clone().tag(SERVICE_VLAN, 0x2007),
        web.tag(SERVICE_VLAN, 7).tag(VLAN, 8),
        frames::ipv6(large).frame(),
        frames::ethernet(0x88b5, vec![1; 46]),
    ] {
        client.send(&frame.bytes())?;
        let arrived = server.receive(PATIENCE)?.context("nothing arrived")?;
        assert_eq!(arrived, frame.bytes());
    }
    Ok(())
}

#[test]
fn a_real_stack_answers_the_frames_that_are_built() -> Result<()> {
    if !require::have(require::LAB) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let client = lab.client_socket()?;
    // Nothing listens: TCP answers with a reset, UDP with an ICMP error. A wrong checksum would be
    // answered with silence.
    client.send(&frames::ipv4(frames::tcp(40_000, 443)).frame().bytes())?;
    client.expect("a reset over IPv4", PATIENCE, |frame| {
        frame.get(23) == Some(&frames::TCP)
            && frame.get(47).is_some_and(|flags| flags & Tcp::RST != 0)
    })?;
    client.send(&frames::ipv6(frames::tcp(40_000, 443)).frame().bytes())?;
    client.expect("a reset over IPv6", PATIENCE, |frame| {
        frame.get(20) == Some(&frames::TCP)
            && frame.get(67).is_some_and(|flags| flags & Tcp::RST != 0)
    })?;
    let odd = frames::udp(40_000, 53).with(|udp| udp.data = vec![0x55; 33]);
    let fragmented = frames::ipv4(frames::udp(40_000, 54).with(|udp| udp.data = vec![7; 3000]));
    let walked = frames::ipv6(odd.clone())
        .then(frames::extension(frames::HOP_BY_HOP, 0))
        .then(frames::extension(frames::DESTINATION_OPTIONS, 1));
    for (what, sent) in [
        ("UDP over IPv4", vec![frames::ipv4(odd).frame()]),
        (
            "fragments",
            fragmented
                .fragments(1480)
                .iter()
                .map(frames::Ipv4::frame)
                .collect(),
        ),
    ] {
        for frame in sent {
            client.send(&frame.bytes())?;
        }
        client.expect(&format!("an ICMP error about {what}"), PATIENCE, |frame| {
            frame.get(23) == Some(&frames::ICMP) && frame.get(34) == Some(&3)
        })?;
    }
    client.send(&walked.frame().bytes())?;
    client.expect(
        "an ICMPv6 error about UDP behind extension headers",
        PATIENCE,
        |frame| frame.get(20) == Some(&frames::ICMPV6) && frame.get(54) == Some(&1),
    )?;
    Ok(())
}

#[test]
fn servers_serve() -> Result<()> {
    let tools = [
        "nginx",
        "curl",
        "dnsmasq",
        "dig",
        "iperf3",
        "socat",
        "sshd",
        "ssh",
        "ssh-keygen",
    ];
    if !require::have(&[require::LAB, &tools.map(Need::Tool)].concat()) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let _nginx = Server::nginx(&lab.server, 80)?;
    let _dnsmasq = Server::dnsmasq(&lab.server, 53)?;
    let _iperf3 = Server::iperf3(&lab.server, 5201)?;
    let _tcp = Server::tcp_echo(&lab.server, 7)?;
    let _udp = Server::udp_echo(&lab.server, 7)?;
    let sshd = Sshd::new(&lab.server, 22)?;

    for host in [SERVER_V4.to_string(), format!("[{SERVER_V6}]")] {
        let page = lab
            .client
            .run("curl", &["-sS", &format!("http://{host}/")])?
            .success()?;
        assert_eq!(page.stdout, PAGE);
    }
    for (kind, address) in [("A", HOST_V4), ("AAAA", HOST_V6)] {
        let server = format!("@{SERVER_V4}");
        let answer = lab
            .client
            .run("dig", &["+short", &server, HOST, kind])?
            .success()?;
        assert_eq!(answer.stdout.trim(), address);
    }
    lab.client
        .run("iperf3", &["-c", &SERVER_V4.to_string(), "-n", "1M"])?
        .success()?;
    for (protocol, address) in [
        ("TCP4", SERVER_V4.to_string()),
        ("UDP6", format!("[{SERVER_V6}]")),
    ] {
        let script = format!("echo hello | socat -t 5 - {protocol}:{address}:7 | head -n 1");
        let said = lab.client.run("sh", &["-c", &script])?.success()?;
        assert_eq!(said.stdout, "hello\n");
    }
    for address in [SERVER_V4.to_string(), SERVER_V6.to_string()] {
        let login = sshd.login(&lab.client, &address, "echo logged in");
        let said = portdemux_tests::run::run(login)?.success()?;
        assert_eq!(said.stdout, "logged in\n");
    }
    Ok(())
}

#[test]
fn nothing_is_left_when_a_test_ends_or_panics() -> Result<()> {
    if !require::have(&[require::LAB, &[Need::Bpf]].concat()) {
        return Ok(());
    }
    let make = || -> Result<(Lab, Running, Bpffs)> {
        let lab = Lab::new()?;
        let sleeper = lab.server.spawn("sleep", &["1000"])?;
        Ok((lab, sleeper, Bpffs::new()?))
    };
    let (lab, sleeper, bpffs) = make()?;
    let left = [lab.client.name().to_owned(), lab.server.name().to_owned()];
    let (pid, mounted) = (sleeper.pid(), bpffs.path().to_owned());
    assert!(is_mounted(&mounted)?);
    drop((lab, sleeper, bpffs));
    let is_gone = |name: &String| !netns::all().contains(name);
    assert!(left.iter().all(is_gone), "{left:?} of {:?}", netns::all());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!mounted.exists() && !is_mounted(&mounted)?);

    let (lab, sleeper, bpffs) = make()?;
    let left = [lab.client.name().to_owned(), lab.server.name().to_owned()];
    let mounted = bpffs.path().to_owned();
    let panicked = std::thread::spawn(move || {
        let _held = (lab, sleeper, bpffs);
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(panicked.join().is_err());
    assert!(left.iter().all(is_gone), "{left:?} of {:?}", netns::all());
    assert!(!mounted.exists() && !is_mounted(&mounted)?);
    Ok(())
}

#[test]
fn a_process_that_escapes_its_group_ends_with_its_namespace() -> Result<()> {
    if !require::have(require::LAB) {
        return Ok(());
    }
    let namespace = Netns::new("escape")?;
    namespace
        .run("setsid", &["--fork", "sleep", "1000"])?
        .success()?;
    let pids = || -> Result<BTreeSet<String>> {
        let output = portdemux_tests::run::ip(&["netns", "pids", namespace.name()])?;
        Ok(output.stdout.lines().map(str::to_owned).collect())
    };
    wait_until("the daemon to start", PATIENCE, || Ok(!pids()?.is_empty()))?;
    let pids = pids()?;
    drop(namespace);
    wait_until("the daemon to end", PATIENCE, || {
        Ok(pids.iter().all(|pid| is_dead(pid)))
    })
}

#[test]
fn a_program_that_does_not_end_is_killed() -> Result<()> {
    let mut command = std::process::Command::new("sleep");
    command.arg("1000");
    let running = Running::spawn(command)?;
    let pid = running.pid().to_string();
    assert!(running.wait(Duration::from_millis(20)).is_err());
    assert!(is_dead(&pid));
    Ok(())
}

#[test]
fn interfaces_of_a_lab_exist_only_in_it() -> Result<()> {
    if !require::have(require::LAB) {
        return Ok(());
    }
    let lab = Lab::new()?;
    lab.client.ip(&["link", "show", INTERFACE])?;
    lab.server.ip(&["link", "show", INTERFACE])?;
    assert!(portdemux_tests::run::ip(&["link", "show", INTERFACE]).is_err());
    Ok(())
}

/// Whether a process is gone, or only waits for its parent to notice.
fn is_dead(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn is_mounted(path: &Path) -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == path.to_str()))
}
