//! What the sockets of this network namespace are connected to.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use anyhow::Result;
use portdemux_common::{conntrack::Tuple, wire::Transport};

use super::{Socket, SocketState, list};

/// The ports that the kernel gives to clients, of both versions.
const CLIENT_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Those that it gives unless it is told otherwise (Linux `net/ipv4/af_inet.c`, `inet_init_net`).
const USUAL_CLIENT_PORTS: RangeInclusive<u16> = 32_768..=60_999;

/// The flows of connected TCP and UDP sockets, and whether this host began each: a connection to a port
/// that it listens on it did not, nor one that looks as if a client had come.
///
/// # Errors
///
/// The kernel lists no sockets.
pub fn connected() -> Result<Vec<(Tuple, bool)>> {
    let clients = client_ports();
    let mut flows = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        let sockets = list(transport, &[SocketState::Connected, SocketState::Listening])?;
        let is = |state| move |socket: &&Socket| socket.state == state;
        let listening = sockets.iter().filter(is(SocketState::Listening));
        let listening: HashSet<u16> = listening.map(|socket| socket.port).collect();
        flows.extend(
            sockets
                .iter()
                .filter(is(SocketState::Connected))
                .filter(|socket| socket.peer.port() != 0)
                .filter_map(|socket| {
                    let is_from_peer = listening.contains(&socket.port)
                        || is_served(socket.port, socket.peer.port(), &clients);
                    Some((key(socket)?, !is_from_peer))
                }),
        );
    }
    Ok(flows)
}

/// Whether a connection looks as if the peer had begun it, though nothing listens at its port any more (a server
/// that takes one connection, or that connects its UDP socket to whoever asks): the port is none that this host gives
/// to clients, and the peer's is one that hosts give to them.
fn is_served(port: u16, peer: u16, clients: &RangeInclusive<u16>) -> bool {
    !clients.contains(&port) && peer >= *clients.start()
}

fn client_ports() -> RangeInclusive<u16> {
    let read = || {
        let text = fs::read_to_string(CLIENT_PORTS).ok()?;
        let mut numbers = text.split_whitespace().map(str::parse);
        Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
    };
    read().unwrap_or(USUAL_CLIENT_PORTS)
}

fn key(socket: &Socket) -> Option<Tuple> {
    let local = SocketAddr::new(*socket.addresses.first()?, socket.port);
    let version = if local.is_ipv4() { 4 } else { 6 };
    let end = |end: SocketAddr| (words(end.ip()), end.port().to_be_bytes());
    let protocol = socket.transport.ip_proto().0;
    Some(Tuple::new(end(local), end(socket.peer), protocol, version))
}

/// An address as the key of a flow has it.
#[must_use]
pub fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [u64::from(u32::from_ne_bytes(address.octets())), 0],
        IpAddr::V6(address) => bytemuck::cast(address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_of_this_process_is_found() {
        for (bound, at) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            // Of both versions: the kernel says the addresses in IPv6.
            ("[::]:0", "127.0.0.1"),
        ] {
            let listener = TcpListener::bind(bound).unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = SocketAddr::new(at.parse().unwrap(), port);
            let connection = TcpStream::connect(server).unwrap();
            let client = connection.local_addr().unwrap();
            let ours = |local: SocketAddr, remote: SocketAddr| {
                let end = |end: SocketAddr| (words(end.ip()), end.port().to_be_bytes());
                let version = if local.is_ipv4() { 4 } else { 6 };
                Tuple::new(end(local), end(remote), 6, version)
            };
            let flows = connected().unwrap();
            assert!(flows.contains(&(ours(client, server), true)), "{bound}");
            assert!(flows.contains(&(ours(server, client), false)), "{bound}");
        }
    }

    #[test]
    fn a_connection_whose_listener_is_gone_is_the_peers_if_its_port_is_a_servers() {
        let clients = &(32_768..=60_999);
        for (port, peer, expected) in [
            (2323, 41_000, true),
            // The peer's range may be another.
            (53, 65_000, true),
            // A client of the host's own.
            (41_000, 443, false),
            (41_000, 41_001, false),
            // Ports that a client took for itself: NFS and NTP.
            (876, 2049, false),
            (123, 123, false),
        ] {
            assert_eq!(is_served(port, peer, clients), expected, "{port} {peer}");
        }
        assert!(!client_ports().is_empty());

        let listener = (20_000..20_100)
            .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
            .unwrap();
        let server = listener.local_addr().unwrap();
        let connection = TcpStream::connect(server).unwrap();
        let client = connection.local_addr().unwrap();
        let _accepted = listener.accept().unwrap();
        drop(listener);
        let end = |end: SocketAddr| (words(end.ip()), end.port().to_be_bytes());
        let flow = |local, remote| Tuple::new(end(local), end(remote), 6, 4);
        let flows = connected().unwrap();
        assert!(flows.contains(&(flow(server, client), false)));
        assert!(flows.contains(&(flow(client, server), true)));
    }
}
