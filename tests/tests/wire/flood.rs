//! A flood of SYNs from everywhere, and the connections that live through it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use portdemux_tests::{
    frames::{self, CLIENT_MAC, CLIENT_V4, CLIENT_V6, With as _},
    generate::Random,
    lab::{INTERFACE, Lab},
    server::Sshd,
    wait::PATIENCE,
};
use serde_json::Value;
use tungstenite::{Message, WebSocket};

use crate::{Mode, SERVERS, in_both_modes};

/// SYNs of each version: more than eight times as many as there is room for half-open flows.
const SYNS: usize = 600_000;

const RULES: &str = r#"
[default]
inbound = "drop"

[[rule]]
name = "ssh"
port = "22/tcp"

[[rule]]
name = "chat"
port = "8080/tcp"
"#;

in_both_modes! {
    a_flood_of_syns_ends_no_connection_and_keeps_nobody_out ["sshd" "ssh" "ssh-keygen"];
}

fn a_flood_of_syns_ends_no_connection_and_keeps_nobody_out(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    answer_everybody(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, RULES)?;

    let sshd = Sshd::new(&lab.server, 22)?;
    let [server, server6] = SERVERS;
    let mut shell = Shell::open(&sshd, &lab, server)?;
    let chat = lab
        .server
        .enter(|| Ok(TcpListener::bind(SocketAddr::new(server6, 8080))?))?;
    let elsewhere = lab
        .client
        .enter(|| Ok(TcpListener::bind(SocketAddr::new(CLIENT_V4.into(), 9000))?))?;
    let mut asked = lab
        .server
        .enter(|| Ok(TcpStream::connect(elsewhere.local_addr()?)?))?;
    let (mut answering, _) = elsewhere.accept()?;

    let is_over = AtomicBool::new(false);
    let (rounds, live) = thread::scope(|scope| {
        let chats = scope.spawn(|| serve_chats(&chat, &is_over));
        let mut talks = || -> Result<(u32, Value)> {
            let mut talk = join_chat(&lab, chat.local_addr()?)?;
            let flood = scope.spawn(|| flood(&lab));
            let mut rounds = 0;
            while !flood.is_finished() {
                shell.says(&format!("round {rounds}"))?;
                say(&mut talk, "still here")?;
                // This one depends on its flow alone: no rule claims its port.
                asked.write_all(b"and you?")?;
                answering.read_exact(&mut [0; 8])?;
                answering.write_all(b"as well.")?;
                asked.read_exact(&mut [0; 8])?;
                say(&mut join_chat(&lab, chat.local_addr()?)?, "new here")?;
                rounds += 1;
            }
            flood.join().map_err(|_| anyhow!("the flood panicked"))??;
            shell.says("after the flood")?;
            say(&mut talk, "still here")?;
            let live = ["flows", "--state", "established", "--limit", "1000"];
            Ok((rounds, portdemux.json(&live)?))
        };
        let rounds = talks();
        is_over.store(true, Ordering::Relaxed);
        // One more, so that the server looks.
        let _last = lab
            .server
            .enter(|| Ok(TcpStream::connect(chat.local_addr()?)?))?;
        chats.join().map_err(|_| anyhow!("the server panicked"))??;
        rounds
    })?;
    assert!(rounds > 10, "{rounds} rounds");

    let stats = portdemux.stats()?;
    let came = stats.rule("ssh")?.received.packets;
    assert!(came >= 2 * SYNS as u64, "{came} of the SYNs came");
    let flows = &portdemux.json(&["status"])?["flows"];
    let event = |name: &str| {
        flows["events"][name]
            .as_u64()
            .with_context(|| format!("no event {name}: {flows}"))
    };
    assert!(event("half_open_evicted")? > SYNS as u64, "{flows}");
    assert_eq!(
        (event("evicted")?, event("evicted_here")?),
        (0, 0),
        "{flows}"
    );
    let live = live["flows"].as_array().context("flows")?;
    for (port, begun_by) in [
        (22, "peer"),
        (8080, "peer"),
        (u64::from(asked.local_addr()?.port()), "here"),
    ] {
        let is_there = live
            .iter()
            .any(|flow| flow["local_port"] == port && flow["begun_by"] == begun_by);
        assert!(is_there, "no flow of port {port}: {live:?}");
    }
    Ok(())
}

