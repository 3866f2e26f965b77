//! What the sockets of this network namespace are connected to.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;
use portdemux_common::{flows::FlowKey, wire::Transport};

use super::{Socket, State, list};

/// The flows of connected TCP and UDP sockets, and whether this host began each: a connection to a port
/// that it listens on it did not.
///
/// # Errors
///
/// The kernel lists no sockets.
pub fn connected() -> Result<Vec<(FlowKey, bool)>> {
    let mut flows = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        let sockets = list(transport, &[State::Connected, State::Listening])?;
        let is = |state| move |socket: &&Socket| socket.state == state;
        let listening = sockets.iter().filter(is(State::Listening));
        let listening: HashSet<u16> = listening.map(|socket| socket.port).collect();
        flows.extend(
            sockets
                .iter()
                .filter(is(State::Connected))
                .filter(|socket| socket.peer.port() != 0)
                .filter_map(|socket| Some((key(socket)?, !listening.contains(&socket.port)))),
        );
    }
    Ok(flows)
}

fn key(socket: &Socket) -> Option<FlowKey> {
    let local = SocketAddr::new(*socket.addresses.first()?, socket.port);
    let version = if local.is_ipv4() { 4 } else { 6 };
    let end = |end: SocketAddr| (words(end.ip()), end.port().to_be_bytes());
    let protocol = socket.transport.ip_proto().0;
    Some(FlowKey::new(
        end(local),
        end(socket.peer),
        protocol,
        version,
    ))
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
                FlowKey::new(end(local), end(remote), 6, version)
            };
            let flows = connected().unwrap();
            assert!(flows.contains(&(ours(client, server), true)), "{bound}");
            assert!(flows.contains(&(ours(server, client), false)), "{bound}");
        }
    }
}
