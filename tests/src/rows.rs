//! Frames and what is to be said about each: the packet semantics as a table.
//!
//! A row is data, so that the host's parser, the kernel's and `explain` can all be held to it. Every
//! numbered rule has rows on both sides of its boundary.

mod extensions;
mod fragments;
mod ipv4;
mod ipv6;
mod link;
mod quoted;
mod transport;

use std::net::IpAddr;

use crate::{
    answer::{Answer, Class, Fragment},
    frames::{CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6},
};

/// A frame and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Row {
    /// A sentence that is true of the frame.
    pub name: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// What is to be said.
    pub expected: Answer,
    /// What is to be said about the packet that it quotes, if it is an ICMP error.
    pub quoted: Option<Answer>,
}

/// All rows. Their names are unique.
#[must_use]
pub fn all() -> Vec<Row> {
    [
        link::rows(),
        ipv4::rows(),
        ipv6::rows(),
        extensions::rows(),
        fragments::rows(),
        transport::rows(),
        quoted::rows(),
    ]
    .concat()
}

fn row(name: impl Into<String>, frame: impl Into<Vec<u8>>, expected: Answer) -> Row {
    Row {
        name: name.into(),
        frame: frame.into(),
        expected,
        quoted: None,
    }
}

/// Valid IPv4 of this protocol without ports, between the addresses that frames have by default.
fn v4(protocol: u8) -> Answer {
    Answer {
        class: Class::NoPorts,
        source: Some(IpAddr::V4(CLIENT_V4)),
        destination: Some(IpAddr::V4(SERVER_V4)),
        protocol: Some(protocol),
        ..Answer::nothing()
    }
}

/// Valid IPv6 of this protocol without ports, between the addresses that frames have by default.
fn v6(protocol: u8) -> Answer {
    Answer {
        source: Some(IpAddr::V6(CLIENT_V6)),
        destination: Some(IpAddr::V6(SERVER_V6)),
        ..v4(protocol)
    }
}

/// Neither IPv4 nor IPv6.
fn non_ip() -> Answer {
    Answer::nothing()
}

/// A frame that says nothing before it breaks.
fn malformed(reason: &'static str) -> Answer {
    Answer::nothing().malformed(reason)
}

impl Answer {
    fn ports(self, source: u16, destination: u16) -> Self {
        Self {
            class: Class::Ports,
            ports: Some((source, destination)),
            ..self
        }
    }

    fn malformed(self, reason: &'static str) -> Self {
        Self {
            class: Class::Malformed,
            reason: Some(reason),
            ..self
        }
    }

    fn vlans(self, vlans: &[u16]) -> Self {
        Self {
            vlans: vlans.to_vec(),
            ..self
        }
    }

    fn first(self) -> Self {
        Self {
            fragment: Fragment::First,
            ..self
        }
    }

    fn later(self) -> Self {
        Self {
            fragment: Fragment::Later,
            ..self
        }
    }
}

/// The start of a TCP segment, of a UDP datagram and of an SCTP packet from port 40000 to 443, as
/// something that must not be taken for ports where it is none: 32 bytes.
const BAIT: [u8; 32] = [
    0x9c, 0x40, 0x01, 0xbb, 0, 32, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xfa, 0xf0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0,
];
