//! Sockets as `NETLINK_SOCK_DIAG` lists them (`sock_diag(7)`, Linux `include/uapi/linux/inet_diag.h`).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result};
use bytemuck::{Pod, Zeroable};
use portdemux_common::wire::Transport;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SendFlags, SocketFlags, SocketType, netlink::SOCK_DIAG, send, socket_with,
    },
};

use super::{Queue, Socket, SocketState};
use crate::netlink::{self, Attributes, DONE, DUMP, ERROR, first};

/// Both ends of a socket (`struct inet_diag_sockid`): ports and addresses big-endian, IPv4 in the first
/// four bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Ends {
    port: [u8; 2],
    peer_port: [u8; 2],
    address: [u8; 16],
    peer_address: [u8; 16],
    device: u32,
    cookie: [u32; 2],
}

/// A question (`struct inet_diag_req_v2`).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Question {
    family: u8,
    protocol: u8,
    extensions: u8,
    reserved: u8,
    states: u32,
    ends: Ends,
}

/// An answer (`struct inet_diag_msg`); attributes follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    ends: Ends,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    owner: u32,
    inode: u32,
}

const _: () = {
    assert!(size_of::<Ends>() == 48);
    assert!(size_of::<Question>() == 56 && size_of::<Answer>() == 72);
};

/// `AF_INET`, as a question has it.
const IPV4: u8 = 2;
/// `AF_INET6`.
const IPV6: u8 = 10;

/// `SOCK_DIAG_BY_FAMILY`: questions and answers.
const BY_FAMILY: u16 = 20;
/// Attributes of an answer: `INET_DIAG_SKMEMINFO`, `INET_DIAG_SKV6ONLY`, `INET_DIAG_LOCALS`.
const MEMORY: u16 = 7;
const ONLY_V6: u16 = 11;
const LOCALS: u16 = 12;

/// Words of `INET_DIAG_SKMEMINFO` (Linux `include/uapi/linux/sock_diag.h`, `SK_MEMINFO_RCVBUF` and
/// `SK_MEMINFO_DROPS`).
const RECEIVE_BUFFER: usize = 1;
const DROPS: usize = 8;

/// Each of an SCTP socket's addresses stands in a `struct sockaddr_storage`.
const ADDRESS_ROOM: usize = 128;

/// Lists the sockets of a protocol in some states; nothing if the kernel was built without the answer.
///
/// # Errors
///
/// The kernel does not answer as documented.
pub(super) fn list(transport: Transport, states: &[SocketState]) -> Result<Option<Vec<Socket>>> {
    let what = || format!("list the {} sockets", transport.name());
    let socket = match socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    ) {
        Ok(socket) => socket,
        Err(Errno::PROTONOSUPPORT) => return Ok(None),
        Err(error) => return Err(error).with_context(what),
    };
    let mut sockets = Vec::new();
    for family in [IPV4, IPV6] {
        match dump(&socket, transport, family, states, &mut sockets).with_context(what)? {
            Ended::Unsupported if family == IPV4 => return Ok(None),
            // IPv6 may be switched off.
            Ended::Complete | Ended::Unsupported => {}
        }
    }
    Ok(Some(sockets))
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Complete,
    /// There is nobody in the kernel to answer.
    Unsupported,
}

fn dump(
    socket: &OwnedFd,
    transport: Transport,
    family: u8,
    states: &[SocketState],
    sockets: &mut Vec<Socket>,
) -> Result<Ended> {
    send(
        socket,
        &question(transport, family, states),
        SendFlags::empty(),
    )?;
    netlink::receive(socket, |messages| read(messages, transport, sockets))
}

fn question(transport: Transport, family: u8, states: &[SocketState]) -> Vec<u8> {
    let question = Question {
        family,
        protocol: transport.ip_proto().0,
        extensions: 1 << (MEMORY - 1),
        reserved: 0,
        states: states.iter().map(|state| state.bit()).sum(),
        ends: Ends::default(),
    };
    netlink::message(BY_FAMILY, DUMP, bytemuck::bytes_of(&question))
}

