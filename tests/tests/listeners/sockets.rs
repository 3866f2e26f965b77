//! Sockets of real programs, field by field as `ss` lists them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::SockType;
use portdemux_tests::{
    cli::Portdemux,
    frames::{SERVER_V4, SERVER_V6},
    lab::{INTERFACE, Lab},
    netns::Netns,
    require::Need,
    run,
    server::{Server, Socket, Sshd},
    terminal,
    wait::{PATIENCE, wait_until},
};
use serde_json::Value;

use crate::bed::{self, Wish};

/// A socket as both programs list it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    protocol: String,
    port: u64,
    /// As `ss` writes it: `*` for every address of both versions.
    address: String,
    interface: Option<String>,
    /// What waits in it, and of TCP how many may.
    queue: (u64, Option<u64>),
    uid: u64,
    /// By process: the name, and the lowest descriptor.
    processes: BTreeMap<u64, (String, u64)>,
}

/// A line of `ss -H -lntupe`: `tcp LISTEN 0 511 [::]:80 [::]:* users:(("nginx",pid=7,fd=6)) uid:33 ino:4711 …`.
fn by_ss(line: &str) -> Result<Listed> {
    let mut words = line.split_whitespace();
    let mut next = || words.next().with_context(|| line.to_owned());
    let (protocol, state) = (next()?.to_owned(), next()?);
    ensure!(matches!(state, "LISTEN" | "UNCONN"), "{line}");
    let (waiting, room): (u64, u64) = (next()?.parse()?, next()?.parse()?);
    let (address, port) = next()?.rsplit_once(':').with_context(|| line.to_owned())?;
    let (address, interface) = match address.split_once('%') {
        // The address of a socket on an interface is written as in `[::]%wire0`.
        Some((address, interface)) => (address, Some(interface.trim_end_matches(']').to_owned())),
        None => (address, None),
    };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    // portdemux writes an IPv4 address in an IPv6 socket as what it is.
    let address = address.strip_prefix("::ffff:").unwrap_or(address);
    let mut processes = BTreeMap::new();
    let field = |name: &str| line.split_once(name).map(|(_, rest)| rest);
    if let Some(users) = field("users:((").and_then(|users| users.split_once("))")) {
        for user in users.0.split("),(") {
            let (name, rest) = user
                .strip_prefix('"')
                .and_then(|user| user.split_once("\",pid="))
                .with_context(|| line.to_owned())?;
            let (pid, descriptor) = rest.split_once(",fd=").with_context(|| line.to_owned())?;
            let descriptor: u64 = descriptor.parse()?;
            let known = processes
                .entry(pid.parse()?)
                .or_insert_with(|| (name.to_owned(), descriptor));
            known.1 = known.1.min(descriptor);
        }
    }
    let uid = field(" uid:").and_then(|rest| rest.split_whitespace().next());
    Ok(Listed {
        queue: (waiting, (protocol == "tcp").then_some(room)),
        protocol,
        port: port.parse()?,
        address: address.to_owned(),
        interface,
        // Root's is not written.
        uid: uid.map_or(Ok(0), str::parse)?,
        processes,
    })
}

fn by_portdemux(listener: &Value) -> Result<Listed> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let number = |value: &Value| value.as_u64().with_context(|| listener.to_string());
    let protocol = text(&listener["protocol"]).with_context(|| listener.to_string())?;
    let queue = if protocol == "tcp" {
        let queue = &listener["accept_queue"];
        (number(&queue["waiting"])?, Some(number(&queue["backlog"])?))
    } else {
        (number(&listener["receive_queue"]["bytes"])?, None)
    };
    let addresses = listener["addresses"].as_array().map(Vec::as_slice);
    let Some([address]) = addresses else {
        anyhow::bail!("{listener}");
    };
    let both = serde_json::json!([4, 6]);
    let address = if listener["ip_versions"] == both {
        "*".to_owned()
    } else {
        text(address).with_context(|| listener.to_string())?
    };
    let mut processes = BTreeMap::new();
    for process in listener["processes"].as_array().into_iter().flatten() {
        let name = text(&process["name"]).with_context(|| listener.to_string())?;
        processes.insert(number(&process["pid"])?, (name, number(&process["fd"])?));
    }
    Ok(Listed {
        protocol,
        port: number(&listener["port"])?,
        address,
        interface: text(&listener["interface"]),
        queue,
        uid: number(&listener["uid"])?,
        processes,
    })
}

