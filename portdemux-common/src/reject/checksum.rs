//! The Internet checksum (RFC 1071), in words as the machine loads them.

use crate::{decide::Metadata, wire::IpProto};

/// A sum of words, carries kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(pub(super) u64);

impl Sum {
    /// The sum of the pseudo-header of a reply to a packet (RFC 9293 §3.1, RFC 8200 §8.1), in which the
    /// addresses can stand in any order; `length` is that of what the checksum is for.
    #[inline(always)]
    pub(super) fn of_pseudo_header(metadata: &Metadata, protocol: IpProto, length: usize) -> Self {
        let mut sum = Self::default();
        for [high, low] in [metadata.source, metadata.destination] {
            sum.double(high);
            sum.double(low);
        }
        sum.double((length as u64).to_be());
        sum.double(u64::from(protocol.0).to_be());
        sum
    }

    /// Adds eight bytes as they are loaded.
    #[inline(always)]
    pub(super) const fn double(&mut self, double: u64) {
        self.0 += (double & 0xffff_ffff) + (double >> 32);
    }

    /// Adds words.
    #[inline(always)]
    pub(super) fn words<const N: usize>(&mut self, words: &[[u8; 4]; N]) {
        for &word in words {
            self.0 += u64::from(u32::from_ne_bytes(word));
        }
    }

    /// Adds two bytes.
    #[inline(always)]
    pub(super) fn pair(&mut self, pair: [u8; 2]) {
        self.0 += u64::from(u16::from_ne_bytes(pair));
    }

    /// The checksum as it stands in packets.
    #[inline(always)]
    pub(super) const fn checksum(self) -> [u8; 2] {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        #[expect(clippy::cast_possible_truncation, reason = "carries were added")]
        let sum = sum as u16;
        (!sum).to_ne_bytes()
    }
}