/// Reads messages; says how the answer ended if this is its end.
fn read(
    mut messages: &[u8],
    transport: Transport,
    sockets: &mut Vec<Socket>,
) -> Result<Option<Ended>> {
    while let Some((kind, body)) = netlink::next(&mut messages)? {
        match kind {
            BY_FAMILY => sockets.extend(answer(body, transport)),
            DONE | ERROR => return ended(body).map(Some),
            _ => {}
        }
    }
    Ok(None)
}

fn ended(body: &[u8]) -> Result<Ended> {
    let number: i32 = first(body).unwrap_or(0);
    if number == 0 {
        return Ok(Ended::Complete);
    }
    match Errno::from_raw_os_error(-number) {
        Errno::NOENT | Errno::OPNOTSUPP | Errno::AFNOSUPPORT => Ok(Ended::Unsupported),
        error => Err(error.into()),
    }
}

/// One socket; nothing if it is of no family or state that matters.
fn answer(body: &[u8], transport: Transport) -> Option<Socket> {
    let answer: Answer = first(body)?;
    let attributes = body.get(size_of::<Answer>()..)?;
    let ends = answer.ends;
    let own = address(answer.family, ends.address)?;
    let state = SocketState::of(answer.state)?;
    let mut socket = Socket {
        transport,
        addresses: vec![own.to_canonical()],
        is_dual: false,
        port: u16::from_be_bytes(ends.port),
        peer: SocketAddr::new(
            address(answer.family, ends.peer_address)?.to_canonical(),
            u16::from_be_bytes(ends.peer_port),
        ),
        device: Some(ends.device).filter(|&device| device != 0),
        state,
        queue: Queue {
            waiting: answer.receive_queue,
            ..Queue::default()
        },
        owner: answer.owner,
        inode: answer.inode.into(),
        // The low half stands first (Linux `net/core/sock_diag.c`, `sock_diag_save_cookie`).
        cookie: Some(u64::from(ends.cookie[0]) | u64::from(ends.cookie[1]) << 32),
    };
    if state == SocketState::Listening {
        socket.queue.room = Some(answer.send_queue);
    }
    for (kind, value) in Attributes(attributes) {
        match kind {
            ONLY_V6 => socket.is_dual = value == [0] && own.is_unspecified(),
            MEMORY if state != SocketState::Listening => {
                socket.queue.room = word(value, RECEIVE_BUFFER);
                socket.queue.dropped = word(value, DROPS);
            }
            LOCALS => {
                let addresses = value.chunks(ADDRESS_ROOM).filter_map(socket_address);
                let addresses: Vec<IpAddr> = addresses.map(|ip| ip.to_canonical()).collect();
                if !addresses.is_empty() {
                    socket.addresses = addresses;
                }
            }
            _ => {}
        }
    }
    socket.is_dual &= socket.is_wildcard();
    Some(socket)
}

fn address(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    match (family, bytes) {
        (IPV4, [a, b, c, d, ..]) => Some(Ipv4Addr::from([a, b, c, d]).into()),
        (IPV6, bytes) => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// The address of a `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(bytes: &[u8]) -> Option<IpAddr> {
    let family: u16 = first(bytes)?;
    if family == u16::from(IPV4) {
        let octets: [u8; 4] = first(bytes.get(4..)?)?;
        Some(Ipv4Addr::from(octets).into())
    } else if family == u16::from(IPV6) {
        let octets: [u8; 16] = first(bytes.get(8..)?)?;
        Some(Ipv6Addr::from(octets).into())
    } else {
        None
    }
}

fn word(bytes: &[u8], slot: usize) -> Option<u32> {
    first(bytes.get(4 * slot..)?)
}

#[cfg(test)]
mod tests;
