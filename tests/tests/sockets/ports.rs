//! Ports that lead to what listens on another.

use std::{net::TcpStream, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use portdemux_tests::{
    cli::Portdemux,
    netns::Netns,
    server::{PAGE, Server},
    wait::PATIENCE,
};
use tungstenite::{Message, WebSocket, protocol::Role};

use crate::bed::{self, have, rule};

#[test]
fn nginx_serves_1000_ports_that_it_does_not_listen_on_and_again_after_a_restart() -> Result<()> {
    if !have(&["nginx", "curl"]) {
        return Ok(());
    }
    let namespace = Netns::new("web")?;
    let portdemux = Portdemux::new(&namespace)?;
    let nginx = Server::nginx(&namespace, 8080)?;
    // No interface is attached: there is none.
    portdemux.apply(&rule(
        "web",
        "[\"80/tcp\", \"3000-3999/tcp\"]",
        "127.0.0.1:8080",
        "",
    ))?;
    let ports = [80, 3000, 3456, 3999];
    for port in ports {
        let answer = bed::page(&namespace, &format!("127.0.0.1:{port}"))?.success()?;
        ensure!(answer.stdout == PAGE, "{port}: {}", answer.stdout);
    }
    for port in [81, 2999, 4000] {
        let answer = bed::page(&namespace, &format!("127.0.0.1:{port}"))?;
        ensure!(answer.code() == Some(7), "{port}: {:?}", answer.code());
    }
    let listed = portdemux.json(&["socket", "list"])?;
    let members = &listed["sockets"][0]["members"];
    ensure!(members[0]["process"] == "nginx", "{listed}");
    ensure!(listed["sockets"][0]["rules"][0] == "web", "{listed}");
    drop(nginx);
    let answer = bed::page(&namespace, "127.0.0.1:80")?;
    ensure!(answer.code() == Some(7), "{:?}", answer.code());
    let rules = portdemux.ok(&["rules"])?.stdout;
    ensure!(rules.contains(" none "), "{rules}");

    // Nobody does anything: the kernel hears that it listens.
    let _nginx = Server::nginx(&namespace, 8080)?;
    for port in ports {
        let answer = bed::page(&namespace, &format!("127.0.0.1:{port}"))?.success()?;
        ensure!(answer.stdout == PAGE, "{port}: {}", answer.stdout);
    }
    let stats = portdemux.stats()?;
    let web = stats.rule("web")?;
    ensure!(
        (web.received.packets, web.dropped.packets) == (9, 1),
        "{web:?}"
    );
    ensure!(stats.reason("rule_socket")?.packets == 8);
    ensure!(stats.reason("no_socket")?.packets == 1);
    ensure!(stats.port("3456/tcp")?.received.packets == 2);
    Ok(())
}

#[test]
fn the_port_that_the_client_used_is_what_ss_and_the_server_see() -> Result<()> {
    if !have(&["ss"]) {
        return Ok(());
    }
    let namespace = Netns::new("port")?;
    let portdemux = Portdemux::new(&namespace)?;
    let listener = bed::listen(&namespace, "127.0.0.1:8080")?;
    portdemux.apply(&rule("web", "\"80/tcp\"", "127.0.0.1:8080", ""))?;
    let client = bed::connect(&namespace, "127.0.0.1:80")?;
    let (server, peer) = listener.accept()?;
    ensure!(server.local_addr()? == "127.0.0.1:80".parse()?);
    ensure!(peer == client.local_addr()?);
    let shown = namespace.run("ss", &["-Htn"])?.success()?.stdout;
    let is_shown = |line: &str| {
        let mut words = line.split_whitespace().skip(3);
        words.next() == Some("127.0.0.1:80") && words.next() == Some(&peer.to_string())
    };
    ensure!(shown.lines().any(is_shown), "{shown}");
    Ok(())
}

#[test]
fn a_chat_over_websockets_outlives_its_listener_and_the_next_one_is_found_at_once() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("chat")?;
    let portdemux = Portdemux::new(&namespace)?;
    portdemux.apply(&rule("chat", "\"443/tcp\"", "127.0.0.1:9000", ""))?;
    let chats = || -> Result<()> {
        let listener = bed::listen(&namespace, "127.0.0.1:9000")?;
        let server = thread::spawn(move || -> Result<TcpStream> {
            let (stream, _) = listener.accept()?;
            let kept = stream.try_clone()?;
            let mut chat = tungstenite::accept(stream).map_err(|error| anyhow!("{error}"))?;
            let message = chat.read()?;
            chat.send(message)?;
            Ok(kept)
        });
        let mut chat = join(&namespace)?;
        say(&mut chat, "before")?;
        // The listener goes, the connection stays.
        let kept = server
            .join()
            .map_err(|_| anyhow!("the server panicked"))??;
        ensure!(bed::connect(&namespace, "127.0.0.1:443").is_err());
        let server = thread::spawn(move || -> Result<()> {
            let mut chat = WebSocket::from_raw_socket(kept, Role::Server, None);
            let message = chat.read()?;
            chat.send(message)?;
            Ok(())
        });
        say(&mut chat, "after")?;
        server.join().map_err(|_| anyhow!("the server panicked"))?
    };
    chats().context("the first listener")?;
    chats().context("the second listener")
}

