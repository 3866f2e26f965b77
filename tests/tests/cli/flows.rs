//! What `flows` says about real traffic, and what becomes of flows that are killed or denied.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{Portdemux, Traffic},
    frames::{CLIENT_V4, SERVER_V4, SERVER_V6},
    lab::{INTERFACE, Lab},
    netns::Netns,
    require::{self, Need},
    run,
    server::Server,
    terminal,
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::{Value, json};

/// A host that lets two echoes in and otherwise nothing but replies.
const RULES: &str = "\
[default]
inbound = \"drop\"

[[rule]]
name = \"stream\"
port = \"7/tcp\"

[[rule]]
name = \"datagrams\"
port = \"7/udp\"
";

/// [`RULES`] for everyone but the client.
fn denying() -> String {
    RULES.replace(
        "port = \"7/tcp\"\n",
        &format!("port = \"7/tcp\"\ndeny = \"{CLIENT_V4}\"\n"),
    )
}

fn can_run() -> bool {
    let needs = [require::WIRE, &[Need::Tool("socat")]].concat();
    require::have(&needs)
}

fn tracking(lab: &Lab) -> Result<Portdemux<'_>> {
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(RULES)?;
    Ok(portdemux)
}

/// The only flow that these arguments choose.
fn flow(portdemux: &Portdemux, arguments: &[&str]) -> Result<Value> {
    let document = portdemux.json(&[&["flows"], arguments].concat())?;
    ensure!(
        document["matching"] == 1 && document["tracked"] == true,
        "{document}"
    );
    Ok(document["flows"][0].clone())
}

/// Waits until the only flow that these arguments choose is as it should be.
fn flow_that(
    portdemux: &Portdemux,
    arguments: &[&str],
    what: &str,
    is_it: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let mut last = Value::Null;
    wait_for(what, PATIENCE, || {
        last = portdemux.json(&[&["flows"], arguments].concat())?;
        let flow = &last["flows"][0];
        Ok((last["matching"] == 1 && is_it(flow)).then(|| flow.clone()))
    })
    .with_context(|| last.to_string())
}

fn port_of(portdemux: &Portdemux, port: &str) -> Result<Value> {
    Ok(portdemux.json(&["stats", port])?["ports"][0].clone())
}

