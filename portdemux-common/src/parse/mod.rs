//! What a frame says: link layer, IPv4 or IPv6, ports.
//!
//! Every frame is exactly one of: with ports, without ports, not IP, malformed ([`Class`]). The one
//! unforgivable error is to report ports that are not there, or others than these: that is a way
//! around every rule. All arithmetic is on `usize`, offsets are bounded by the sum of what the
//! length fields can say (below 20,000 bytes), and every byte is read through [`Packet::read`].

pub(crate) mod fragment;
mod header;
pub mod ipv4;
pub mod ipv6;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
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

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Has a transport header with ports.
    Ports = 0,
    /// Valid IP without ports to dispatch on.
    NoPorts = 1,
    /// Neither IPv4 nor IPv6.
    NonIp = 2,
    /// Claims to be IP and lies or ends early.
    Malformed = 3,
}

/// The version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Version {
    /// IPv4 (RFC 791).
    V4 = 4,
    /// IPv6 (RFC 8200).
    V6 = 6,
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
///
/// No field is an enum with contents: the bytes of the variant that a value is not are undefined,
/// the compiler may leave any register in their place, and the verifier refuses what it then sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Why it is malformed, if it is.
    pub malformed: Option<Reason>,
    /// The VLAN tags before the packet.
    pub vlans: Vlans,
    /// The version of a packet whose IP header is sound.
    pub version: Option<Version>,
    /// Where the IP header begins, in bytes from the start of the frame.
    pub network: usize,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Where the header begins that says that it is a fragment of an IPv6 packet, in bytes from the start
    /// of the frame; of several the last.
    pub fragmentation: usize,
    /// The terminal protocol, as far as the headers were walked; in a later fragment the one that
    /// its fragment header names. Without meaning if there is no version.
    pub protocol: IpProto,
    /// Where the terminal protocol's header begins, in bytes from the start of the frame.
    pub payload: usize,
    /// The protocol whose ports follow, if there are ports.
    pub transport: Option<Transport>,
    /// The source port; 0 if there are no ports.
    pub source_port: Port,
    /// The destination port; 0 if there are no ports.
    pub destination_port: Port,
}

impl Parsed {
    /// What kind of frame it is.
    #[inline(always)]
    #[must_use]
    pub const fn class(&self) -> Class {
        match (self.malformed, self.version, self.transport) {
            (Some(_), _, _) => Class::Malformed,
            (None, None, _) => Class::NonIp,
            (None, Some(_), None) => Class::NoPorts,
            (None, Some(_), Some(_)) => Class::Ports,
        }
    }

    /// The ports, if there are any.
    #[inline(always)]
    #[must_use]
    pub const fn ports(&self) -> Option<Ports> {
        match self.transport {
            Some(transport) => Some(Ports {
                transport,
                source: self.source_port,
                destination: self.destination_port,
            }),
            None => None,
        }
    }

    /// The source address in `packet`, which this was read from.
    #[inline(always)]
    #[must_use]
    pub fn source<P: Packet + ?Sized>(&self, packet: &P) -> Option<Address> {
        match self.version? {
            Version::V4 => packet.read(self.network + ipv4::SOURCE).map(Address::V4),
            Version::V6 => packet.read(self.network + ipv6::SOURCE).map(Address::V6),
        }
    }

    /// The destination address in `packet`, which this was read from. A source route or routing
    /// header does not change it.
    #[inline(always)]
    #[must_use]
    pub fn destination<P: Packet + ?Sized>(&self, packet: &P) -> Option<Address> {
        match self.version? {
            Version::V4 => packet
                .read(self.network + ipv4::DESTINATION)
                .map(Address::V4),
            Version::V6 => packet
                .read(self.network + ipv6::DESTINATION)
                .map(Address::V6),
        }
    }

    #[inline(always)]
    const fn new() -> Self {
        Self {
            malformed: None,
            vlans: Vlans {
                count: 0,
                ids: [0; MAX_TAGS],
            },
            version: None,
            network: 0,
            fragment: Fragment::None,
            fragmentation: 0,
            protocol: IpProto(0),
            payload: 0,
            transport: None,
            source_port: Port::new(0),
            destination_port: Port::new(0),
        }
    }
}

/// Whether the lengths in a packet have to be true.
///
/// They cannot be in the packet that an ICMP error quotes, which is cut off by design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lengths {
    Enforced,
    Quoted,
}

/// What the parser has to say about a malformed frame: the reason, or only that there is one.
///
/// Carrying the reason through every check costs a frame more than the checks do. So the fast path
/// asks without ([`parse_sound`]), and the few frames that fail are read again for it.
trait Complaint {
    fn about(reason: Reason) -> Self;
}

impl Complaint for Reason {
    #[inline(always)]
    fn about(reason: Reason) -> Self {
        reason
    }
}

struct Unnamed;

impl Complaint for Unnamed {
    #[inline(always)]
    fn about(_reason: Reason) -> Self {
        Self
    }
}