fn join(namespace: &Netns) -> Result<WebSocket<TcpStream>> {
    let stream = bed::connect(namespace, "127.0.0.1:443")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (chat, _) = tungstenite::client("ws://127.0.0.1:443/", stream)
        .map_err(|error| anyhow!("shake hands: {error}"))?;
    Ok(chat)
}

fn say(chat: &mut WebSocket<TcpStream>, what: &str) -> Result<()> {
    chat.send(Message::text(what))?;
    let heard = chat.read().context("the chat ended")?;
    ensure!(heard.to_text()? == what, "{heard}");
    Ok(())
}

#[test]
fn a_socket_of_both_families_is_found_by_its_ipv6_address_and_gets_both() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("dual")?;
    let portdemux = Portdemux::new(&namespace)?;
    let first = bed::listen(&namespace, "[::]:8080")?;
    bed::serve(&first, "first")?;
    let v4_only = bed::listen(&namespace, "0.0.0.0:8081")?;
    bed::serve(&v4_only, "v4")?;
    portdemux.apply(&format!(
        "{}{}",
        rule("dual", "\"80/tcp\"", "[::1]:8080", ""),
        rule("v4", "\"81/tcp\"", "127.0.0.1:8081", ""),
    ))?;
    for to in ["127.0.0.1:80", "[::1]:80"] {
        let mut stream = bed::connect(&namespace, to)?;
        ensure!(bed::hear(&mut stream, 5)? == "first", "{to}");
    }
    // IPv6 has nobody there.
    let mut stream = bed::connect(&namespace, "127.0.0.1:81")?;
    ensure!(bed::hear(&mut stream, 2)? == "v4");
    ensure!(bed::connect(&namespace, "[::1]:81").is_err());
    Ok(())
}

#[test]
fn localhost_is_whoever_listens_there_for_each_version() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("local")?;
    let portdemux = Portdemux::new(&namespace)?;
    let (v4, v6) = ("127.0.0.1:80", "[::1]:80");
    let says = |to: &str, word: &str| -> Result<()> {
        let mut stream = bed::connect(&namespace, to)?;
        ensure!(bed::hear(&mut stream, word.len())? == word, "{to}");
        Ok(())
    };
    // One is there before the rule, one comes after it.
    let first = bed::listen(&namespace, "127.0.0.1:8080")?;
    bed::serve(&first, "four")?;
    portdemux.apply(&rule("web", "\"80/tcp\"", "localhost:8080", ""))?;
    says(v4, "four")?;
    ensure!(bed::connect(&namespace, v6).is_err());
    let second = bed::listen(&namespace, "[::1]:8080")?;
    bed::serve(&second, "six")?;
    says(v4, "four")?;
    says(v6, "six")?;
    let listed = portdemux.json(&["socket", "list"])?;
    let socket = &listed["sockets"][0];
    ensure!(socket["name"] == "localhost:8080", "{listed}");
    ensure!(
        socket["members"]
            .as_array()
            .is_some_and(|all| all.len() == 2)
    );
    // Another address is not meant, every address is.
    let elsewhere = bed::listen(&namespace, "127.0.0.2:8081")?;
    bed::serve(&elsewhere, "elsewhere")?;
    portdemux.apply(&rule("web", "\"80/tcp\"", "localhost:8081", ""))?;
    ensure!(bed::connect(&namespace, v4).is_err());
    let any = bed::listen(&namespace, "[::]:8082")?;
    bed::serve(&any, "any")?;
    portdemux.apply(&rule("web", "\"80/tcp\"", "localhost:8082", ""))?;
    says(v4, "any")?;
    says(v6, "any")?;
    Ok(())
}

#[test]
fn an_address_range_that_is_routed_here_leads_to_one_process() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("range")?;
    for (version, prefix) in [("-4", "203.0.113.0/24"), ("-6", "2001:db8:113::/64")] {
        namespace.ip(&[version, "route", "add", "local", prefix, "dev", "lo"])?;
    }
    let portdemux = Portdemux::new(&namespace)?;
    let listener = bed::listen(&namespace, "[::1]:8080")?;
    bed::serve(&listener, "one")?;
    let v4 = bed::listen(&namespace, "127.0.0.1:8080")?;
    bed::serve(&v4, "two")?;
    let addresses = "address = [\"203.0.113.7\", \"203.0.113.200\"]";
    let addresses_v6 = "address = [\"2001:db8:113::7\"]";
    portdemux.apply(&format!(
        "{}{}",
        rule("v4", "\"1-65535/tcp\"", "127.0.0.1:8080", addresses),
        rule("v6", "\"1-65535/tcp\"", "[::1]:8080", addresses_v6),
    ))?;
    for (to, word) in [
        ("203.0.113.7:1", "two"),
        ("203.0.113.200:65535", "two"),
        ("[2001:db8:113::7]:443", "one"),
    ] {
        let mut stream = bed::connect(&namespace, to)?;
        ensure!(bed::hear(&mut stream, 3)? == word, "{to}");
        ensure!(stream.peer_addr()?.to_string() == to);
    }
    ensure!(bed::connect(&namespace, "203.0.113.8:1").is_err());
    Ok(())
}