fn connect(from: &Netns, to: SocketAddr) -> Result<TcpStream> {
    let stream = from.enter(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn datagrams(from: &Netns, to: SocketAddr) -> Result<UdpSocket> {
    let socket = from.enter(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends a datagram of four bytes and waits for its echo.
fn echoed(socket: &UdpSocket) -> Result<()> {
    socket.send(b"ping")?;
    let mut answer = [0; 16];
    let length = socket.recv(&mut answer).context("no echo came")?;
    ensure!(&answer[..length] == b"ping");
    Ok(())
}

/// Says four bytes and waits for their echo.
fn spoken(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).context("no echo came")?;
    ensure!(&answer == b"ping");
    Ok(())
}

#[test]
fn a_connection_is_shown_from_its_beginning_to_its_end_with_what_it_carried() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = tracking(&lab)?;
    let _echo = Server::tcp_echo(&lab.server, 7)?;
    let mut stream = connect(&lab.client, (SERVER_V4, 7).into())?;
    spoken(&mut stream)?;
    let local = stream.local_addr()?;
    // When the acknowledgment of the echo has come, nothing is under way.
    let flow = flow_that(
        &portdemux,
        &["--port", "7/tcp"],
        "the handshake and an echo",
        |flow| flow["state"] == "established" && flow["received"]["packets"] == 4,
    )?;
    for (key, value) in [
        ("protocol", json!("tcp")),
        ("local_address", json!(SERVER_V4)),
        ("local_port", json!(7)),
        ("peer_address", json!(CLIENT_V4)),
        ("peer_port", json!(local.port())),
        ("identifier", json!(null)),
        ("begun_by", json!("peer")),
        ("half_open", json!(false)),
        ("rule", json!("stream")),
        ("verdict", json!("pass")),
        ("reason", json!("rule_local")),
    ] {
        assert_eq!(flow[key], value, "{key}");
    }
    let port = port_of(&portdemux, "7/tcp")?;
    assert_eq!(flow["received"], port["received"]);
    assert_eq!(flow["sent"], port["sent"]);
    let left = flow["left_seconds"].as_f64().context("no time")?;
    ensure!(left > 86_000.0 && left < 86_401.0, "{flow}");
    // The SYN and the ACK that completes the handshake are new; all that follows is not.
    let relations = json!({"new": 2, "established": 2, "replies": 0, "related": 0});
    assert_eq!(port["flows"], relations);

    drop(stream);
    let flow = flow_that(&portdemux, &["--port", "7/tcp"], "the end", |flow| {
        flow["state"] == "closed"
    })?;
    let left = flow["left_seconds"].as_f64().context("no time")?;
    ensure!(left <= 61.0, "{flow}");
    let closed = portdemux.json(&["flows", "--state", "closed"])?;
    assert_eq!(closed["matching"], 1);
    let established = portdemux.json(&["flows", "--state", "established,half-open"])?;
    assert_eq!(established["matching"], 0);
    Ok(())
}

#[test]
fn datagrams_make_a_flow_when_both_have_spoken_and_the_peer_has_heard_it() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = tracking(&lab)?;
    let _echo = Server::udp_echo(&lab.server, 7)?;
    for (address, frame) in [(SERVER_V4.into(), 46), (SERVER_V6.into(), 66)] {
        let socket = datagrams(&lab.client, SocketAddr::new(address, 7))?;
        let prefix = socket.local_addr()?.ip().to_string();
        let which = ["--source", &prefix];
        echoed(&socket)?;
        let flow = flow(&portdemux, &which)?;
        assert_eq!(flow["state"], "answered");
        assert_eq!(flow["half_open"], true);
        assert_eq!(
            portdemux.json(&["flows", "--state", "half-open"])?["matching"],
            1
        );
        echoed(&socket)?;
        let flow = self::flow(&portdemux, &which)?;
        assert_eq!(flow["state"], "established");
        assert_eq!(flow["half_open"], false);
        let both = json!({"packets": 2, "bytes": 2 * frame});
        assert_eq!(flow["received"], both, "{flow}");
        assert_eq!(flow["sent"], both, "{flow}");
        assert_eq!(flow["rule"], "datagrams");
    }
    let port = port_of(&portdemux, "7/udp")?;
    assert_eq!(port["sent"], json!({"packets": 4, "bytes": 224}));
    Ok(())
}

#[test]
fn a_flow_that_is_killed_is_new_at_its_next_packet() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = tracking(&lab)?;
    let _echo = Server::udp_echo(&lab.server, 7)?;
    let socket = datagrams(&lab.client, (SERVER_V4, 7).into())?;
    for _ in 0..3 {
        echoed(&socket)?;
    }
    let before = port_of(&portdemux, "7/udp")?["flows"].clone();
    let kill = ["flows", "kill", "--port", "7/udp"];
    assert_eq!(
        portdemux.ok(&kill)?.stdout,
        "1 flow forgotten: its next packet is judged as a new one\n"
    );
    assert_eq!(portdemux.json(&["flows"])?["matching"], 0);
    assert_eq!(
        portdemux.ok(&kill)?.stdout,
        "no such flow is known; nothing was changed\n"
    );
    echoed(&socket)?;
    let again = flow(&portdemux, &["--port", "7/udp"])?;
    assert_eq!(again["half_open"], true);
    assert_eq!(again["received"]["packets"], 1);
    let after = port_of(&portdemux, "7/udp")?["flows"].clone();
    let number = |flows: &Value, key: &str| flows[key].as_u64().unwrap_or_default();
    assert_eq!(number(&after, "new"), number(&before, "new") + 1);
    assert_eq!(
        number(&after, "established"),
        number(&before, "established")
    );
    Ok(())
}

