//! Rules 7 and 12: fragments.

use super::{BAIT, Row, row, v4, v6};
use crate::frames::{
    DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, Ipv4, Ipv6, With as _, atomic_fragment, extension,
    first_fragment, fragment, ipv4, ipv6, other, sctp, tcp, udp,
};

/// Protocols a later fragment of which must not have ports, whatever its bytes.
const PROTOCOLS: [u8; 11] = [1, 4, 6, 17, 33, 47, 50, 51, 58, 132, 136];

pub(super) fn rows() -> Vec<Row> {
    [
        v4_rows(),
        v4_first_rows(),
        v4_first_length_rows(),
        v6_rows(),
        v6_first_rows(),
        v6_chain_rows(),
    ]
    .concat()
}

fn v4_rows() -> Vec<Row> {
    let at = |offset: u16, flags: u8| {
        ipv4(other(17, BAIT))
            .with(|ip| (ip.offset, ip.flags) = (offset, flags))
            .frame()
    };
    let mut rows = vec![
        row(
            "offset 1 without MF is a later fragment",
            at(1, 0),
            v4(17).later(),
        ),
        row(
            "offset 1 with MF is a later fragment",
            at(1, Ipv4::MORE_FRAGMENTS),
            v4(17).later(),
        ),
        row(
            "the largest offset is a later fragment",
            at(0x1fff, 0),
            v4(17).later(),
        ),
        row(
            "an offset in its high byte only is a later fragment",
            at(0x100, 0),
            v4(17).later(),
        ),
        row(
            "the highest bit of the offset is a later fragment",
            at(0x1000, 0),
            v4(17).later(),
        ),
        row(
            "a later fragment with DF and the reserved bit is a later fragment",
            at(3, Ipv4::DO_NOT_FRAGMENT | Ipv4::RESERVED),
            v4(17).later(),
        ),
        row(
            "a later fragment without a byte is a later fragment",
            ipv4(other(6, [])).with(|ip| ip.offset = 5).frame(),
            v4(6).later(),
        ),
        row(
            "a later fragment with options is a later fragment",
            ipv4(other(6, BAIT))
                .with(|ip| (ip.offset, ip.options) = (5, vec![1; 8]))
                .frame(),
            v4(6).later(),
        ),
        row(
            "DF alone is no fragment",
            ipv4(udp(40_000, 53))
                .with(|ip| ip.flags = Ipv4::DO_NOT_FRAGMENT)
                .frame(),
            v4(17).ports(40_000, 53),
        ),
    ];
    for protocol in PROTOCOLS {
        rows.push(row(
            format!("a later fragment of protocol {protocol} in IPv4 has no ports"),
            ipv4(other(protocol, BAIT)).with(|ip| ip.offset = 2).frame(),
            v4(protocol).later(),
        ));
    }
    rows
}