/// The server has a route to every source: by the client, which is silent.
fn answer_everybody(lab: &Lab) -> Result<()> {
    for (version, gateway) in [("-4", IpAddr::V4(CLIENT_V4)), ("-6", CLIENT_V6.into())] {
        let gateway = gateway.to_string();
        let route = ["route", "add", "default", "via", &gateway, "dev", INTERFACE];
        lab.server.ip(&[&[version], &route[..]].concat())?;
    }
    let link = lab.client.ip(&["link", "show", INTERFACE])?.stdout;
    let mac = CLIENT_MAC.map(|byte| format!("{byte:02x}")).join(":");
    ensure!(link.contains(&mac), "the gateway is not the client: {link}");
    Ok(())
}

/// Sends SYNs for the port of ssh from sources of all the Internet.
fn flood(lab: &Lab) -> Result<()> {
    let socket = lab.client_socket()?;
    let mut random = Random::new(22);
    for _ in 0..SYNS {
        let syn = || frames::tcp(0, 22);
        let v4 = frames::ipv4(syn().with(|tcp| tcp.source = random.word())).with(|ip| {
            // Neither multicast nor loopback nor a neighbour.
            let [a, b, c, d] = random.double_word().to_be_bytes();
            ip.source = Ipv4Addr::new(11 + a % 80, b, c, d);
        });
        socket.send_when_there_is_room(&v4.frame().bytes())?;
        let v6 = frames::ipv6(syn().with(|tcp| tcp.source = random.word())).with(|ip| {
            ip.source = (0x2600_u128 << 112 | random.quad_word() >> 16).into();
        });
        socket.send_when_there_is_room(&v6.frame().bytes())?;
    }
    Ok(())
}

/// A login at which something is said and comes back.
struct Shell {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Shell {
    fn open(sshd: &Sshd, lab: &Lab, server: IpAddr) -> Result<Self> {
        let mut login = sshd.login(&lab.client, &server.to_string(), "cat");
        let mut child = login
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start ssh")?;
        let to = child.stdin.take().context("no way to ssh")?;
        let from = child.stdout.take().context("no way from ssh")?;
        let mut shell = Self { child, to, from };
        shell.says("hello")?;
        Ok(shell)
    }

    fn says(&mut self, what: &str) -> Result<()> {
        self.to.write_all(what.as_bytes())?;
        let mut heard = vec![0; what.len()];
        self.from.read_exact(&mut heard).context("ssh ended")?;
        ensure!(heard == what.as_bytes());
        Ok(())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends everybody back what they say, until it is over.
fn serve_chats(listener: &TcpListener, is_over: &AtomicBool) -> Result<()> {
    thread::scope(|scope| {
        loop {
            let (stream, _) = listener.accept()?;
            if is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            scope.spawn(move || {
                let Ok(mut chat) = tungstenite::accept(stream) else {
                    return;
                };
                while let Ok(message) = chat.read() {
                    if chat.send(message).is_err() {
                        break;
                    }
                }
            });
        }
    })
}

fn join_chat(lab: &Lab, at: SocketAddr) -> Result<WebSocket<TcpStream>> {
    let stream = lab
        .client
        .enter(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?))
        .context("join the chat")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (chat, _) = tungstenite::client(format!("ws://{at}/"), stream)
        .map_err(|error| anyhow!("shake hands: {error}"))?;
    Ok(chat)
}

fn say(chat: &mut WebSocket<TcpStream>, what: &str) -> Result<()> {
    chat.send(Message::text(what))?;
    let heard = chat.read().context("the chat ended")?;
    ensure!(heard.to_text()? == what, "{heard}");
    Ok(())
}
