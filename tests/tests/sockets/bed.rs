//! What these tests stand on.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage},
};
use portdemux_tests::{
    cli::Portdemux,
    netns::Netns,
    require::{self, Need},
    run::Output,
    wait::PATIENCE,
};

/// Whether a namespace with portdemux and these programs in it can be had.
pub(crate) fn have(tools: &[&'static str]) -> bool {
    let tools = tools.iter().copied().map(Need::Tool);
    let needs: Vec<Need> = require::WIRE.iter().copied().chain(tools).collect();
    require::have(&needs)
}

/// A socket of this process that listens in a namespace.
pub(crate) fn listen(namespace: &Netns, address: &str) -> Result<TcpListener> {
    namespace.enter(|| TcpListener::bind(address).with_context(|| format!("listen at {address}")))
}

/// A UDP socket of this process in a namespace, which does not wait for ever.
pub(crate) fn bind(namespace: &Netns, address: &str) -> Result<UdpSocket> {
    let socket = namespace
        .enter(|| UdpSocket::bind(address).with_context(|| format!("bind to {address}")))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Connects from a namespace.
pub(crate) fn connect(namespace: &Netns, to: &str) -> Result<TcpStream> {
    let to: SocketAddr = to.parse()?;
    let stream = namespace.enter(|| {
        TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}"))
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether a connection from an address of a namespace comes about.
pub(crate) fn is_let_in(namespace: &Netns, from: &str, to: &str) -> Result<bool> {
    let from = SockaddrStorage::from(SocketAddr::new(from.parse()?, 0));
    let to = SockaddrStorage::from(to.parse::<SocketAddr>()?);
    namespace.enter(|| {
        let client = socket::socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        socket::bind(client.as_raw_fd(), &from)?;
        match socket::connect(client.as_raw_fd(), &to) {
            Ok(()) => Ok(true),
            Err(Errno::ECONNREFUSED) => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
}

/// Serves connections, each on a thread of its own, until the listener is closed: says a word and echoes.
pub(crate) fn serve(listener: &TcpListener, word: &'static str) -> Result<()> {
    let listener = listener.try_clone()?;
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            thread::spawn(move || echo(stream, word));
        }
    });
    Ok(())
}

fn echo(mut stream: TcpStream, word: &str) {
    let mut buffer = [0; 64];
    if stream.write_all(word.as_bytes()).is_err() {
        return;
    }
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Says something on a connection and hears it back.
pub(crate) fn talk(stream: &mut TcpStream, what: &str) -> Result<()> {
    stream.write_all(what.as_bytes())?;
    ensure!(hear(stream, what.len())? == what);
    Ok(())
}

/// Hears so many bytes on a connection.
pub(crate) fn hear(stream: &mut TcpStream, count: usize) -> Result<String> {
    let mut heard = vec![0; count];
    stream.read_exact(&mut heard).context("hear an answer")?;
    Ok(String::from_utf8(heard)?)
}

/// What a web server says at a port of a namespace.
pub(crate) fn page(namespace: &Netns, at: &str) -> Result<Output> {
    namespace.run("curl", &["-sS", "-g", "-m", "10", &format!("http://{at}/")])
}

/// A rule that hands ports to a socket.
pub(crate) fn rule(name: &str, ports: &str, to: &str, more: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nport = {ports}\nto = \"socket:{to}\"\n{more}\n")
}

/// How many packets came to a reason so far, 0 if none.
pub(crate) fn reason(portdemux: &Portdemux, name: &str) -> Result<u64> {
    let reasons = portdemux.stats()?.reasons()?;
    let known = reasons.into_iter().find(|(known, _)| known == name);
    Ok(known.map_or(0, |(_, count)| count.packets))
}

/// An address and a port as they are written.
pub(crate) fn at(address: impl Into<IpAddr>, port: u16) -> String {
    SocketAddr::new(address.into(), port).to_string()
}