/// What is to be done with a sound frame.
///
/// The parser calls it from each place where it comes to an end, so that what is done there is
/// compiled for what is known there; handing one [`Parsed`] back from all of them costs a packet
/// more than looking its port up.
pub trait Continuation<P: Packet + ?Sized> {
    /// What comes of it.
    type Output;

    /// Takes the frame over.
    fn sound(self, packet: &P, parsed: &Parsed) -> Self::Output;
}

struct Keep;

impl<P: Packet + ?Sized> Continuation<P> for Keep {
    type Output = Parsed;

    #[inline(always)]
    fn sound(self, _packet: &P, parsed: &Parsed) -> Parsed {
        *parsed
    }
}

/// Reads a frame from its Ethernet header on.
#[inline(always)]
#[must_use]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Parsed {
    let mut parsed = Parsed::new();
    if let Err(reason) = frame::<P, Reason, Keep>(packet, &mut parsed, Keep) {
        parsed.malformed = Some(reason);
    }
    parsed
}

/// Reads a frame as [`parse`] does and hands it on, or says nothing if it is malformed.
#[inline(always)]
#[must_use]
pub fn parse_sound<P, C>(packet: &P, then: C) -> Option<C::Output>
where
    P: Packet + ?Sized,
    C: Continuation<P>,
{
    frame::<P, Unnamed, C>(packet, &mut Parsed::new(), then).ok()
}

/// Reads the packet that an ICMP error quotes (RFC 792, RFC 4443 §2.4 c), if `parsed` is such an
/// error and enough of the packet is there.
///
/// Length fields of the quoted packet are not enforced, and 8 bytes of a transport header are
/// enough: no more is promised. Padding after the error itself is no part of it.
#[must_use]
pub fn parse_quoted<P: Packet + ?Sized>(packet: &P, parsed: &Parsed) -> Option<Parsed> {
    if parsed.class() != Class::NoPorts || parsed.fragment == Fragment::Later {
        return None;
    }
    let packet = &Prefix {
        packet,
        length: end(packet, parsed)?,
    };
    let [kind] = packet.read::<1>(parsed.payload)?;
    let version = match (parsed.version?, parsed.protocol, kind) {
        (Version::V4, IpProto::ICMP, 3 | 4 | 5 | 11 | 12) => Version::V4,
        (Version::V6, IpProto::ICMPV6, 1..=4) => Version::V6,
        _ => return None,
    };
    Some(quoted(packet, version, parsed.payload))
}

/// Reads the packet that an ICMP error at `payload` quotes, as [`parse_quoted`] does; the version is that of
/// both packets.
#[inline(always)]
pub(crate) fn quoted<P: Packet + ?Sized>(packet: &P, version: Version, payload: usize) -> Parsed {
    let mut quoted = Parsed::new();
    // The ICMP error headers of both versions are 8 bytes long.
    let offset = payload + 8;
    let read: Result<Parsed, Reason> = match version {
        Version::V4 => ipv4::parse(packet, offset, Lengths::Quoted, &mut quoted, Keep),
        Version::V6 => ipv6::parse(packet, offset, Lengths::Quoted, &mut quoted, Keep),
    };
    match read {
        Ok(parsed) => parsed,
        Err(reason) => {
            quoted.malformed = Some(reason);
            quoted
        }
    }
}

/// Where a sound packet ends by its own word; padding may follow.
fn end<P: Packet + ?Sized>(packet: &P, parsed: &Parsed) -> Option<usize> {
    Some(parsed.network + length(packet, parsed.version?, parsed.network)?)
}

/// The length of the sound packet whose IP header begins at `network`, by its own word.
#[inline(always)]
pub(crate) fn length<P: Packet + ?Sized>(
    packet: &P,
    version: Version,
    network: usize,
) -> Option<usize> {
    Some(match version {
        Version::V4 => u16::from_be_bytes(packet.read(network + ipv4::TOTAL_LENGTH)?).into(),
        Version::V6 => {
            let payload = packet.read(network + ipv6::PAYLOAD_LENGTH)?;
            ipv6::HEADER + usize::from(u16::from_be_bytes(payload))
        }
    })
}

/// The first bytes of a packet.
struct Prefix<'a, P: ?Sized> {
    packet: &'a P,
    length: usize,
}

impl<P: Packet + ?Sized> Packet for Prefix<'_, P> {
    fn length(&self) -> usize {
        self.length
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset.checked_add(N)? > self.length {
            return None;
        }
        self.packet.read(offset)
    }
}

#[inline(always)]
fn frame<P, E, C>(packet: &P, parsed: &mut Parsed, then: C) -> Result<C::Output, E>
where
    P: Packet + ?Sized,
    E: Complaint,
    C: Continuation<P>,
{
    let (ether_type, offset) = link::parse(packet, &mut parsed.vlans)?;
    match ether_type {
        EtherType::IPV4 => ipv4::parse(packet, offset, Lengths::Enforced, parsed, then),
        EtherType::IPV6 => ipv6::parse(packet, offset, Lengths::Enforced, parsed, then),
        _ => Ok(then.sound(packet, parsed)),
    }
}
