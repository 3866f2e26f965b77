//! The sockets of this network namespace: what they are bound and connected to, and who has them.
//!
//! The kernel lists them through `NETLINK_SOCK_DIAG`. Where it was built without that, its tables in
//! `/proc` say less.

mod connected;
mod diag;
mod family;
mod holders;
mod table;
pub mod take;

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
pub use connected::{connected, words};
pub use family::Family;
pub use holders::{Holder, Holders};
pub(crate) use holders::{has_gone, open_in};
use portdemux_common::wire::Transport;
pub(crate) use table::of_process;

/// A TCP, UDP or SCTP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its protocol.
    pub transport: Transport,
    /// The addresses that it is bound to: one, of SCTP several. An IPv4 address in an IPv6 one is written
    /// as what it is.
    pub addresses: Vec<IpAddr>,
    /// Whether it was opened for IPv6 and takes IPv4 too.
    pub is_dual: bool,
    /// Its port.
    pub port: u16,
    /// The other end; unspecified, with port 0, unless it is connected.
    pub peer: SocketAddr,
    /// Index of the interface that it is bound to, if it is.
    pub device: Option<u32>,
    /// How far it has come.
    pub state: SocketState,
    /// What waits in it.
    pub queue: Queue,
    /// Who owns it: a user's number.
    pub owner: u32,
    /// Its inode number, by which processes have it.
    pub inode: u64,
    /// The number by which maps of sockets name it; unknown where the kernel does not say.
    pub cookie: Option<u64>,
}

/// What waits in a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// In a socket that listens: connections that wait to be accepted; in others: the memory, in bytes, of
    /// what waits to be read.
    pub waiting: u32,
    /// How much of that may wait; unknown where the kernel does not say.
    pub room: Option<u32>,
    /// How many datagrams were dropped since it was opened; unknown where the kernel does not say.
    pub dropped: Option<u32>,
}

/// The states of sockets that matter here, by their numbers (Linux `include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SocketState {
    /// Connected (`TCP_ESTABLISHED`).
    Connected = 1,
    /// Of UDP: bound, and connected to nobody (`TCP_CLOSE`).
    Bound = 7,
    /// Waits for connections (`TCP_LISTEN`).
    Listening = 10,
}

impl SocketState {
    const ALL: [Self; 3] = [Self::Connected, Self::Bound, Self::Listening];

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// Its bit in a set of states.
    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

impl Queue {
    /// Whether nothing more has room, of connections the next one (Linux `include/net/sock.h`,
    /// `sk_acceptq_is_full` and `sk_rcvqueues_full`).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room.is_some_and(|room| self.waiting > room)
    }
}

impl Socket {
    /// Whether it is bound to every address.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_unspecified)
    }

    /// Whether a packet for an address of this host can come to it, as far as that is in its bind address.
    #[must_use]
    pub fn takes(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| {
            *own == address
                || own.is_unspecified() && (self.is_dual || own.is_ipv4() == address.is_ipv4())
        })
    }

    /// Whether it can be reached from this host only.
    #[must_use]
    pub fn is_loopback_only(&self) -> bool {
        self.device == Some(LOOPBACK) || self.addresses.iter().all(IpAddr::is_loopback)
    }
}

/// The index of the loopback interface, in every network namespace (Linux `include/net/flow.h`,
/// `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// The sockets that wait for what peers begin: TCP and SCTP that listens, and UDP that is bound and
/// connected to nobody.
///
/// # Errors
///
/// The kernel lists no sockets.
pub fn listening() -> Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for transport in Transport::ALL {
        let state = match transport {
            Transport::Tcp | Transport::Sctp => SocketState::Listening,
            Transport::Udp => SocketState::Bound,
        };
        sockets.extend(list(transport, &[state])?);
    }
    Ok(sockets)
}

/// The sockets of a protocol in some states; none if the kernel has no such protocol.
fn list(transport: Transport, states: &[SocketState]) -> Result<Vec<Socket>> {
    let listed = diag::list(transport, states)?;
    listed.map_or_else(|| table::list(transport, states), Ok)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    };

    use super::*;

    fn inode(socket: &impl std::os::fd::AsFd) -> u64 {
        let descriptor = socket.as_fd().as_raw_fd();
        let path = format!("/proc/self/fd/{descriptor}");
        std::fs::metadata(path).unwrap().ino()
    }

    /// What both ways of asking say about the sockets of this process.
    #[test]
    fn the_kernel_s_tables_say_the_same_as_its_answers() {
        let any = TcpListener::bind("[::]:0").unwrap();
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        // Two of them wait to be accepted.
        let _waiting = [(), ()].map(|()| TcpStream::connect(local.local_addr().unwrap()).unwrap());
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ours = [inode(&any), inode(&local), inode(&datagrams)];
        let find = |list: fn(Transport, &[SocketState]) -> Result<Vec<Socket>>| -> Vec<Socket> {
            let tcp = list(Transport::Tcp, &[SocketState::Listening]).unwrap();
            let udp = list(Transport::Udp, &[SocketState::Bound]).unwrap();
            let all: Vec<Socket> = tcp.into_iter().chain(udp).collect();
            ours.map(|inode| {
                let mut found = all.iter().filter(|socket| socket.inode == inode);
                let socket = found.next().expect("it is listed").clone();
                assert!(found.next().is_none(), "{socket:?} is listed twice");
                socket
            })
            .into()
        };
        let asked =
            find(|transport, states| Ok(diag::list(transport, states)?.expect("it answers")));
        let mut read = find(table::list);
        for (asked, read) in asked.iter().zip(&mut read) {
            // What the tables do not know.
            assert_eq!((read.queue.room, read.queue.dropped), (None, None));
            read.queue.room = asked.queue.room;
            read.queue.dropped = asked.queue.dropped;
            assert!(asked.cookie.is_some() && read.cookie.is_none());
            read.cookie = asked.cookie;
        }
        assert_eq!(asked, read);
        assert!(asked[0].is_dual && asked[0].is_wildcard() && !asked[0].is_loopback_only());
        assert!(asked[0].takes("192.0.2.1".parse().unwrap()));
        assert!(asked[1].is_loopback_only() && !asked[1].takes("192.0.2.1".parse().unwrap()));
        assert_eq!(asked[1].queue.waiting, 2);
        // What Rust's library asks for is capped by net.core.somaxconn.
        assert!(asked[1].queue.room > Some(0));
        assert_eq!(asked[2].queue.dropped, Some(0));
    }
}