/// What both say of everything in a namespace, once they agree: a process that another test is just starting
/// has the sockets of this one for a moment.
fn agreed(portdemux: &Portdemux, namespace: &Netns) -> Result<Vec<Listed>> {
    let mut lists = [Vec::new(), Vec::new()];
    let agree = wait_until("the same lists", Duration::from_secs(5), || {
        lists = both_lists(portdemux, namespace)?;
        Ok(lists[0] == lists[1])
    });
    let [theirs, ours] = lists;
    assert_eq!(ours, theirs);
    agree.map(|()| ours)
}

/// What `ss` and portdemux say; several sockets can be alike.
fn both_lists(portdemux: &Portdemux, namespace: &Netns) -> Result<[Vec<Listed>; 2]> {
    let ss = namespace.run("ss", &["-H", "-lntupe"])?.success()?.stdout;
    let ours = bed::listeners(portdemux, &[])?;
    let mut lists = [
        ss.lines().map(by_ss).collect::<Result<Vec<_>>>()?,
        ours.iter().map(by_portdemux).collect::<Result<Vec<_>>>()?,
    ];
    for list in &mut lists {
        list.sort();
    }
    Ok(lists)
}

#[test]
fn real_programs_are_listed_as_ss_lists_them() -> Result<()> {
    let programs = ["ss", "nginx", "dnsmasq", "sshd", "ssh-keygen", "setpriv"].map(Need::Tool);
    if !bed::have(&programs) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let server = &lab.server;
    let portdemux = Portdemux::new(server)?;
    let _nginx = Server::nginx(server, 80)?;
    let _dnsmasq = Server::dnsmasq(server, 53)?;
    let _sshd = Sshd::new(server, 22)?;
    let _echoes = [Server::tcp_echo(server, 7)?, Server::udp_echo(server, 7)?];
    // Of somebody else.
    let mut command = server.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "socat"]);
    command.args(["UDP4-RECVFROM:5000,fork", "EXEC:cat"]);
    let _nobody = Server::start(command, Socket::Udp, 5000, None)?;
    let only_v6 = Wish {
        only_v6: true,
        ..Wish::default()
    };
    let on_interface = Wish {
        on_interface: true,
        ..Wish::default()
    };
    let both = |port: u16| format!("[::]:{port}");
    let _sockets = [
        bed::listening(server, &both(8001), only_v6, 5)?,
        bed::listening(server, &both(8002), on_interface, 6)?,
        bed::listening(server, "0.0.0.0:8006", on_interface, 7)?,
        bed::listening(server, "127.0.0.1:8003", Wish::default(), 8)?,
        bed::listening(server, &format!("{SERVER_V4}:8004"), Wish::default(), 9)?,
        bed::listening(server, &format!("[{SERVER_V6}]:8004"), Wish::default(), 10)?,
        // An IPv4 address in an IPv6 socket.
        bed::listening(
            server,
            &format!("[::ffff:{SERVER_V4}]:8005"),
            Wish::default(),
            11,
        )?,
    ];
    let _datagrams = [
        bed::bound(server, SockType::Datagram, &both(8001), only_v6)?,
        bed::bound(server, SockType::Datagram, "0.0.0.0:8002", on_interface)?,
        bed::bound(server, SockType::Datagram, "[::1]:8003", Wish::default())?,
    ];
    let ours = agreed(&portdemux, server)?;
    ensure!(ours.len() >= 20, "{ours:#?}");
    let names: BTreeSet<&str> = ours
        .iter()
        .flat_map(|listed| listed.processes.values())
        .map(|(name, _)| name.as_str())
        .collect();
    ensure!(
        names.is_superset(&["nginx", "dnsmasq", "sshd", "socat"].into()),
        "{names:?}"
    );
    // A master and its worker have one socket.
    let nginx = ours
        .iter()
        .filter(|listed| listed.port == 80 && listed.processes.len() == 2);
    assert_eq!(nginx.count(), 2);
    assert_eq!(ours.iter().filter(|listed| listed.uid == 65_534).count(), 1);
    Ok(())
}

