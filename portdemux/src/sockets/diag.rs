//! Sockets as `NETLINK_SOCK_DIAG` lists them (`sock_diag(7)`, Linux `include/uapi/linux/inet_diag.h`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, Result};
use netlink_packet_core::Nla as _;
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, INET_DIAG_LOCALS},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use portdemux_common::wire::Transport;
use rustix::io::Errno;

use super::{Queue, Socket, SocketState};
use crate::netlink::{self, Asked, is};

/// In `INET_DIAG_LOCALS`, the addresses of an SCTP socket, each stands in a `struct sockaddr_storage`.
const ADDRESS_ROOM: usize = 128;

/// Lists the sockets of a protocol in some states; nothing if the kernel was built without the answer.
///
/// # Errors
///
/// The kernel does not answer as documented.
pub(super) fn list(transport: Transport, states: &[SocketState]) -> Result<Option<Vec<Socket>>> {
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let question = SockDiagMessage::InetRequest(question(transport, family, states));
        match netlink::ask(NETLINK_SOCK_DIAG, Asked::All, question) {
            Ok(answers) => sockets.extend(answers.iter().filter_map(|answer| match answer {
                SockDiagMessage::InetResponse(response) => socket(response, transport),
                SockDiagMessage::InetRequest(_)
                | SockDiagMessage::UnixRequest(_)
                | SockDiagMessage::UnixResponse(_) => None,
            })),
            // IPv6 may be switched off.
            Err(error) if is_unsupported(&error) => {
                if family == AF_INET {
                    return Ok(None);
                }
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("list the {} sockets", transport.name()));
            }
        }
    }
    Ok(Some(sockets))
}

/// Whether the kernel says that it has nothing that answers.
fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [
        Errno::NOENT,
        Errno::OPNOTSUPP,
        Errno::AFNOSUPPORT,
        Errno::PROTONOSUPPORT,
    ];
    unsupported.iter().any(|&errno| is(error, errno))
}

fn question(transport: Transport, family: u8, states: &[SocketState]) -> InetRequest {
    let states = states.iter().map(|state| state.bit()).sum();
    InetRequest {
        family,
        protocol: transport.ip_proto().0,
        extensions: ExtensionFlags::SKMEMINFO,
        states: StateFlags::from_bits_retain(states),
        socket_id: SocketId::new_v6(),
    }
}

/// One socket; nothing if it is in no state that matters.
fn socket(response: &InetResponse, transport: Transport) -> Option<Socket> {
    let InetResponse { header, nlas } = response;
    let id = &header.socket_id;
    let own = id.source_address;
    let state = SocketState::of(header.state)?;
    let mut socket = Socket {
        transport,
        addresses: vec![own.to_canonical()],
        is_dual: false,
        port: id.source_port,
        peer: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
        device: Some(id.interface_id).filter(|&device| device != 0),
        state,
        queue: Queue {
            waiting: header.recv_queue,
            ..Queue::default()
        },
        owner: header.uid,
        inode: header.inode.into(),
        cookie: Some(cookie(id.cookie)),
    };
    if state == SocketState::Listening {
        socket.queue.room = Some(header.send_queue);
    }
    for attribute in nlas {
        if let Nla::SkV6Only(is_only) = attribute {
            socket.is_dual = !is_only && own.is_unspecified();
        } else if let Nla::MemInfo(memory) = attribute
            && state != SocketState::Listening
        {
            socket.queue.room = Some(memory.receive_queue_max);
            socket.queue.dropped = Some(memory.drops);
        } else if let Nla::Other(other) = attribute
            && other.kind() == INET_DIAG_LOCALS
        {
            let mut bytes = vec![0; other.value_len()];
            other.emit_value(&mut bytes);
            let addresses = bytes.chunks(ADDRESS_ROOM).filter_map(socket_address);
            let addresses: Vec<IpAddr> = addresses.map(|ip| ip.to_canonical()).collect();
            if !addresses.is_empty() {
                socket.addresses = addresses;
            }
        }
    }
    socket.is_dual &= socket.is_wildcard();
    Some(socket)
}

/// The cookie of two words, of which the lower stands first (Linux `net/core/sock_diag.c`, `sock_diag_save_cookie`).
fn cookie(bytes: [u8; 8]) -> u64 {
    let [lower, upper]: [u32; 2] = bytemuck::cast(bytes);
    u64::from(lower) | u64::from(upper) << 32
}

/// The address of a `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(bytes: &[u8]) -> Option<IpAddr> {
    let (&family, rest) = bytes.split_first_chunk()?;
    let (_port, rest) = rest.split_first_chunk::<2>()?;
    let family = u16::from_ne_bytes(family);
    if family == u16::from(AF_INET) {
        Some(Ipv4Addr::from(*rest.first_chunk()?).into())
    } else if family == u16::from(AF_INET6) {
        Some(Ipv6Addr::from(*rest.get(4..)?.first_chunk()?).into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