fn v4_first_rows() -> Vec<Row> {
    let first = |protocol: u8, bytes: &[u8]| {
        ipv4(other(protocol, bytes))
            .with(|ip| ip.flags = Ipv4::MORE_FRAGMENTS)
            .frame()
    };
    vec![
        row(
            "a first fragment of TCP has ports",
            first(6, &BAIT[..24]),
            v4(6).first().ports(40_000, 443),
        ),
        row(
            "a first fragment of UDP has ports",
            first(17, &BAIT[..24]),
            v4(17).first().ports(40_000, 443),
        ),
        row(
            "a first fragment of SCTP has ports",
            first(132, &BAIT[..24]),
            v4(132).first().ports(40_000, 443),
        ),
        row(
            "a first fragment of ICMP has no ports",
            first(1, &BAIT),
            v4(1).first(),
        ),
        row(
            "a first fragment with MF, DF and the reserved bit has ports",
            ipv4(udp(40_000, 53)).with(|ip| ip.flags = 0b111).frame(),
            v4(17).first().ports(40_000, 53),
        ),
        row(
            "a first fragment of TCP with 8 bytes is too tiny",
            first(6, &BAIT[..8]),
            v4(6).first().malformed("l4_short"),
        ),
        row(
            "a first fragment of TCP with 16 bytes is too tiny",
            first(6, &BAIT[..16]),
            v4(6).first().malformed("l4_short"),
        ),
        row(
            "a first fragment of TCP with 19 bytes is too tiny",
            first(6, &BAIT[..19]),
            v4(6).first().malformed("l4_short"),
        ),
        row(
            "a first fragment of TCP with 20 bytes has ports",
            first(6, &BAIT[..20]),
            v4(6).first().ports(40_000, 443),
        ),
        row(
            "a first fragment of UDP with 7 bytes is too tiny",
            first(17, &BAIT[..7]),
            v4(17).first().malformed("l4_short"),
        ),
        row(
            "a first fragment of UDP with 8 bytes has ports",
            first(17, &BAIT[..8]),
            v4(17).first().ports(40_000, 443),
        ),
        row(
            "a first fragment of SCTP with 11 bytes is too tiny",
            first(132, &BAIT[..11]),
            v4(132).first().malformed("l4_short"),
        ),
        row(
            "a first fragment of SCTP with 12 bytes has ports",
            first(132, &BAIT[..12]),
            v4(132).first().ports(40_000, 443),
        ),
        row(
            "padding does not complete the header of a first fragment",
            first(6, &BAIT[..16]).padded(&BAIT[16..]),
            v4(6).first().malformed("l4_short"),
        ),
    ]
}

fn v4_first_length_rows() -> Vec<Row> {
    vec![
        row(
            "a first fragment may be shorter than its TCP data offset says",
            ipv4(tcp(40_000, 443).with(|tcp| tcp.data_offset = Some(15)))
                .with(|ip| ip.flags = Ipv4::MORE_FRAGMENTS)
                .frame(),
            v4(6).first().ports(40_000, 443),
        ),
        row(
            "a TCP data offset below 5 is malformed in a first fragment",
            ipv4(tcp(40_000, 443).with(|tcp| tcp.data_offset = Some(4)))
                .with(|ip| ip.flags = Ipv4::MORE_FRAGMENTS)
                .frame(),
            v4(6).first().malformed("tcp_doff"),
        ),
        row(
            "a first fragment may be shorter than its UDP length says",
            ipv4(udp(40_000, 53).with(|udp| udp.length = Some(65_535)))
                .with(|ip| ip.flags = Ipv4::MORE_FRAGMENTS)
                .frame(),
            v4(17).first().ports(40_000, 53),
        ),
        row(
            "a UDP length below 8 is malformed in a first fragment",
            ipv4(udp(40_000, 53).with(|udp| udp.length = Some(7)))
                .with(|ip| ip.flags = Ipv4::MORE_FRAGMENTS)
                .frame(),
            v4(17).first().malformed("udp_len_small"),
        ),
    ]
}

