//! Sockets as the tables in `/proc` list them (Linux `net/ipv4/tcp_ipv4.c`, `tcp4_seq_show`, and
//! `net/ipv4/udp.c`, `udp4_format_sock`).

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, Result};
use portdemux_common::wire::Transport;

use super::{Queue, Socket, SocketState};

/// The sockets of a protocol in some states, in this network namespace.
///
/// # Errors
///
/// `/proc` is not there.
pub(super) fn list(transport: Transport, states: &[SocketState]) -> Result<Vec<Socket>> {
    let mut sockets = read("thread-self", transport)?;
    sockets.retain(|socket| states.contains(&socket.state));
    Ok(sockets)
}

/// The TCP sockets in the network namespace of a process; none if it has ended.
///
/// # Errors
///
/// They cannot be read.
pub(crate) fn of_process(process: u32) -> Result<Vec<Socket>> {
    read(&process.to_string(), Transport::Tcp)
}

fn read(process: &str, transport: Transport) -> Result<Vec<Socket>> {
    let tables = match transport {
        Transport::Tcp => ["tcp", "tcp6"],
        Transport::Udp => ["udp", "udp6"],
        // What it shows of these is laid out in another way.
        Transport::Sctp => return Ok(Vec::new()),
    };
    let mut sockets = Vec::new();
    for table in tables {
        let path = format!("/proc/{process}/net/{table}");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let lines = text.lines().skip(1);
                sockets.extend(lines.filter_map(|line| socket(line, transport)));
            }
            // A kernel without IPv6 has no such table.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        }
    }
    Ok(sockets)
}

/// A line: its number, both ends, state, queues, timer, retransmissions, owner, timeout, inode.
fn socket(line: &str, transport: Transport) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, peer) = (end(fields.next()?)?, end(fields.next()?)?);
    let state = SocketState::of(u8::from_str_radix(fields.next()?, 16).ok()?)?;
    let (_, waiting) = fields.next()?.split_once(':')?;
    let owner = fields.nth(2)?.parse().ok()?;
    Some(Socket {
        transport,
        // Whether it is for IPv6 only is not said; by default it is not.
        is_dual: local.ip().is_ipv6() && local.ip().is_unspecified(),
        addresses: vec![local.ip()],
        port: local.port(),
        peer,
        device: None,
        state,
        queue: Queue {
            waiting: u32::from_str_radix(waiting, 16).ok()?,
            ..Queue::default()
        },
        owner,
        inode: fields.nth(1)?.parse().ok()?,
        cookie: None,
    })
}

/// An address and a port: the address's words as the machine has them in memory, in hexadecimal.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = bytemuck::cast(words);
            // A socket for both families has IPv4 addresses in IPv6.
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_each_family_is_read() {
        let line = "   1: 0A7100CB:01BB 076433C6:CC75 01 00000000:00000000 02:000A8C00 00000000    33        \
                    0 4712 4 0000000000000000 20 4 30 10 -1";
        let open = socket(line, Transport::Tcp).unwrap();
        assert_eq!(open.addresses, [IpAddr::from([203, 0, 113, 10])]);
        assert_eq!((open.port, open.owner, open.inode), (443, 33, 4712));
        assert_eq!(open.peer, "198.51.100.7:52341".parse().unwrap());
        assert_eq!(open.state, SocketState::Connected);
        let line = "   0: 0000000000000000FFFF00000A7100CB:0016 B80D0120000000000000000001000000:0001 0A \
                    00000000:00000003 00:00000000 00000000     0        0 4713 1 0";
        let mapped = socket(line, Transport::Tcp).unwrap();
        assert_eq!(mapped.addresses, [IpAddr::from([203, 0, 113, 10])]);
        assert_eq!(mapped.peer, "[2001:db8::1]:1".parse().unwrap());
        assert_eq!(
            (mapped.state, mapped.queue.waiting),
            (SocketState::Listening, 3)
        );
        assert!(!mapped.is_dual);
    }

    #[test]
    fn other_lines_are_left_out() {
        for line in [
            "",
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt",
            "1: 0A:1 0B:2 01 0:0 0:0 0 0 0 1",
            "1: 0A7100CB:01BB 076433C6:CC75 01",
            // TIME_WAIT.
            "1: 0A7100CB:01BB 076433C6:CC75 06 00000000:00000000 03:00000C8A 00000000 0 0 0 3 0",
        ] {
            assert!(socket(line, Transport::Tcp).is_none(), "{line}");
        }
        for end in ["0A7100CB", "0A7100:0016", "0A7100CB:", "0A7100CBB:0016"] {
            assert!(super::end(end).is_none(), "{end}");
        }
    }
}
