//! IPv4 (RFC 791 §3.1).

use super::{Address, Class, Fragment, Lengths, Parsed, transport};
use crate::{packet::Packet, reason::Reason, wire::IpProto};

const HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Reads the packet that begins at `offset`.
///
/// The header checksum is not judged, DF and the reserved bit are ignored, options are skipped by
/// their length and never interpreted.
#[inline(always)]
pub(super) fn parse<P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    lengths: Lengths,
    parsed: &mut Parsed,
) -> Result<Class, Reason> {
    let Some(header) = packet.read::<HEADER>(offset) else {
        return Err(Reason::Ip4Short);
    };
    let [version_ihl, _, len_high, len_low, _, _, frag_high, frag_low, _, protocol, _, _, ..] =
        header;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    if version_ihl >> 4 != 4 {
        return Err(Reason::Ip4Version);
    }
    let header_length = usize::from(version_ihl & 0x0f) * 4;
    if header_length < HEADER {
        return Err(Reason::Ip4Ihl);
    }
    let left = packet.length() - offset;
    if header_length > left {
        return Err(Reason::Ip4OptsShort);
    }
    let total_length = usize::from(u16::from_be_bytes([len_high, len_low]));
    let payload_length = match lengths {
        Lengths::Enforced => {
            if total_length < header_length {
                return Err(Reason::Ip4TotlenSmall);
            }
            if total_length > left {
                return Err(Reason::Ip4TotlenLong);
            }
            total_length - header_length
        }
        Lengths::Quoted => left - header_length,
    };
    parsed.source = Address::V4([s0, s1, s2, s3]);
    parsed.destination = Address::V4([d0, d1, d2, d3]);
    parsed.protocol = Some(IpProto(protocol));
    parsed.payload = offset + header_length;

    let fragmentation = u16::from_be_bytes([frag_high, frag_low]);
    if fragmentation & FRAGMENT_OFFSET != 0 {
        parsed.fragment = Fragment::Later;
        return Ok(Class::NoPorts);
    }
    if fragmentation & MORE_FRAGMENTS != 0 {
        parsed.fragment = Fragment::First;
    }
    transport::parse(
        packet,
        IpProto(protocol),
        parsed.payload,
        payload_length,
        parsed.fragment,
        lengths,
    )
}
