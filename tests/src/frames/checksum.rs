//! The checksums that real stacks check.

use std::net::IpAddr;

/// The Internet checksum (RFC 1071).
pub(super) fn internet(bytes: &[u8]) -> u16 {
    let mut sum: u64 = bytes
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            [high] => u64::from(high) << 8,
            _ => 0,
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
    let sum = sum as u16;
    !sum
}

/// The Internet checksum over the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) and `bytes`.
pub(super) fn with_pseudo_header(ends: (IpAddr, IpAddr), protocol: u8, bytes: &[u8]) -> u16 {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut all = Vec::with_capacity(40 + bytes.len());
    for end in [ends.0, ends.1] {
        match end {
            IpAddr::V4(address) => all.extend(address.octets()),
            IpAddr::V6(address) => all.extend(address.octets()),
        }
    }
    all.extend(length.to_be_bytes());
    all.extend([0, 0, 0, protocol]);
    all.extend(bytes);
    internet(&all)
}

/// CRC-32C, with which SCTP checks itself (RFC 9260, appendix A).
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_internet_checksum_is_that_of_rfc_1071() {
        assert_eq!(
            internet(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        assert_eq!(internet(&[0x12]), !0x1200);
    }

    #[test]
    fn crc32c_gives_the_check_value_of_its_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
