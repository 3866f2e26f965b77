//! IPv4 (RFC 791 §3.1).

use super::{Complaint, Continuation, Fragment, Lengths, Parsed, Version, header, transport};
use crate::{packet::Packet, reason::Reason, wire::IpProto};

/// Offset of the total length.
pub(super) const TOTAL_LENGTH: usize = 2;
/// Offset of the source address.
pub const SOURCE: usize = 12;
/// Offset of the destination address.
pub const DESTINATION: usize = 16;

const HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
/// The bits of the fragment offset, which counts in units of 8 bytes.
pub(super) const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Reads the packet that begins at `offset`.
///
/// The header checksum is not judged, DF and the reserved bit are ignored, options are skipped by
/// their length and never interpreted.
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
        return Err(E::about(Reason::Ip4Short));
    };
    let header: header::Ipv4 = bytemuck::cast(header);
    if header.version_ihl >> 4 != 4 {
        return Err(E::about(Reason::Ip4Version));
    }
    let header_length = usize::from(header.version_ihl & 0x0f) * 4;
    if header_length < HEADER {
        return Err(E::about(Reason::Ip4Ihl));
    }
    let left = packet.length() - offset;
    if header_length > left {
        return Err(E::about(Reason::Ip4OptsShort));
    }
    let payload_length = match lengths {
        Lengths::Enforced => {
            let total_length = usize::from(u16::from_be_bytes(header.total_length));
            if total_length < header_length {
                return Err(E::about(Reason::Ip4TotlenSmall));
            }
            if total_length > left {
                return Err(E::about(Reason::Ip4TotlenLong));
            }
            total_length - header_length
        }
        Lengths::Quoted => left - header_length,
    };
    parsed.version = Some(Version::V4);
    parsed.network = offset;
    parsed.protocol = IpProto(header.protocol);
    parsed.payload = offset + header_length;

    let fragmentation = u16::from_be_bytes(header.fragment);
    if fragmentation & FRAGMENT_OFFSET != 0 {
        parsed.fragment = Fragment::Later;
        return Ok(then.sound(packet, parsed));
    }
    if fragmentation & MORE_FRAGMENTS != 0 {
        parsed.fragment = Fragment::First;
    }
    transport::parse(packet, payload_length, lengths, parsed, then)
}
