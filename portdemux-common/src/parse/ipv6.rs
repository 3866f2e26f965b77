//! IPv6 and its extension headers (RFC 8200 §3, §4).

use super::{Address, Class, Fragment, Lengths, Parsed, transport};
use crate::{packet::Packet, reason::Reason, wire::IpProto};

/// How many extension headers are walked; one more is malformed.
pub const MAX_EXTENSIONS: usize = 8;

const HEADER: usize = 40;
/// The smallest extension header, and the size of a fragment header.
const EXTENSION: usize = 8;
const MORE_FRAGMENTS: u16 = 0x0001;
const FRAGMENT_OFFSET: u16 = 0xfff8;

/// Reads the packet that begins at `offset`.
#[inline(always)]
pub(super) fn parse<P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    lengths: Lengths,
    parsed: &mut Parsed,
) -> Result<Class, Reason> {
    let Some(header) = packet.read::<HEADER>(offset) else {
        return Err(Reason::Ip6Short);
    };
    let [version, _, _, _, len_high, len_low, next_header, _, ..] = header;
    if version >> 4 != 6 {
        return Err(Reason::Ip6Version);
    }
    let left = packet.length() - offset - HEADER;
    let payload_length = usize::from(u16::from_be_bytes([len_high, len_low]));
    let payload_length = match lengths {
        Lengths::Enforced => {
            if payload_length > left {
                return Err(Reason::Ip6PlenLong);
            }
            // RFC 2675 §3: a jumbogram's length stands in a hop-by-hop option.
            if payload_length == 0 && IpProto(next_header) == IpProto::HOP_BY_HOP {
                return Err(Reason::Ip6Jumbo);
            }
            payload_length
        }
        Lengths::Quoted => left,
    };
    let [_, _, _, _, _, _, _, _, addresses @ ..] = header;
    let (source, destination) = halves(addresses);
    parsed.source = Address::V6(source);
    parsed.destination = Address::V6(destination);
    parsed.payload = offset + HEADER;
    walk(packet, IpProto(next_header), payload_length, lengths, parsed)
}

/// Walks the extension headers from `parsed.payload` on, `left` bytes before the packet ends.
#[inline(always)]
fn walk<P: Packet + ?Sized>(
    packet: &P,
    next_header: IpProto,
    left: usize,
    lengths: Lengths,
    parsed: &mut Parsed,
) -> Result<Class, Reason> {
    let mut kind = next_header;
    let mut left = left;
    parsed.protocol = Some(kind);
    for _ in 0..MAX_EXTENSIONS {
        // The size is that of the header that stands here, by its own type; `kind` turns to the
        // next one only afterwards.
        let unit = match kind {
            IpProto::HOP_BY_HOP | IpProto::ROUTING | IpProto::DESTINATION_OPTIONS => 8,
            // RFC 4302 §2.2: in words of 4 bytes, less 2.
            IpProto::AH => 4,
            IpProto::FRAGMENT => 0,
            _ => {
                return transport::parse(
                    packet,
                    kind,
                    parsed.payload,
                    left,
                    parsed.fragment,
                    lengths,
                );
            }
        };
        if left < EXTENSION {
            return Err(Reason::Ip6ExtShort);
        }
        let Some([next, length, high, low]) = packet.read::<4>(parsed.payload) else {
            return Err(Reason::Ip6ExtShort);
        };
        let size = EXTENSION + usize::from(length) * unit;
        if size > left {
            return Err(Reason::Ip6ExtShort);
        }
        if kind == IpProto::FRAGMENT {
            let fragmentation = u16::from_be_bytes([high, low]);
            if fragmentation & FRAGMENT_OFFSET != 0 {
                parsed.protocol = Some(IpProto(next));
                parsed.fragment = Fragment::Later;
                return Ok(Class::NoPorts);
            }
            // Without M the fragment is atomic: a whole packet (RFC 6946).
            if fragmentation & MORE_FRAGMENTS != 0 {
                parsed.fragment = Fragment::First;
            }
        }
        kind = IpProto(next);
        parsed.protocol = Some(kind);
        parsed.payload += size;
        left -= size;
    }
    match kind {
        IpProto::HOP_BY_HOP
        | IpProto::ROUTING
        | IpProto::DESTINATION_OPTIONS
        | IpProto::AH
        | IpProto::FRAGMENT => Err(Reason::Ip6ExtLimit),
        _ => transport::parse(packet, kind, parsed.payload, left, parsed.fragment, lengths),
    }
}

#[inline(always)]
fn halves(bytes: [u8; 32]) -> ([u8; 16], [u8; 16]) {
    let mut source = [0; 16];
    let mut destination = [0; 16];
    let (first, second) = bytes.split_at(16);
    source.copy_from_slice(first);
    destination.copy_from_slice(second);
    (source, destination)
}