#[test]
fn replies_to_a_flow_of_this_host_that_is_killed_do_not_come_in_until_it_goes_on() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = tracking(&lab)?;
    let peer = lab.client.enter(|| Ok(UdpSocket::bind((CLIENT_V4, 9))?))?;
    peer.set_read_timeout(Some(PATIENCE))?;
    let here = datagrams(&lab.server, (CLIENT_V4, 9).into())?;
    let mut buffer = [0; 16];
    here.send(b"ask")?;
    let (_, asker) = peer.recv_from(&mut buffer)?;
    peer.send_to(b"answer", asker)?;
    here.recv(&mut buffer).context("the answer did not come")?;
    let flow = flow(&portdemux, &["--source", "192.0.2.0/24"])?;
    for (key, value) in [
        ("begun_by", json!("here")),
        ("peer_port", json!(9)),
        ("rule", json!(null)),
        ("reason", json!("reply")),
    ] {
        assert_eq!(flow[key], value, "{key}");
    }
    let said = portdemux.ok(&["flows", "kill", "--all"])?.stdout;
    ensure!(said.starts_with("1 flow forgotten"), "{said}");
    peer.send_to(b"late", asker)?;
    let port = format!("{}/udp", asker.port());
    wait_until("the late answer to be dropped", PATIENCE, || {
        Ok(portdemux.stats()?.port(&port)?.dropped.packets == 1)
    })?;
    here.send(b"ask")?;
    peer.recv_from(&mut buffer)?;
    peer.send_to(b"answer", asker)?;
    let length = here.recv(&mut buffer).context("the answer did not come")?;
    assert_eq!(&buffer[..length], b"answer");
    Ok(())
}

#[test]
fn a_new_deny_cuts_a_live_connection_and_flows_says_why() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = tracking(&lab)?;
    let _echo = Server::tcp_echo(&lab.server, 7)?;
    let mut stream = connect(&lab.client, (SERVER_V4, 7).into())?;
    spoken(&mut stream)?;
    portdemux.apply(&denying())?;
    stream.write_all(b"are you there")?;
    let which = ["--port", "7/tcp"];
    let flow = flow_that(
        &portdemux,
        &which,
        "the deny to cut the connection",
        |flow| flow["verdict"] == "drop",
    )?;
    assert_eq!(flow["reason"], "source_denied");
    assert_eq!(flow["state"], "established");
    let table = portdemux.ok(&["flows"])?.stdout;
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    ensure!(head.contains("  WHY  "), "{table}");
    ensure!(
        lines
            .next()
            .is_some_and(|line| line.contains("  established  source_denied  stream  ")),
        "{table}"
    );
    // It is the rule that cuts it: without that it goes on.
    portdemux.apply(RULES)?;
    let mut answer = [0; 13];
    stream.read_exact(&mut answer).context("it did not go on")?;
    flow_that(&portdemux, &which, "the connection to go on", |flow| {
        flow["verdict"] == "pass"
    })?;
    ensure!(!portdemux.ok(&["flows"])?.stdout.contains("WHY"));
    Ok(())
}

