//! What these tests have in common.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use portdemux_tests::{
    cli::Portdemux,
    lab::INTERFACE,
    netns::Netns,
    require::{self, Need},
};
use serde_json::Value;

/// What most of these tests need.
pub(crate) const NEEDS: &[Need] = &[
    Need::Root,
    Need::Tool("ip"),
    Need::Tool("nsenter"),
    Need::Tool("ethtool"),
    Need::Tool("socat"),
    Need::Bpf,
];

/// Whether a test can run that needs these programs besides.
pub(crate) fn have(programs: &[Need]) -> bool {
    require::have(&[NEEDS, programs].concat())
}

/// How a socket of the test itself is bound.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish {
    /// To IPv6 alone.
    pub(crate) only_v6: bool,
    /// To the interface of the lab.
    pub(crate) on_interface: bool,
}

/// A socket of this process in a namespace, bound to an address.
pub(crate) fn bound(
    namespace: &Netns,
    kind: SockType,
    address: &str,
    wish: Wish,
) -> Result<OwnedFd> {
    let address: SocketAddr = address.parse()?;
    let open = || {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        if family == AddressFamily::Inet6 {
            setsockopt(&socket, sockopt::Ipv6V6Only, &wish.only_v6)?;
        }
        if wish.on_interface {
            setsockopt(&socket, sockopt::BindToDevice, &INTERFACE.into())?;
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
            .with_context(|| format!("bind to {address}"))?;
        Ok(socket)
    };
    namespace.enter(open)
}

/// The same, listening for TCP connections of which so many may wait.
pub(crate) fn listening(
    namespace: &Netns,
    address: &str,
    wish: Wish,
    backlog: i32,
) -> Result<TcpListener> {
    let socket = bound(namespace, SockType::Stream, address, wish)?;
    listen(&socket, Backlog::new(backlog)?)?;
    Ok(TcpListener::from(socket))
}

/// One that shares its address with others of this process.
pub(crate) fn sharing(namespace: &Netns, address: &str) -> Result<TcpListener> {
    let address: SocketAddr = address.parse()?;
    namespace.enter(|| {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        setsockopt(&socket, sockopt::ReusePort, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::new(16)?)?;
        Ok(TcpListener::from(socket))
    })
}

/// What `portdemux listeners` says of the sockets on some ports, in its order.
pub(crate) fn listeners(portdemux: &Portdemux, ports: &[&str]) -> Result<Vec<Value>> {
    let document = portdemux.json(&[&["listeners"], ports].concat())?;
    let listeners = document["listeners"].as_array();
    listeners.cloned().with_context(|| document.to_string())
}

/// The one listener on a port.
pub(crate) fn listener(portdemux: &Portdemux, port: &str) -> Result<Value> {
    let mut found = listeners(portdemux, &[port])?;
    anyhow::ensure!(found.len() == 1, "{port}: {found:?}");
    found.pop().context("no listener")
}
