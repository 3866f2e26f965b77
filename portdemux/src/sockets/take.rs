//! Taking sockets of other processes: a socket is its process's as before, and this one has it too.

use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result};
use portdemux_common::wire::Transport;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType, getpeername, getsockname, ipproto, sockopt},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use super::{Holders, Socket, listening};
use crate::{
    dataplane::{
        steering::{Family, Steering},
        syscalls,
    },
    error::{Advice, Help as _},
    rules::destination::ListenAddress,
};

/// A socket of another process.
#[derive(Debug)]
pub struct Taken {
    /// This process's descriptor of it.
    pub socket: OwnedFd,
    /// Its protocol.
    pub transport: Transport,
    /// Packets of which versions it takes.
    pub family: Family,
    /// What it is bound to.
    pub address: SocketAddr,
    /// The kernel's number for it.
    pub cookie: u64,
}

/// What came of looking for sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// How many are there.
    pub found: usize,
    /// How many of them were no members before.
    pub new: usize,
}

/// The cookie of this network namespace; none before Linux 5.14.
#[must_use]
pub fn netns_cookie() -> Option<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"));
    syscalls::netns_cookie(socket.ok()?).ok()
}

/// Takes a socket that a process has under a descriptor.
///
/// # Errors
///
/// There is no such process or descriptor, it may not be taken, or it is none that packets can be handed
/// to.
pub fn from_process(pid: u32, descriptor: u32) -> Result<Taken> {
    let socket = descriptor_of(pid, descriptor).map_err(|error| refusal(pid, descriptor, error))?;
    check(socket).with_context(|| format!("descriptor {descriptor} of process {pid}"))
}

fn descriptor_of(pid: u32, descriptor: u32) -> rustix::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = pidfd_open(pid.ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    let descriptor = i32::try_from(descriptor).map_err(|_| Errno::BADF)?;
    pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())
}

fn refusal(pid: u32, descriptor: u32, error: Errno) -> anyhow::Error {
    let (what, advice) = match error {
        Errno::SRCH => (
            format!("there is no process {pid}"),
            "ss -tulnp says which process has a socket; nothing was changed",
        ),
        Errno::BADF => (
            format!("process {pid} has no descriptor {descriptor}"),
            "ss -tulnp says which descriptor a socket is; nothing was changed",
        ),
        Errno::PERM | Errno::ACCESS => (
            format!("the descriptors of process {pid} may not be taken"),
            "that takes CAP_SYS_PTRACE: run it as root; nothing was changed",
        ),
        Errno::NOSYS => (
            "this kernel cannot take sockets of other processes: it lacks pidfd_getfd".into(),
            "Linux 5.6 and newer have it; nothing was changed",
        ),
        error => {
            return anyhow::Error::from(error)
                .context(format!("take descriptor {descriptor} of process {pid}"));
        }
    };
    anyhow::anyhow!(what).context(Advice(advice.into()))
}

/// Says what a socket is, if packets can be handed to it.
fn check(socket: OwnedFd) -> Result<Taken> {
    let refused = |why: &str| {
        Err(anyhow::anyhow!("{why}")).help(|| {
            "it takes a TCP socket that listens or a UDP socket that is bound; nothing was changed"
                .into()
        })
    };
    let kind = match sockopt::socket_type(&socket) {
        Ok(kind) => kind,
        Err(Errno::NOTSOCK) => return refused("it is no socket"),
        Err(error) => return Err(error.into()),
    };
    let domain = sockopt::socket_domain(&socket)?;
    let protocol = sockopt::socket_protocol(&socket)?;
    if domain != AddressFamily::INET && domain != AddressFamily::INET6 {
        return refused("it is no socket of IPv4 or IPv6");
    }
    let transport = if kind == SocketType::STREAM && protocol == Some(ipproto::TCP) {
        Transport::Tcp
    } else if kind == SocketType::DGRAM && protocol == Some(ipproto::UDP) {
        Transport::Udp
    } else {
        return refused("it is a socket of neither TCP nor UDP");
    };
    if transport == Transport::Tcp && !sockopt::socket_acceptconn(&socket)? {
        return refused("it is a TCP socket that does not listen");
    }
    let address = SocketAddr::try_from(getsockname(&socket)?)?;
    if address.port() == 0 {
        return refused("it is a UDP socket that is not bound");
    }
    if transport == Transport::Udp && getpeername(&socket).is_ok_and(|peer| peer.is_some()) {
        return refused("it is a UDP socket that is connected");
    }
    let netns = syscalls::netns_cookie(&socket).ok();
    if netns.is_some() && netns != netns_cookie() {
        return refused("it is a socket of another network namespace");
    }
    let family = if address.ip().to_canonical().is_ipv4() {
        Family::V4
    } else if address.ip().is_unspecified() && !sockopt::ipv6_v6only(&socket)? {
        Family::Both
    } else {
        Family::V6
    };
    Ok(Taken {
        transport,
        family,
        address: SocketAddr::new(address.ip().to_canonical(), address.port()),
        cookie: sockopt::socket_cookie(&socket)?,
        socket,
    })
}