#[test]
fn a_table_of_flows_fits_a_terminal_and_says_how_many_more_there_are() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = tracking(&lab)?;
    let _echo = Server::udp_echo(&lab.server, 7)?;
    let mut sockets = Vec::new();
    for count in 1..=3 {
        let socket = datagrams(&lab.client, (SERVER_V6, 7).into())?;
        for _ in 0..count {
            echoed(&socket)?;
        }
        sockets.push(socket);
    }
    let shown = terminal::run(portdemux.command(&["flows", "--limit", "2"]), 80)?;
    let lines: Vec<&str> = shown.text.lines().map(str::trim_end).collect();
    ensure!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{}",
        shown.text
    );
    let [head, first, second, more, left_out] = lines[..] else {
        anyhow::bail!("{}", shown.text);
    };
    ensure!(head.starts_with("PORT   PEER "), "{head}");
    ensure!(
        left_out.starts_with("left out for want of room: ADDRESS, "),
        "{left_out}"
    );
    let peer = |at: usize| -> Result<String> { Ok(sockets[at].local_addr()?.to_string()) };
    ensure!(
        first.contains(&peer(2)?) && first.contains("  peer   established  "),
        "{first}"
    );
    ensure!(second.contains(&peer(1)?), "{second}");
    assert_eq!(more, "… 1 more flows (--limit)");
    let all = portdemux.ok(&["flows"])?.stdout;
    ensure!(all.contains("  answered ½   "), "{all}");
    assert_eq!(
        portdemux
            .ok(&["flows", "--source", "2001:db8:77::/48"])?
            .stdout,
        "no such flow is known\n"
    );
    Ok(())
}

#[test]
fn what_a_port_only_sends_is_shown_and_statistics_of_a_port_say_how_it_stands_to_flows()
-> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = tracking(&lab)?;
    let here = lab
        .server
        .enter(|| Ok(UdpSocket::bind((SERVER_V4, 5555))?))?;
    here.send_to(b"hello", (CLIENT_V4, 9))?;
    // Nobody listens there, and the other end's stack says so.
    let port = wait_for("an error about the datagram", PATIENCE, || {
        let port = port_of(&portdemux, "5555/udp")?;
        Ok((port["flows"]["related"] == 1).then_some(port))
    })?;
    assert_eq!(portdemux.stats()?.port("5555/udp")?, Traffic::default());
    assert_eq!(port["sent"], json!({"packets": 1, "bytes": 47}));
    let pipe = portdemux.ok(&["stats", "5555/udp"])?.stdout;
    let tables: Vec<&str> = pipe.split("\n\n").collect();
    ensure!(
        tables[0]
            .lines()
            .next()
            .is_some_and(|head| head.ends_with("  NEW  SENT")),
        "{pipe}"
    );
    assert_eq!(
        tables[1],
        "PORT      NEW  ESTABLISHED  REPLIES  RELATED  SENT  BYTES\n\
         5555/udp    0            0        0        1     1   47 B",
    );
    // In 80 columns there is no room beside what came, and it is told all the same.
    let shown = terminal::run(portdemux.command(&["stats", "5555/udp"]), 80)?;
    ensure!(
        shown
            .text
            .lines()
            .all(|line| line.trim_end().chars().count() <= 80),
        "{}",
        shown.text
    );
    ensure!(
        shown.text.contains("ESTABLISHED  REPLIES  RELATED  SENT"),
        "{}",
        shown.text
    );
    Ok(())
}

#[test]
fn status_says_how_full_the_tables_are_and_what_they_take() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let without = portdemux.json(&["status"])?;
    assert_eq!(without["flows"], Value::Null);
    portdemux.apply(RULES)?;
    let _echo = Server::udp_echo(&lab.server, 7)?;
    let (complete, half) = (
        datagrams(&lab.client, (SERVER_V4, 7).into())?,
        datagrams(&lab.client, (SERVER_V4, 7).into())?,
    );
    echoed(&complete)?;
    echoed(&complete)?;
    echoed(&half)?;
    let status = portdemux.json(&["status"])?;
    assert_eq!(
        status["flows"],
        json!({
            "known": {"count": 1, "size": 65_536},
            "half_open": {"count": 1, "size": 65_536},
            "events": {
                "begun": 2, "begun_here": 0, "completed": 1, "half_open_evicted": 0, "evicted": 0,
                "evicted_here": 0, "full": 0,
            },
        })
    );
    let memory = |status: &Value| status["kernel_memory_bytes"].as_u64().unwrap_or_default();
    // Twice the places that are asked for, of 104 bytes each, and the counters.
    ensure!(memory(&status) - memory(&without) > (2 * 65_536 + 65_536) * 104);
    // On 2 CPUs 32 MiB, with 128 that there can be 158; flows of the default size take as much on all machines.
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)? as u64;
    ensure!(memory(&without) <= (30 + cpus) << 20, "{without}");
    ensure!(memory(&status) - memory(&without) <= 32 << 20, "{status}");
    let text = portdemux.ok(&["status"])?.stdout;
    ensure!(
        text.contains("\nflows 1 of 65,536 (under 1 %)   half-open 1 of 65,536\nkernel memory "),
        "{text}"
    );
    Ok(())
}

