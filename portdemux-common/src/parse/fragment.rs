//! Which packet a fragment is of, and which part of it it is (RFC 791 §3.1, RFC 8200 §4.5).

use super::{Version, ipv4, ipv6};
use crate::packet::Packet;

/// Which packet a fragment is of, and which part of it it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The identification, big-endian; IPv4 fills the first two bytes, and zeros follow.
    pub(crate) identification: [u8; 4],
    /// Where it begins in the packet, in units of 8 bytes.
    pub(crate) begin: u16,
    /// Where it ends in the packet, in units of 8 bytes.
    pub(crate) end: u16,
}

/// Reads it of the fragment whose IP header begins at `network`; of IPv6, whose fragment header begins
/// at `header`.
#[inline(always)]
pub(crate) fn extent<P: Packet + ?Sized>(
    packet: &P,
    version: Version,
    network: usize,
    header: usize,
) -> Extent {
    let ip: [u8; 8] = packet.read(network).unwrap_or_default();
    let (identification, begin, length) = match version {
        Version::V4 => {
            let [first, total_length, identification, fragment]: [[u8; 2]; 4] = bytemuck::cast(ip);
            let [version_ihl, _] = first;
            let headers = 4 * u16::from(version_ihl & 0x0f);
            let length = u16::from_be_bytes(total_length).wrapping_sub(headers);
            let begin = u16::from_be_bytes(fragment) & ipv4::FRAGMENT_OFFSET;
            ([identification, [0; 2]], begin, length)
        }
        Version::V6 => {
            let [_, _, payload_length, _]: [[u8; 2]; 4] = bytemuck::cast(ip);
            let fragment: [u8; 8] = packet.read(header).unwrap_or_default();
            let [_, offset, identification @ ..]: [[u8; 2]; 4] = bytemuck::cast(fragment);
            let headers = header.wrapping_sub(network + ipv6::HEADER) + ipv6::EXTENSION;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "they are part of what the payload's length counts"
            )]
            let length = u16::from_be_bytes(payload_length).wrapping_sub(headers as u16);
            let begin = (u16::from_be_bytes(offset) & ipv6::FRAGMENT_OFFSET) >> 3;
            (identification, begin, length)
        }
    };
    Extent {
        identification: bytemuck::cast(identification),
        begin,
        end: begin.saturating_add(length.div_ceil(8)),
    }
}
