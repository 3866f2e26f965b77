//! IPv6 and its extension headers (RFC 8200 §3, §4).

use core::hint::cold_path;

use super::{Complaint, Continuation, Fragment, Lengths, Parsed, Version, header, transport};
use crate::{packet::Packet, reason::Reason, wire::IpProto};

/// How many extension headers are walked; one more is malformed.
pub const MAX_EXTENSIONS: usize = 8;

/// Offset of the payload length.
pub(super) const PAYLOAD_LENGTH: usize = 4;
/// Offset of the source address.
pub const SOURCE: usize = 8;
/// Offset of the destination address.
pub const DESTINATION: usize = 24;

/// Length of the header without extensions.
pub(super) const HEADER: usize = 40;
/// The smallest extension header, and the size of a fragment header.
pub(super) const EXTENSION: usize = 8;
const MORE_FRAGMENTS: u16 = 0x0001;
/// The bits of the fragment offset, which is in bytes.
pub(super) const FRAGMENT_OFFSET: u16 = 0xfff8;

/// Reads the packet that begins at `offset`.
#[inline(always)]
pub(super) fn parse<P, E, C>(
    packet: &P,
    offset: usize,
    lengths: Lengths,
    parsed: &mut Parsed,
    then: C,
) -> Result<C::Output, E>
where
    P: Packet + ?Sized,
    E: Complaint,
    C: Continuation<P>,
{
    let Some(header) = packet.read::<HEADER>(offset) else {
        return Err(E::about(Reason::Ip6Short));
    };
    let header: header::Ipv6 = bytemuck::cast(header);
    if header.version >> 4 != 6 {
        return Err(E::about(Reason::Ip6Version));
    }
    let left = packet.length() - offset - HEADER;
    let payload_length = match lengths {
        Lengths::Enforced => {
            let payload_length = usize::from(u16::from_be_bytes(header.payload_length));
            if payload_length > left {
                return Err(E::about(Reason::Ip6PlenLong));
            }
            // RFC 2675 §3: a jumbogram's length stands in a hop-by-hop option.
            if payload_length == 0 && IpProto(header.next_header) == IpProto::HOP_BY_HOP {
                return Err(E::about(Reason::Ip6Jumbo));
            }
            payload_length
        }
        Lengths::Quoted => left,
    };
    parsed.version = Some(Version::V6);
    parsed.network = offset;
    parsed.protocol = IpProto(header.next_header);
    parsed.payload = offset + HEADER;
    walk(packet, payload_length, lengths, parsed, then)
}

/// Walks the extension headers from `parsed.payload` on, `left` bytes before the packet ends.
#[inline(always)]
fn walk<P, E, C>(
    packet: &P,
    left: usize,
    lengths: Lengths,
    parsed: &mut Parsed,
    then: C,
) -> Result<C::Output, E>
where
    P: Packet + ?Sized,
    E: Complaint,
    C: Continuation<P>,
{
    let end = parsed.payload + left;
    for walked in 0..=MAX_EXTENSIONS {
        // The size is that of the header that stands here, by its own type; `parsed.protocol` turns
        // to the next one only afterwards.
        let Some(unit) = length_unit(parsed.protocol) else {
            return transport::parse(packet, end - parsed.payload, lengths, parsed, then);
        };
        if walked == MAX_EXTENSIONS {
            break;
        }
        if parsed.payload + EXTENSION > end {
            return Err(E::about(Reason::Ip6ExtShort));
        }
        let Some(header) = packet.read::<4>(parsed.payload) else {
            return Err(E::about(Reason::Ip6ExtShort));
        };
        let header: header::Extension = bytemuck::cast(header);
        let size = EXTENSION + usize::from(header.length) * unit;
        let next = parsed.payload + size;
        if next > end {
            return Err(E::about(Reason::Ip6ExtShort));
        }
        let is_fragment = parsed.protocol == IpProto::FRAGMENT;
        parsed.protocol = IpProto(header.next_header);
        if is_fragment {
            let fragmentation = u16::from_be_bytes(header.fragment);
            if fragmentation & FRAGMENT_OFFSET != 0 {
                parsed.fragment = Fragment::Later;
                parsed.fragmentation = parsed.payload;
                return Ok(then.sound(packet, parsed));
            }
            // Without M the fragment is atomic: a whole packet (RFC 6946).
            if fragmentation & MORE_FRAGMENTS != 0 {
                parsed.fragment = Fragment::First;
                parsed.fragmentation = parsed.payload;
            }
        }
        // So that the way back to the start of the loop is a jump: Linux 6.1 takes no other (kernel/bpf/verifier.c,
        // `check_cfg`), and LLVM puts the end of a loop that it thinks hot before the start.
        cold_path();
        let Some(next) = packet.locate(next) else {
            return Err(E::about(Reason::Ip6ExtShort));
        };
        parsed.payload = next;
    }
    Err(E::about(Reason::Ip6ExtLimit))
}

/// How many bytes one step of an extension header's length field means, beyond its first eight
/// bytes; nothing for a protocol that is not walked.
#[inline(always)]
const fn length_unit(protocol: IpProto) -> Option<usize> {
    match protocol {
        IpProto::HOP_BY_HOP | IpProto::ROUTING | IpProto::DESTINATION_OPTIONS => Some(8),
        // RFC 4302 §2.2: in words of 4 bytes, less 2.
        IpProto::AH => Some(4),
        IpProto::FRAGMENT => Some(0),
        _ => None,
    }
}