#[test]
fn sockets_of_other_namespaces_are_not_listed() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let _here = bed::listening(&lab.server, "0.0.0.0:81", Wish::default(), 1)?;
    let _there = bed::listening(&lab.client, "0.0.0.0:82", Wish::default(), 1)?;
    let ports = bed::listeners(&portdemux, &[])?;
    let ports: Vec<Option<u64>> = ports.iter().map(|found| found["port"].as_u64()).collect();
    assert_eq!(ports, [Some(81)]);
    Ok(())
}

#[test]
fn what_waits_is_told_and_a_full_queue_stands_first() -> Result<()> {
    if !bed::have(&[Need::Tool("ss")]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let _quiet = bed::listening(&lab.server, "0.0.0.0:80", Wish::default(), 5)?;
    let slow = bed::listening(&lab.server, "0.0.0.0:8080", Wish::default(), 1)?;
    let datagrams: UdpSocket = bed::bound(
        &lab.server,
        SockType::Datagram,
        "0.0.0.0:53",
        Wish::default(),
    )?
    .into();
    let connect = || Ok(TcpStream::connect((SERVER_V4, 8080))?);
    let _waiting = [lab.client.enter(connect)?, lab.client.enter(connect)?];
    lab.client.enter(|| {
        let sender = UdpSocket::bind("0.0.0.0:0")?;
        Ok(sender.send_to(b"five.", (SERVER_V4, 53))?)
    })?;
    wait_until("a datagram", PATIENCE, || {
        Ok(datagrams.peek(&mut [0; 8]).is_ok())
    })?;
    agreed(&portdemux, &lab.server)?;
    let rows = bed::listeners(&portdemux, &[])?;
    let queue = |row: usize, kind: &str| rows[row][kind].clone();
    assert_eq!(
        queue(0, "accept_queue"),
        serde_json::json!({"waiting": 2, "backlog": 1})
    );
    let datagram = queue(1, "receive_queue");
    // What it takes in the kernel is more than what it says.
    let (bytes, size) = (datagram["bytes"].as_u64(), datagram["size"].as_u64());
    ensure!(bytes > Some(5) && bytes < size, "{datagram}");
    assert_eq!(datagram["dropped"], 0);
    assert_eq!(
        queue(2, "accept_queue"),
        serde_json::json!({"waiting": 0, "backlog": 5})
    );
    assert_eq!(
        (&rows[0]["receive_queue"], &rows[1]["accept_queue"]),
        (&Value::Null, &Value::Null)
    );
    let table = portdemux.ok(&["listeners"])?.stdout;
    let first = table.lines().nth(1).context("no row")?;
    ensure!(
        first.starts_with("8080/tcp  0.0.0.0 ") && first.contains(" 2 of 1 (full)  "),
        "{table}"
    );

    // What finds no room is lost, and that is told.
    nix::sys::socket::setsockopt(&datagrams, nix::sys::socket::sockopt::RcvBuf, &1)?;
    lab.client.enter(|| {
        let sender = UdpSocket::bind("0.0.0.0:0")?;
        sender.connect((SERVER_V4, 53))?;
        for _ in 0..64 {
            sender.send(&[0; 1024])?;
        }
        Ok(())
    })?;
    wait_until("a loss", PATIENCE, || {
        let lost = &bed::listener(&portdemux, "53/udp")?["receive_queue"]["dropped"];
        Ok(lost.as_u64() > Some(0))
    })?;
    ensure!(
        portdemux
            .ok(&["listeners", "53/udp"])?
            .stdout
            .contains(" lost")
    );
    drop(slow);
    Ok(())
}

#[test]
fn only_the_ports_that_were_asked_for_are_listed() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let ports = [80, 8000, 8001, 9000];
    let _sockets: Vec<_> = ports
        .iter()
        .map(|port| bed::listening(&lab.server, &format!("0.0.0.0:{port}"), Wish::default(), 1))
        .collect::<Result<_>>()?;
    let asked = |ports: &[&str]| -> Result<Vec<u64>> {
        let found = bed::listeners(&portdemux, ports)?;
        Ok(found
            .iter()
            .filter_map(|found| found["port"].as_u64())
            .collect())
    };
    assert_eq!(asked(&[])?, ports);
    assert_eq!(asked(&["8000-8999/tcp", "80/tcp"])?, [80, 8000, 8001]);
    assert_eq!(asked(&["80/udp", "81/tcp"])?, [0; 0]);
    let told = portdemux.ok(&["listeners", "81/tcp"])?;
    assert_eq!(told.stdout, "nothing listens on these ports\n");
    Ok(())
}

