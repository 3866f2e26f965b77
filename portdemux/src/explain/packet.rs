//! The packet that a user asks about.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use portdemux_common::{
    packet::Packet as _,
    wire::{EtherType, Transport},
};

use super::Explained;

/// An address and a port: `198.51.100.7:52341`, `[2001:db8::1]:443`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint(pub SocketAddr);

/// What is wrong with an endpoint as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// There is no port.
    #[error("a port is missing: write ADDRESS:PORT, as in {0}")]
    NoPort(SocketAddr),
    /// The IPv6 address does not stand in brackets.
    #[error("where does the address end? write an IPv6 address in brackets, as in [{0}]:443")]
    NoBrackets(Ipv6Addr),
    /// It is something else.
    #[error("write ADDRESS:PORT, as in 198.51.100.7:52341 or [2001:db8::1]:443")]
    NotAnEndpoint,
}

/// The two ends of a packet are of different versions of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} and {1} are of different versions of IP: no packet goes from one to the other")]
pub struct VersionsDiffer(pub IpAddr, pub IpAddr);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Ok(endpoint) = text.parse() {
            return Ok(Self(endpoint));
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Err(EndpointError::NoPort(SocketAddr::new(address, 443)));
        }
        match text.rsplit_once(':') {
            Some((address, _)) => match address.parse() {
                Ok(address) => Err(EndpointError::NoBrackets(address)),
                Err(_) => Err(EndpointError::NotAnEndpoint),
            },
            None => Err(EndpointError::NotAnEndpoint),
        }
    }
}

/// What a TCP segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// It opens a connection.
    pub const SYN: Self = Self(0x02);
    /// The words for the bits, from the lowest (RFC 9293 §3.1).
    const WORDS: [&str; 6] = ["fin", "syn", "rst", "psh", "ack", "urg"];

    /// Which bits these are.
    fn words(self) -> impl Iterator<Item = &'static str> {
        let words = Self::WORDS.into_iter().enumerate();
        words.filter_map(move |(bit, word)| (self.0 >> bit & 1 != 0).then_some(word))
    }
}

/// What is wrong with flags as they were written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write some of fin, syn, rst, psh, ack, urg with commas between them, or none")]
pub struct NoFlags;

impl FromStr for Flags {
    type Err = NoFlags;

    fn from_str(text: &str) -> Result<Self, NoFlags> {
        if text == "none" {
            return Ok(Self(0));
        }
        let mut flags = 0;
        for word in text.split(',') {
            let mut words = Self::WORDS.iter();
            let bit = words.position(|known| known.eq_ignore_ascii_case(word));
            flags |= 1 << bit.ok_or(NoFlags)?;
        }
        Ok(Self(flags))
    }
}

/// What a packet with ports says, in words.
pub(super) fn said(explained: &Explained<'_>) -> String {
    let Some(ports) = explained.parsed.ports() else {
        return String::new();
    };
    match ports.transport {
        Transport::Tcp => {}
        Transport::Udp => return "UDP".into(),
        Transport::Sctp => return "SCTP".into(),
    }
    let flags = explained.bytes.read::<1>(explained.parsed.payload + 13);
    let flags = Flags(flags.map_or(0, |[flags]| flags));
    let words: Vec<String> = flags.words().map(str::to_uppercase).collect();
    match words.as_slice() {
        [] => "TCP without flags".into(),
        words => format!("TCP {}", words.join(" ")),
    }
}

/// Makes the smallest sound frame that goes from one end to the other; a TCP segment opens a
/// connection.
///
/// Checksums are left zero: nothing on the way of an explanation judges them.
///
/// # Errors
///
/// The ends are of different versions of IP.
pub fn frame(
    transport: Transport,
    source: SocketAddr,
    destination: SocketAddr,
) -> Result<Vec<u8>, VersionsDiffer> {
    frame_with(transport, Flags::SYN, source, destination)
}

/// Makes a frame of a packet between two ends, with these flags if it is a TCP segment.
///
/// # Errors
///
/// The ends are of different versions of IP.
pub fn frame_with(
    transport: Transport,
    flags: Flags,
    source: SocketAddr,
    destination: SocketAddr,
) -> Result<Vec<u8>, VersionsDiffer> {
    let segment = segment(transport, flags, source.port(), destination.port());
    // 54 bytes at most, and 20 more below.
    let [_, length] = segment
        .len()
        .to_be_bytes()
        .last_chunk()
        .copied()
        .unwrap_or([0; 2]);
    let protocol = transport.ip_proto().0;
    let (ether_type, header) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (EtherType::IPV4, ipv4(protocol, length, source, destination))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (EtherType::IPV6, ipv6(protocol, length, source, destination))
        }
        (source, destination) => return Err(VersionsDiffer(source, destination)),
    };
    let mut frame = vec![0; 12];
    frame.extend(ether_type.0.to_be_bytes());
    frame.extend(header);
    frame.extend(segment);
    Ok(frame)
}

fn ipv4(protocol: u8, length: u8, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    // Version and header length, then the total length; TTL 64.
    let mut header = vec![0x45, 0, 0, 20 + length, 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn ipv6(protocol: u8, length: u8, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    // Version, then the payload length; hop limit 64.
    let mut header = vec![0x60, 0, 0, 0, 0, length, protocol, 64];
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn segment(transport: Transport, flags: Flags, source: u16, destination: u16) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    match transport {
        Transport::Tcp => {
            segment.resize(20, 0);
            // Data offset 5 words.
            segment[12] = 5 << 4;
            segment[13] = flags.0;
        }
        Transport::Udp => segment.extend([0, 8, 0, 0]),
        Transport::Sctp => segment.resize(12, 0),
    }
    segment
}