fn v6_rows() -> Vec<Row> {
    let at = |offset: u16, more: bool| ipv6(other(17, BAIT)).then(fragment(offset, more)).frame();
    let reserved = |header: u16| {
        ipv6(udp(40_000, 53))
            .then(fragment(0, false).with(|fragment| {
                fragment.body.splice(..2, header.to_be_bytes());
            }))
            .frame()
    };
    let mut rows = vec![
        row(
            "IPv6 offset 1 without M is a later fragment",
            at(1, false),
            v6(17).later(),
        ),
        row(
            "IPv6 offset 1 with M is a later fragment",
            at(1, true),
            v6(17).later(),
        ),
        row(
            "the largest IPv6 offset is a later fragment",
            at(0x1fff, false),
            v6(17).later(),
        ),
        row(
            "the highest bit of the IPv6 offset is a later fragment",
            at(0x1000, true),
            v6(17).later(),
        ),
        row(
            "an IPv6 offset in its high byte only is a later fragment",
            at(0x20, false),
            v6(17).later(),
        ),
        row(
            "the reserved bits of an atomic fragment are ignored",
            reserved(0b110),
            v6(17).ports(40_000, 53),
        ),
        row(
            "the reserved bits of a first fragment are ignored",
            reserved(0b111),
            v6(17).first().ports(40_000, 53),
        ),
        row(
            "an atomic fragment of TCP is no fragment",
            ipv6(tcp(40_000, 443)).then(atomic_fragment()).frame(),
            v6(6).ports(40_000, 443),
        ),
        row(
            "an atomic fragment of UDP is no fragment",
            ipv6(udp(40_000, 53)).then(atomic_fragment()).frame(),
            v6(17).ports(40_000, 53),
        ),
        row(
            "an atomic fragment of SCTP is no fragment",
            ipv6(sctp(40_000, 3868)).then(atomic_fragment()).frame(),
            v6(132).ports(40_000, 3868),
        ),
        row(
            "an atomic fragment of ICMPv6 is no fragment",
            ipv6(other(58, BAIT)).then(atomic_fragment()).frame(),
            v6(58),
        ),
        row(
            "the lengths in an atomic fragment have to be true",
            ipv6(udp(40_000, 53).with(|udp| udp.length = Some(9)))
                .then(atomic_fragment())
                .frame(),
            v6(17).malformed("udp_len_long"),
        ),
        row(
            "a later fragment of IPv6 without a byte is a later fragment",
            ipv6(other(6, [])).then(fragment(5, false)).frame(),
            v6(6).later(),
        ),
        row(
            "seven bytes are no fragment header",
            ipv6(other(FRAGMENT, &BAIT[..7])).frame(),
            v6(FRAGMENT).malformed("ip6_ext_short"),
        ),
    ];
    for protocol in PROTOCOLS {
        rows.push(row(
            format!("a later fragment of protocol {protocol} in IPv6 has no ports"),
            ipv6(other(protocol, BAIT)).then(fragment(2, true)).frame(),
            v6(protocol).later(),
        ));
    }
    rows
}

fn v6_first_rows() -> Vec<Row> {
    let first =
        |protocol: u8, bytes: &[u8]| ipv6(other(protocol, bytes)).then(first_fragment()).frame();
    vec![
        row(
            "a first fragment of TCP in IPv6 has ports",
            first(6, &BAIT[..24]),
            v6(6).first().ports(40_000, 443),
        ),
        row(
            "a first fragment of TCP in IPv6 with 19 bytes is too tiny",
            first(6, &BAIT[..19]),
            v6(6).first().malformed("l4_short"),
        ),
        row(
            "a first fragment of TCP in IPv6 with 20 bytes has ports",
            first(6, &BAIT[..20]),
            v6(6).first().ports(40_000, 443),
        ),
        row(
            "a first fragment of UDP in IPv6 with 7 bytes is too tiny",
            first(17, &BAIT[..7]),
            v6(17).first().malformed("l4_short"),
        ),
        row(
            "a first fragment of UDP in IPv6 with 8 bytes has ports",
            first(17, &BAIT[..8]),
            v6(17).first().ports(40_000, 443),
        ),
        row(
            "a first fragment of SCTP in IPv6 with 11 bytes is too tiny",
            first(132, &BAIT[..11]),
            v6(132).first().malformed("l4_short"),
        ),
        row(
            "a first fragment of SCTP in IPv6 with 12 bytes has ports",
            first(132, &BAIT[..12]),
            v6(132).first().ports(40_000, 443),
        ),
        row(
            "a first fragment of IPv6 may be shorter than its TCP data offset says",
            ipv6(tcp(40_000, 443).with(|tcp| tcp.data_offset = Some(15)))
                .then(first_fragment())
                .frame(),
            v6(6).first().ports(40_000, 443),
        ),
        row(
            "a first fragment of IPv6 may be shorter than its UDP length says",
            ipv6(udp(40_000, 53).with(|udp| udp.length = Some(2000)))
                .then(first_fragment())
                .frame(),
            v6(17).first().ports(40_000, 53),
        ),
        row(
            "a first fragment that ends before its transport header is malformed",
            first(6, &[]),
            v6(6).first().malformed("l4_short"),
        ),
        row(
            "a first fragment that ends inside an extension header is malformed",
            first(DESTINATION_OPTIONS, &BAIT[..7]),
            v6(DESTINATION_OPTIONS).first().malformed("ip6_ext_short"),
        ),
    ]
}

