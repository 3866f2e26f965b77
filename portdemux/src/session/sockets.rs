//! The TCP connection that a process holds, as `/proc` shows it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// `TCP_ESTABLISHED` (Linux `include/net/tcp_states.h`), as the tables print it.
const ESTABLISHED: &str = "01";

/// Both ends of the first connection that a process has open: here and there.
///
/// A server opens the connection of the person it lets in before any that it forwards for them.
pub(super) fn connection(process: u32) -> Option<(SocketAddr, SocketAddr)> {
    let mut sockets: Vec<(u32, u64)> = fs::read_dir(format!("/proc/{process}/fd"))
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            Some((number, inode.strip_suffix(']')?.parse().ok()?))
        })
        .collect();
    if sockets.is_empty() {
        return None;
    }
    sockets.sort_unstable();
    let tables = ["tcp", "tcp6"].map(|table| {
        fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default()
    });
    let open: Vec<(u64, SocketAddr, SocketAddr)> = tables
        .iter()
        .flat_map(|table| table.lines().filter_map(established))
        .collect();
    sockets.iter().find_map(|(_, inode)| {
        let mut open = open.iter();
        open.find(|(known, ..)| known == inode)
            .map(|&(_, local, peer)| (local, peer))
    })
}

/// The inode number and both ends of a line of `/proc/net/tcp` or `tcp6`, if it is of a connection.
fn established(line: &str) -> Option<(u64, SocketAddr, SocketAddr)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, peer) = (words.next()?, words.next()?);
    if words.next()? != ESTABLISHED {
        return None;
    }
    let inode = words.nth(5)?.parse().ok()?;
    Some((inode, endpoint(local)?, endpoint(peer)?))
}

/// An address in words of 32 bits as this machine reads them, and a port.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let v4 = <[u8; 4]>::try_from(&bytes[..]).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    let v6 = || <[u8; 16]>::try_from(&bytes[..]).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
    let address = v4.or_else(|_| v6()).ok()?;
    Some(SocketAddr::new(
        address.to_canonical(),
        u16::from_str_radix(port, 16).ok()?,
    ))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn only_connections_are_read_of_the_tables() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt";
        assert_eq!(established(head), None);
        let listening = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 \
                         00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!(established(listening), None);
        let open = "   1: 0A7100CB:0016 076433C6:CC75 01 00000000:00000000 02:000A8C00 00000000     \
                    0        0 4712 4 0000000000000000 20 4 30 10 -1";
        let ends = (
            "203.0.113.10:22".parse().unwrap(),
            "198.51.100.7:52341".parse().unwrap(),
        );
        assert_eq!(established(open), Some((4712, ends.0, ends.1)));
        let mapped = "   0: 0000000000000000FFFF00000A7100CB:0016 \
                      0000000000000000FFFF0000076433C6:CC75 01 00000000:00000000 02:000A8C00 \
                      00000000     0        0 4713 4 0000000000000000 20 4 30 10 -1";
        assert_eq!(established(mapped), Some((4713, ends.0, ends.1)));
        let v6 = endpoint("B80D0120000000000000000007000000:01BB");
        assert_eq!(v6, Some("[2001:db8::7]:443".parse().unwrap()));
        assert_eq!(endpoint("0A7100CB"), None);
        assert_eq!(endpoint("0A7100:0016"), None);
    }
}
