//! Ports that lead to sockets elsewhere go on while another version takes over.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::SERVER_V4,
    lab::{INTERFACE, Lab},
    require,
    wait::{PATIENCE, wait_for, wait_until},
};

use crate::bed::Pair;

const RULES: &str = "\
[default]
inbound = \"drop\"

[[rule]]
name = \"web\"
port = \"80/tcp\"
to = \"socket:127.0.0.1:8080\"
";

/// How many connections come about before and after.
const SOME: u64 = 20;

#[test]
fn every_connection_comes_to_its_socket_while_another_version_takes_over() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let pair = Pair::of_this()?;
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    pair.use_older(&mut portdemux);
    let listener = lab
        .server
        .enter(|| TcpListener::bind("127.0.0.1:8080").context("listen"))?;
    let rules = portdemux.rules_file(RULES)?.display().to_string();
    portdemux.ok(&["attach", INTERFACE, "--mode", "generic", "--rules", &rules])?;
    pair.use_newer(&mut portdemux);

    serve(&listener)?;
    let mut lasting = connect(&lab)?;
    let (count, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| -> Result<()> {
        let connecting = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                talk(&mut connect(&lab)?, 1)?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let more = |what| {
            let then = count.load(Ordering::Relaxed);
            wait_until(what, PATIENCE, || {
                let is_ended = connecting.is_finished();
                Ok(is_ended || count.load(Ordering::Relaxed) > then + SOME)
            })
        };
        let upgraded = more("connections before")
            .and_then(|()| portdemux.ok(&["upgrade"]).map(drop))
            .and_then(|()| more("connections after"));
        is_over.store(true, Ordering::Relaxed);
        connecting.join().expect("the client panicked")?;
        upgraded
    })
    .with_context(|| format!("{pair:?}"))?;
    talk(&mut lasting, 2).context("a connection from before")?;

    // A server that is started anew is found by the newer version's programs.
    drop(listener);
    let status = portdemux.json(&["status"])?;
    ensure!(status["sockets"]["followed"] == "kernel" || status["sockets"].is_object());
    ensure!(portdemux.stats()?.rule("web")?.received.packets > 0);
    Ok(())
}

/// Rules that a process is needed for: nothing in the kernel says when a datagram socket is there.
const FOLLOWED: &str = "\
[[rule]]
name = \"dns\"
port = \"53/udp\"
to = \"socket:127.0.0.1:5353\"
fallback = \"drop\"
";

/// Waits until the follower of the instance is of a program, and returns its number.
fn runs(portdemux: &Portdemux, program: &Path) -> Result<u32> {
    let program = fs::canonicalize(program)?;
    let lock = portdemux.state().join("default/follower");
    wait_for("a follower", PATIENCE, || {
        let held = fs::read_to_string(&lock).unwrap_or_default();
        let id = held.strip_prefix("process ").map(str::trim);
        let id: Option<u32> = id.and_then(|id| id.parse().ok());
        Ok(
            id.filter(|id| {
                fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe == program)
            }),
        )
    })
}

#[test]
fn the_process_that_looks_for_sockets_is_replaced_by_the_newer_version_s() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let pair = Pair::of_this()?;
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    pair.use_older(&mut portdemux);
    let rules = portdemux.rules_file(FOLLOWED)?.display().to_string();
    portdemux.ok(&["attach", INTERFACE, "--rules", &rules])?;
    let old = runs(&portdemux, &pair.older)?;
    pair.use_newer(&mut portdemux);
    portdemux.ok(&["upgrade"])?;
    ensure!(runs(&portdemux, &pair.newer)? != old);
    wait_until("the end of the older follower", PATIENCE, || {
        Ok(fs::read_link(format!("/proc/{old}/exe")).is_err())
    })?;

    // It finds a server that comes only now.
    let bind = |address: &str| UdpSocket::bind(address).context("bind");
    let server = lab.server.enter(|| bind("127.0.0.1:5353"))?;
    let client = lab.client.enter(|| bind("0.0.0.0:0"))?;
    server.set_read_timeout(Some(Duration::from_millis(20)))?;
    wait_until("a datagram", PATIENCE, || {
        client.send_to(b"whose?", (SERVER_V4, 53))?;
        Ok(server.recv(&mut [0; 16]).is_ok())
    })?;
    Ok(())
}

fn serve(listener: &TcpListener) -> Result<()> {
    let listener = listener.try_clone()?;
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut word = [0];
                while stream.read_exact(&mut word).is_ok() && stream.write_all(&word).is_ok() {}
            });
        }
    });
    Ok(())
}

fn connect(lab: &Lab) -> Result<TcpStream> {
    let to = SocketAddr::from((SERVER_V4, 80));
    let stream = lab
        .client
        .enter(|| TcpStream::connect_timeout(&to, PATIENCE).context("connect"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn talk(stream: &mut TcpStream, word: u8) -> Result<()> {
    stream.write_all(&[word])?;
    let mut heard = [0];
    stream.read_exact(&mut heard).context("hear an answer")?;
    ensure!(heard == [word], "{heard:?} instead of {word}");
    Ok(())
}
