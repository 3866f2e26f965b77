//! What a frame says: link layer, IPv4 or IPv6, ports.
//!
//! Every frame is exactly one of: with ports, without ports, not IP, malformed ([`Class`]). The one
//! unforgivable error is to report ports that are not there, or others than these: that is a way
//! around every rule. All arithmetic is on `usize`, offsets are bounded by the sum of what the
//! length fields can say (below 20 KiB), and every byte is read through [`Packet::read`].

mod ipv4;
mod ipv6;
mod link;
mod transport;

#[cfg(test)]
mod tests;

pub use ipv6::MAX_EXTENSIONS;
pub use link::MAX_TAGS;

use crate::{
    packet::Packet,
    reason::Reason,
    wire::{EtherType, IpProto, Port, Transport},
};

/// An IP address as it stands in the packet, big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// The parser came to no address.
    #[default]
    None,
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

/// Whether the packet is a fragment (RFC 791 §3.2, RFC 8200 §4.5).
///
/// An atomic IPv6 fragment (RFC 6946) is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// A whole packet.
    #[default]
    None = 0,
    /// Offset 0 and more to come.
    First = 1,
    /// Any other offset: no transport header of its own.
    Later = 2,
}

/// What the transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The protocol the ports belong to.
    pub transport: Transport,
    /// Where the packet says it comes from.
    pub source: Port,
    /// The port it is for.
    pub destination: Port,
}

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Has a transport header with ports.
    Ports(Ports),
    /// Valid IP without ports to dispatch on.
    NoPorts,
    /// Neither IPv4 nor IPv6.
    NonIp,
    /// Claims to be IP and lies or ends early, for this reason.
    Malformed(Reason),
}

/// VLAN tags, outermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vlans {
    /// How many tags were read.
    pub count: u8,
    /// Their VLAN identifiers in host byte order, 12 bits each; VID 0 is a tag like any other.
    pub ids: [u16; MAX_TAGS],
}

impl Vlans {
    /// The identifiers of the tags that were read, outermost first.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        self.ids.get(..usize::from(self.count)).unwrap_or(&self.ids)
    }
}

/// Everything the parser says about a frame. What a malformed frame said before it broke is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What kind of frame it is.
    pub class: Class,
    /// The VLAN tags before the packet.
    pub vlans: Vlans,
    /// The packet's source address.
    pub source: Address,
    /// The packet's destination address. A source route or routing header does not change it.
    pub destination: Address,
    /// The terminal protocol, as far as the headers were walked; in a later fragment the one that
    /// its fragment header names.
    pub protocol: Option<IpProto>,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Where the terminal protocol's header begins, in bytes from the start of the frame.
    pub payload: usize,
}

/// Whether the lengths in a packet have to be true.
///
/// They cannot be in the packet that an ICMP error quotes, which is cut off by design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lengths {
    Enforced,
    Quoted,
}

/// Reads a frame from its Ethernet header on.
#[inline(always)]
#[must_use]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Parsed {
    let mut parsed = Parsed::new();
    parsed.class = match link::parse(packet, &mut parsed.vlans) {
        Ok((ether_type, offset)) => network(packet, ether_type, offset, &mut parsed),
        Err(reason) => Class::Malformed(reason),
    };
    parsed
}

/// Reads the packet that an ICMP error quotes (RFC 792, RFC 4443 §2.4 c), if `parsed` is such an
/// error and enough of the packet is there.
///
/// Length fields are not enforced, and 8 bytes of a transport header are enough: no more is
/// promised.
#[must_use]
pub fn parse_quoted<P: Packet + ?Sized>(packet: &P, parsed: &Parsed) -> Option<Parsed> {
    if parsed.class != Class::NoPorts || parsed.fragment == Fragment::Later {
        return None;
    }
    let [kind] = packet.read::<1>(parsed.payload)?;
    let is_v4 = match (parsed.source, parsed.protocol?, kind) {
        (Address::V4(_), IpProto::ICMP, 3 | 4 | 5 | 11 | 12) => true,
        (Address::V6(_), IpProto::ICMPV6, 1..=4) => false,
        _ => return None,
    };
    let mut quoted = Parsed::new();
    // Both ICMP error headers are 8 bytes long.
    let offset = parsed.payload + 8;
    let class = if is_v4 {
        ipv4::parse(packet, offset, Lengths::Quoted, &mut quoted)
    } else {
        ipv6::parse(packet, offset, Lengths::Quoted, &mut quoted)
    };
    quoted.class = class.unwrap_or_else(Class::Malformed);
    Some(quoted)
}

#[inline(always)]
fn network<P: Packet + ?Sized>(
    packet: &P,
    ether_type: EtherType,
    offset: usize,
    parsed: &mut Parsed,
) -> Class {
    let class = match ether_type {
        EtherType::IPV4 => ipv4::parse(packet, offset, Lengths::Enforced, parsed),
        EtherType::IPV6 => ipv6::parse(packet, offset, Lengths::Enforced, parsed),
        _ => return Class::NonIp,
    };
    match class {
        Ok(class) => class,
        Err(reason) => Class::Malformed(reason),
    }
}

impl Parsed {
    #[inline(always)]
    const fn new() -> Self {
        Self {
            class: Class::NonIp,
            vlans: Vlans { count: 0, ids: [0; MAX_TAGS] },
            source: Address::None,
            destination: Address::None,
            protocol: None,
            fragment: Fragment::None,
            payload: 0,
        }
    }
}
