//! What is to be said about a frame, in terms of the documented semantics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portdemux_common::parse::{self, Address, Parsed};

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Has a transport header with ports.
    Ports,
    /// Valid IP without ports to dispatch on.
    NoPorts,
    /// Neither IPv4 nor IPv6.
    NonIp,
    /// Claims to be IP and lies or ends early.
    Malformed,
}

/// Whether it is a fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// A whole packet.
    #[default]
    None,
    /// The one with the transport header.
    First,
    /// Any other.
    Later,
}

/// Everything that is said about a frame.
///
/// A malformed frame has what its sound headers said: an IP header whose version and lengths are
/// true gives addresses and a protocol, whatever is wrong after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What kind of frame it is.
    pub class: Class,
    /// Why it is malformed.
    pub reason: Option<&'static str>,
    /// VLAN identifiers, outermost first.
    pub vlans: Vec<u16>,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Destination address.
    pub destination: Option<IpAddr>,
    /// The terminal protocol, or the one that could not be walked past.
    pub protocol: Option<u8>,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Source port and destination port.
    pub ports: Option<(u16, u16)>,
}

impl Answer {
    /// The answer about a frame that says nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self {
            class: Class::NonIp,
            reason: None,
            vlans: Vec::new(),
            source: None,
            destination: None,
            protocol: None,
            fragment: Fragment::None,
            ports: None,
        }
    }

    /// What the parser says about a frame.
    #[must_use]
    pub fn of(frame: &[u8]) -> Self {
        Self::from_parsed(frame, &parse::parse(frame))
    }

    /// What the parser says about the packet that a frame quotes, if it is an ICMP error.
    #[must_use]
    pub fn of_quoted(frame: &[u8]) -> Option<Self> {
        let quoted = parse::parse_quoted(frame, &parse::parse(frame))?;
        Some(Self::from_parsed(frame, &quoted))
    }

    fn from_parsed(frame: &[u8], parsed: &Parsed) -> Self {
        Self {
            class: match parsed.class() {
                parse::Class::Ports => Class::Ports,
                parse::Class::NoPorts => Class::NoPorts,
                parse::Class::NonIp => Class::NonIp,
                parse::Class::Malformed => Class::Malformed,
            },
            reason: parsed.malformed.map(portdemux_common::reason::Reason::name),
            vlans: parsed.vlans.as_slice().to_vec(),
            source: parsed.source(frame).map(ip),
            destination: parsed.destination(frame).map(ip),
            protocol: parsed.version.map(|_| parsed.protocol.0),
            fragment: match parsed.fragment {
                parse::Fragment::None => Fragment::None,
                parse::Fragment::First => Fragment::First,
                parse::Fragment::Later => Fragment::Later,
            },
            ports: parsed
                .ports()
                .map(|ports| (ports.source.number(), ports.destination.number())),
        }
    }
}

fn ip(address: Address) -> IpAddr {
    match address {
        Address::V4(bytes) => IpAddr::V4(Ipv4Addr::from(bytes)),
        Address::V6(bytes) => IpAddr::V6(Ipv6Addr::from(bytes)),
    }
}