/// A name is what its process likes.
#[test]
fn the_name_of_a_process_cannot_speak_to_the_terminal() -> Result<()> {
    if !bed::have(&[Need::Tool("sh")]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let listener = bed::listening(&lab.server, "0.0.0.0:80", Wish::default(), 1)?;
    // A thread group's name is that of its first thread, so the socket goes to a process of its own.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "printf '\\033[2Jgone' > /proc/$$/comm; read line"]);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::os::fd::OwnedFd::from(listener));
    let mut child = command.spawn()?;
    drop(command);
    let renamed = || {
        Ok(
            bed::listeners(&portdemux, &["80/tcp"])?[0]["processes"][0]["name"]
                .as_str()
                .is_some_and(|name| name.ends_with("gone")),
        )
    };
    let waited = wait_until("a name", PATIENCE, renamed);
    let row = bed::listener(&portdemux, "80/tcp");
    let table = portdemux.ok(&["listeners"]);
    let shown = terminal::run(portdemux.command(&["listeners"]), 80);
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"\n")?;
    }
    child.wait()?;
    waited?;
    assert_eq!(row?["processes"][0]["name"], "\u{1b}[2Jgone");
    for text in [table?.stdout, shown?.text] {
        ensure!(text.contains(" \u{fffd}[2Jgone ("), "{text:?}");
        ensure!(!text.contains("\u{1b}[2J"), "{text:?}");
    }
    Ok(())
}

#[test]
fn on_a_narrow_terminal_the_table_sheds_users_then_queues() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let mut command = lab.server.command("socat");
    let bound = format!("TCP6-LISTEN:8080,bind=[{SERVER_V6}],so-bindtodevice={INTERFACE}");
    command.args([&bound, "EXEC:cat"]);
    let socat = Server::start(command, Socket::Tcp, 8080, None)?;
    // The number of its process is part of the table.
    let digits = u16::try_from(socat.process().pid().to_string().len())?;
    portdemux.ok(&["attach", INTERFACE])?;
    let name = "a-rule-with-a-name-that-is-rather-long";
    portdemux.ok(&["add", "8080/tcp", "--name", name])?;
    let head = |columns| -> Result<String> {
        let shown = terminal::run(portdemux.command(&["listeners"]), columns)?;
        ensure!(shown.status.success(), "{}", shown.text);
        let widest = shown.text.lines().map(|line| line.chars().count()).max();
        ensure!(widest <= Some(columns.into()), "{columns}: {}", shown.text);
        let head = shown.text.lines().next().unwrap_or_default();
        Ok(head.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(head(132)?, "PORT ADDRESS PROCESS USER QUEUE REACH");
    assert_eq!(head(75 + digits)?, "PORT ADDRESS PROCESS QUEUE REACH");
    assert_eq!(head(55 + digits)?, "PORT ADDRESS PROCESS REACH");
    let text = run::run(portdemux.command(&["listeners"]))?
        .success()?
        .stdout;
    ensure!(
        text.ends_with(&format!(" directly, rule {name}\n")),
        "{text}"
    );
    ensure!(
        text.contains(&format!(" {SERVER_V6}%{INTERFACE} ")),
        "{text}"
    );
    Ok(())
}
