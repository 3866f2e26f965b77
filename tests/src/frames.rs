//! Frames, byte by byte, with every field open to a lie.
//!
//! A frame is put together from the inside out: `ipv4(udp(40_000, 53)).frame().tag(VLAN, 7)`. What is
//! not overridden is right, checksums included, so that a real network stack accepts it. Addresses
//! are from RFC 5737 and RFC 3849.
//!
//! Nothing here knows how portdemux reads a frame.

mod checksum;
mod ipv4;
mod ipv6;
mod link;
mod transport;

pub use ipv4::{Ipv4, ipv4};
pub use ipv6::{
    AH, DESTINATION_OPTIONS, Extension, FRAGMENT, HOP_BY_HOP, Ipv6, ROUTING, atomic_fragment,
    authentication, extension, first_fragment, fragment, ipv6,
};
pub use link::{ARP, Frame, IPV4, IPV6, Mac, SERVICE_VLAN, Tag, VLAN, ethernet, llc};
pub use transport::{
    DCCP, ICMP, ICMPV6, Icmp, Payload, SCTP, Sctp, TCP, Tcp, UDP, UDP_LITE, Udp, icmp, other, sctp,
    tcp, udp,
};

/// The IPv4 address that frames come from unless told otherwise.
pub const CLIENT_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 2, 1);
/// The IPv4 address that frames go to unless told otherwise.
pub const SERVER_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 2, 2);
/// The IPv6 address that frames come from unless told otherwise.
pub const CLIENT_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The IPv6 address that frames go to unless told otherwise.
pub const SERVER_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// The MAC address that frames come from unless told otherwise.
pub const CLIENT_MAC: Mac = [0x02, 0, 0, 0, 0, 0x01];
/// The MAC address that frames go to unless told otherwise.
pub const SERVER_MAC: Mac = [0x02, 0, 0, 0, 0, 0x02];

/// Changes some fields of a value in the middle of an expression.
pub trait With: Sized {
    /// The value after `change`.
    #[must_use]
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl<T> With for T {}
