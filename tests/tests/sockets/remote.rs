//! Sockets that listen elsewhere, for clients on another host.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::{SERVER_V4, SERVER_V6},
    lab::{INTERFACE, Lab},
    server::{PAGE, Server},
};
use tungstenite::Message;

use crate::bed::{self, have, rule};

/// A host that lets in nothing but what is for its two servers. The one has a socket for each version, the
/// other, known by name, one for both.
fn rules() -> String {
    let mut rules = String::from("[default]\ninbound = \"drop\"\n");
    let ports = "[\"80/tcp\", \"3000-3999/tcp\"]";
    rules += &rule("web", ports, "localhost:8080", "");
    rules + &rule("chat", "\"443/tcp\"", "chat", "")
}

#[test]
fn a_host_that_denies_by_default_serves_from_other_ports_and_again_after_a_restart_native()
-> Result<()> {
    serves("native")
}

#[test]
fn a_host_that_denies_by_default_serves_from_other_ports_and_again_after_a_restart_generic()
-> Result<()> {
    serves("generic")
}

fn serves(mode: &str) -> Result<()> {
    if !have(&["nginx", "curl"]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let _hears = Portdemux::hearing_answers(&lab)?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE, "--mode", mode])?;
    portdemux.apply(&rules())?;
    let both = |port| [bed::at(SERVER_V4, port), bed::at(SERVER_V6, port)];
    for round in 0..2_u64 {
        let nginx = Server::nginx(&lab.server, 8080)?;
        let listener = bed::listen(&lab.server, "[::]:9000")?;
        let process = std::process::id().to_string();
        let number = std::os::fd::AsRawFd::as_raw_fd(&listener).to_string();
        portdemux.ok(&["socket", "add", "chat", "--pid", &process, "--fd", &number])?;
        for port in [80, 3456] {
            for at in both(port) {
                let page = bed::page(&lab.client, &at)?.success()?;
                ensure!(page.stdout == PAGE, "{at}: {}", page.stdout);
            }
        }
        for at in both(443) {
            chat(&lab, &listener, &at)?;
        }
        // Where they listen, nobody gets in.
        for at in [both(8080), both(9000)].concat() {
            let kind = refusal(&lab, &at)?;
            ensure!(kind == Some(ErrorKind::TimedOut), "{at}: {kind:?}");
        }
        drop((nginx, listener));
        let missed = bed::reason(&portdemux, "no_socket")?;
        ensure!(missed == 4 * round, "{missed}");
        // Whoever comes while they are away is told.
        for at in [both(80), both(443)].concat() {
            let kind = refusal(&lab, &at)?;
            ensure!(kind == Some(ErrorKind::ConnectionRefused), "{at}: {kind:?}");
        }
    }
    let stats = portdemux.stats()?;
    for name in ["web", "chat"] {
        let rule = stats.rule(name)?;
        ensure!(rule.dropped.packets == 4, "{name}: {rule:?}");
        // All of a connection is counted, not its beginning alone.
        ensure!(rule.received.packets > 4 + 4 * 4, "{name}: {rule:?}");
    }
    ensure!(stats.port("8080/tcp")?.dropped.packets >= 4);
    Ok(())
}

/// Why nobody is connected to, if that is so.
fn refusal(lab: &Lab, at: &str) -> Result<Option<ErrorKind>> {
    const SILENCE: Duration = Duration::from_millis(300);
    let at: SocketAddr = at.parse()?;
    let connected = lab
        .client
        .enter(|| Ok(TcpStream::connect_timeout(&at, SILENCE)))?;
    Ok(connected.err().map(|error| error.kind()))
}

/// Joins the chat by another port than it listens on, and hears what it said.
fn chat(lab: &Lab, listener: &std::net::TcpListener, at: &str) -> Result<()> {
    std::thread::scope(|scope| {
        let server = scope.spawn(|| -> Result<()> {
            let (stream, _) = listener.accept()?;
            let mut chat = tungstenite::accept(stream).map_err(|error| anyhow!("{error}"))?;
            let message = chat.read()?;
            chat.send(message)?;
            Ok(())
        });
        let stream = bed::connect(&lab.client, at)?;
        let (mut chat, _) = tungstenite::client(format!("ws://{at}/"), stream)
            .map_err(|error| anyhow!("shake hands: {error}"))?;
        chat.send(Message::text(at))?;
        let heard = chat.read().context("the chat ended")?;
        ensure!(heard.to_text()? == at, "{heard}");
        server.join().map_err(|_| anyhow!("the server panicked"))?
    })
}
