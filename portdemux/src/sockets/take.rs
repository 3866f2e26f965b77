//! Taking sockets of other processes: a socket is its process's as before, and this one has it too.

use std::{
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

use super::Family;
use crate::{
    error::{Advice, Help as _},
    syscalls,
};

/// A socket of another process.
#[derive(Debug)]
pub struct TakenSocket {
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
pub fn from_process(pid: u32, descriptor: u32) -> Result<TakenSocket> {
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
fn check(socket: OwnedFd) -> Result<TakenSocket> {
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
    Ok(TakenSocket {
        transport,
        family,
        address: SocketAddr::new(address.ip().to_canonical(), address.port()),
        cookie: sockopt::socket_cookie(&socket)?,
        socket,
    })
}

/// Whether this kernel lets one process take sockets of another.
#[must_use]
pub fn is_supported() -> bool {
    let own = rustix::process::getpid();
    let taken = pidfd_open(own, PidfdFlags::empty())
        .and_then(|own| pidfd_getfd(own, 0, PidfdGetfdFlags::empty()));
    !matches!(taken, Err(Errno::NOSYS))
}