/// Takes all sockets that listen at an address, or else at every one, and makes them members of a group.
///
/// # Errors
///
/// The sockets cannot be listed, or none of those that are there can be taken.
pub fn all_at(steering: &Steering, group: u32, address: ListenAddress) -> Result<Looked> {
    let candidates = candidates(&listening()?, address);
    let inodes = candidates.iter().map(|(socket, _)| socket.inode);
    let inodes: HashSet<u64> = inodes.collect();
    let members: HashSet<u64> = steering
        .members(group)
        .iter()
        .map(|one| one.cookie)
        .collect();
    let mut looked = Looked::default();
    if inodes.is_empty() {
        return Ok(looked);
    }
    let is_member = |socket: &Socket| socket.cookie.is_some_and(|one| members.contains(&one));
    let holders = Holders::find(&inodes);
    let mut failure = None;
    for (socket, family) in candidates {
        if is_member(&socket) {
            looked.found += 1;
            continue;
        }
        match take(&holders, &socket) {
            Ok(Some(taken)) => {
                looked.found += 1;
                let family = match address {
                    ListenAddress::One(SocketAddr::V6(_)) => taken.family,
                    ListenAddress::One(SocketAddr::V4(_)) | ListenAddress::Localhost(_) => family,
                };
                match steering.add(group, taken.transport, family, taken.cookie, &taken.socket) {
                    Ok(is_new) => looked.new += usize::from(is_new),
                    Err(error) => failure = Some(error),
                }
            }
            // It was closed meanwhile.
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if looked.found == 0 => Err(error),
        Some(_) | None => Ok(looked),
    }
}

/// Whether a socket listens at an address that is no member of a group.
///
/// # Errors
///
/// The sockets cannot be listed.
pub fn is_any_new(steering: &Steering, group: u32, address: ListenAddress) -> Result<bool> {
    let candidates = candidates(&listening()?, address);
    if candidates.is_empty() {
        return Ok(false);
    }
    let members = steering.members(group);
    let is_member = |(socket, _): &(Socket, Family)| {
        let mut members = members.iter();
        socket
            .cookie
            .is_some_and(|cookie| members.any(|member| member.cookie == cookie))
    };
    Ok(!candidates.iter().all(is_member))
}

/// The sockets that listen where a rule says, and for packets of which versions they do so there.
fn candidates(all: &[Socket], at: ListenAddress) -> Vec<(Socket, Family)> {
    let mut found: Vec<(Socket, Family)> = Vec::new();
    for address in at.each() {
        let family = if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        for socket in listening_at(all, address) {
            match found.iter_mut().find(|(known, _)| *known == socket) {
                Some((_, of_both)) => *of_both = Family::Both,
                None => found.push((socket, family)),
            }
        }
    }
    found
}

/// The sockets that listen at an address: of each protocol those bound to it, or else to every address.
fn listening_at(all: &[Socket], address: SocketAddr) -> Vec<Socket> {
    let mut found: HashMap<(Transport, bool), Vec<Socket>> = HashMap::new();
    for socket in all {
        let is_of_use = socket.transport != Transport::Sctp && socket.port == address.port();
        if is_of_use && socket.takes(address.ip()) {
            let is_exact = socket.addresses.contains(&address.ip());
            let kind = (socket.transport, is_exact);
            found.entry(kind).or_default().push(socket.clone());
        }
    }
    let best = |transport| {
        let exact = found.get(&(transport, true));
        exact.or_else(|| found.get(&(transport, false)))
    };
    let all = [best(Transport::Tcp), best(Transport::Udp)];
    all.into_iter().flatten().flatten().cloned().collect()
}

/// Takes a socket from whoever has it.
fn take(holders: &Holders, socket: &Socket) -> Result<Option<Taken>> {
    let mut failure = None;
    for holder in holders.of(socket.inode) {
        match from_process(holder.pid, holder.descriptor) {
            Ok(taken) => return Ok(Some(taken)),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(None), Err)
}

/// Whether this kernel lets one process take sockets of another.
#[must_use]
pub fn is_supported() -> bool {
    let own = rustix::process::getpid();
    let taken = pidfd_open(own, PidfdFlags::empty())
        .and_then(|own| pidfd_getfd(own, 0, PidfdGetfdFlags::empty()));
    !matches!(taken, Err(Errno::NOSYS))
}
