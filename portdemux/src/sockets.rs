//! What the sockets of this network namespace are connected to.

use std::{
    collections::HashSet,
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result};
use portdemux_common::{flows::FlowKey, wire::Transport};

/// State of a socket that is connected (Linux `include/net/tcp_states.h`, `TCP_ESTABLISHED`).
const ESTABLISHED: u8 = 1;
/// State of a socket that listens (`TCP_LISTEN`).
const LISTEN: u8 = 10;

/// A line of `/proc/net/tcp` and its like (Linux `net/ipv4/tcp_ipv4.c`, `get_tcp4_sock`).
struct Socket {
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    state: u8,
}

/// The flows of connected TCP and UDP sockets, and whether this host began each: a connection to a port
/// that it listens on it did not.
///
/// # Errors
///
/// `/proc` is not there.
pub fn connected() -> Result<Vec<(FlowKey, bool)>> {
    let mut flows = Vec::new();
    for (transport, tables) in [
        (Transport::Tcp, ["tcp", "tcp6"]),
        (Transport::Udp, ["udp", "udp6"]),
    ] {
        let mut sockets = Vec::new();
        for table in tables {
            let path = format!("/proc/thread-self/net/{table}");
            match fs::read_to_string(&path) {
                Ok(text) => sockets.extend(text.lines().skip(1).filter_map(read)),
                // A kernel without IPv6 has no such table.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("read {path}")),
            }
        }
        let listening: HashSet<u16> = sockets
            .iter()
            .filter(|socket| socket.state == LISTEN)
            .map(|socket| socket.local.1)
            .collect();
        flows.extend(
            sockets
                .iter()
                .filter(|socket| socket.state == ESTABLISHED && socket.remote.1 != 0)
                .map(|socket| (key(socket, transport), !listening.contains(&socket.local.1))),
        );
    }
    Ok(flows)
}

fn key(socket: &Socket, transport: Transport) -> FlowKey {
    let version = if socket.local.0.is_ipv4() { 4 } else { 6 };
    let end = |(address, port): (IpAddr, u16)| (words(address), port.to_be_bytes());
    FlowKey::new(
        end(socket.local),
        end(socket.remote),
        transport.ip_proto().0,
        version,
    )
}

/// An address as the key of a flow has it.
#[must_use]
pub fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [u64::from(u32::from_ne_bytes(address.octets())), 0],
        IpAddr::V6(address) => bytemuck::cast(address.octets()),
    }
}

fn read(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Socket {
        local: end(local)?,
        remote: end(remote)?,
        state: u8::from_str_radix(state, 16).ok()?,
    })
}

/// An address and a port: the address's words as the machine has them in memory, in hexadecimal.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = bytemuck::cast(words);
            // A socket for both families has the IPv4 addresses of its peers in IPv6.
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_line_of_each_family_is_read() {
        let line =
            "   1: 0A7100CB:01BB 076433C6:CC75 01 00000000:00000000 00:00000000 00000000 0 0 1";
        let socket = read(line).unwrap();
        assert_eq!(socket.local, (IpAddr::from([203, 0, 113, 10]), 443));
        assert_eq!(socket.remote, (IpAddr::from([198, 51, 100, 7]), 52_341));
        assert_eq!(socket.state, ESTABLISHED);
        let line = "   0: 0000000000000000FFFF00000A7100CB:0016 B80D0120000000000000000001000000:0001 0A x";
        let socket = read(line).unwrap();
        assert_eq!(socket.local.0, IpAddr::from([203, 0, 113, 10]));
        assert_eq!(socket.remote.0, "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(socket.state, LISTEN);
    }

    #[test]
    fn other_lines_are_left_out() {
        for line in [
            "",
            "  sl  local_address rem_address   st",
            "1: 0A:1 0B:2 01",
        ] {
            assert!(read(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_connection_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(server).unwrap();
        let client = client.local_addr().unwrap();
        let ours = |local: std::net::SocketAddr, remote: std::net::SocketAddr| {
            let end =
                |address: std::net::SocketAddr| (words(address.ip()), address.port().to_be_bytes());
            FlowKey::new(end(local), end(remote), 6, 4)
        };
        let flows = connected().unwrap();
        assert!(flows.contains(&(ours(client, server), true)));
        assert!(flows.contains(&(ours(server, client), false)));
    }
}