#[test]
fn where_no_flows_are_tracked_that_is_said() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    for words in [&["flows"][..], &["flows", "kill", "--all"]] {
        assert_eq!(
            portdemux.fails(1, words)?.stderr,
            "error: the rules of instance default need no flows, so none are tracked\n help: inbound \
             = \"drop\" in [default] of the rules file needs them, and track = true in [flows] asks \
             for them\n"
        );
    }
    let document = portdemux.json(&["flows"])?;
    ensure!(
        document["tracked"] == false && document["matching"] == 0 && document["flows"] == json!([]),
        "{document}"
    );
    let port = port_of(&portdemux, "7/udp")?;
    ensure!(port["flows"].is_null() && port["sent"].is_null(), "{port}");
    Ok(())
}

#[test]
fn nothing_is_killed_that_nobody_named() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = tracking(&lab)?;
    for (words, said) in [
        (&["kill"][..], "required arguments were not provided"),
        (&["kill", "--all", "--port", "7/tcp"], "cannot be used with"),
        (&["--json", "kill", "--all"], "cannot be used with"),
        (&["--state", "establshed"], "did you mean established"),
        (&["--source", "@lan"], "`@lan` is a set"),
        (&["--port", "7"], "write 7/tcp, 7/udp or 7/sctp"),
        (&["--limit", "0"], "0 is not in"),
    ] {
        let stderr = portdemux.fails(2, &[&["flows"], words].concat())?.stderr;
        ensure!(stderr.contains(said), "{words:?}: {stderr}");
    }
    Ok(())
}

#[test]
fn the_flow_of_the_session_it_is_typed_in_is_not_killed_unless_forced() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = tracking(&lab)?;
    // A session that this host began and that comes in as replies only.
    let listener = lab
        .client
        .enter(|| Ok(TcpListener::bind((CLIENT_V4, 2222))?))?;
    let session = connect(&lab.server, (CLIENT_V4, 2222).into())?;
    let (_there, _) = listener.accept()?;
    let here = session.local_addr()?;
    let connection = format!("{CLIENT_V4} 2222 {SERVER_V4} {}", here.port());
    let typed = |words: &[&str]| {
        let mut command = portdemux.command(&[&["flows", "kill"], words].concat());
        command.env("SSH_CONNECTION", &connection);
        run::run(command)
    };
    let what = |verb: &str| {
        format!(
            "this {verb} the SSH session you are typing in ({CLIENT_V4}:2222 → {}/tcp: unclaimed)\n",
            here.port()
        )
    };
    let output = typed(&["--all"])?;
    assert_eq!(output.code(), Some(1));
    assert_eq!(
        output.stderr,
        format!(
            "error: {} help: name other flows, or --force; nothing was changed\n",
            what("would cut")
        )
    );
    assert_eq!(portdemux.json(&["flows"])?["matching"], 1);
    // Others are nobody's business.
    let output = typed(&["--source", "198.51.100.0/24"])?.success()?;
    assert_eq!(output.stderr, "");
    let output = typed(&["--all", "--force"])?.success()?;
    assert_eq!(output.stderr, format!("warning: {}", what("cuts")));
    ensure!(
        output.stdout.starts_with("1 flow forgotten"),
        "{}",
        output.stdout
    );
    Ok(())
}