fn v6_chain_rows() -> Vec<Row> {
    let later = |kind: u8| {
        // What follows looks like an extension header to TCP.
        ipv6(other(kind, [&[6, 0, 0, 0, 0, 0, 0, 0][..], &BAIT].concat()))
            .then(fragment(2, false))
            .frame()
    };
    vec![
        row(
            "options before and after a first fragment's header are walked",
            ipv6(tcp(40_000, 443))
                .then(extension(HOP_BY_HOP, 0))
                .then(first_fragment())
                .then(extension(DESTINATION_OPTIONS, 0))
                .frame(),
            v6(6).first().ports(40_000, 443),
        ),
        row(
            "a later fragment behind options is a later fragment",
            ipv6(other(6, BAIT))
                .then(extension(HOP_BY_HOP, 0))
                .then(fragment(2, false))
                .frame(),
            v6(6).later(),
        ),
        row(
            "the walk stops at a later fragment, whatever it carries",
            later(DESTINATION_OPTIONS),
            v6(DESTINATION_OPTIONS).later(),
        ),
        row(
            "the walk stops at a later fragment that carries a fragment header",
            later(FRAGMENT),
            v6(FRAGMENT).later(),
        ),
        row(
            "a later fragment inside an atomic one is a later fragment",
            ipv6(other(6, BAIT))
                .then(atomic_fragment())
                .then(fragment(2, false))
                .frame(),
            v6(6).later(),
        ),
        row(
            "a later fragment inside a first one is a later fragment",
            ipv6(other(6, BAIT))
                .then(first_fragment())
                .then(fragment(2, false))
                .frame(),
            v6(6).later(),
        ),
        row(
            "an atomic fragment inside a first one is a first fragment",
            ipv6(tcp(40_000, 443))
                .then(first_fragment())
                .then(atomic_fragment())
                .frame(),
            v6(6).first().ports(40_000, 443),
        ),
        row(
            "a first fragment inside an atomic one is a first fragment",
            ipv6(tcp(40_000, 443))
                .then(atomic_fragment())
                .then(first_fragment())
                .frame(),
            v6(6).first().ports(40_000, 443),
        ),
        row(
            "a later fragment is the eighth extension header",
            (0..7)
                .fold(ipv6(other(6, BAIT)), |ip: Ipv6, _| {
                    ip.then(extension(DESTINATION_OPTIONS, 0))
                })
                .then(fragment(2, false))
                .frame(),
            v6(6).later(),
        ),
        row(
            "a later fragment is the ninth extension header: too many",
            (0..8)
                .fold(ipv6(other(6, BAIT)), |ip: Ipv6, _| {
                    ip.then(extension(DESTINATION_OPTIONS, 0))
                })
                .then(fragment(2, false))
                .frame(),
            v6(FRAGMENT).malformed("ip6_ext_limit"),
        ),
        row(
            "a later fragment whose payload names a ninth extension header is a later fragment",
            (0..7)
                .fold(ipv6(other(DESTINATION_OPTIONS, BAIT)), |ip: Ipv6, _| {
                    ip.then(extension(DESTINATION_OPTIONS, 0))
                })
                .then(fragment(2, false))
                .frame(),
            v6(DESTINATION_OPTIONS).later(),
        ),
    ]
}
