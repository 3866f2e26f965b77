//! Rule 11: the IPv6 extension headers that are walked.

use super::{BAIT, Row, row, v6};
use crate::frames::{
    AH, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, Ipv6, ROUTING, With as _, atomic_fragment,
    authentication, extension, icmp, ipv6, other, sctp, tcp, udp,
};

/// Those whose length is in units of 8 bytes.
const OPTIONS: [(u8, &str); 3] = [
    (HOP_BY_HOP, "hop-by-hop options"),
    (ROUTING, "a routing header"),
    (DESTINATION_OPTIONS, "destination options"),
];

pub(super) fn rows() -> Vec<Row> {
    [
        kind_rows(),
        short_rows(),
        authentication_rows(),
        order_rows(),
        limit_rows(),
        bypass_rows(),
    ]
    .concat()
}

fn syn() -> Ipv6 {
    ipv6(tcp(40_000, 443))
}

fn kind_rows() -> Vec<Row> {
    let ports = || v6(6).ports(40_000, 443);
    let mut rows = Vec::new();
    for (kind, what) in OPTIONS {
        for (more, size) in [
            (0, "8 bytes"),
            (1, "16 bytes"),
            (30, "248 bytes, below the overflow of a byte"),
            (31, "256 bytes, where a byte overflows"),
            (255, "2,048 bytes, the longest"),
        ] {
            rows.push(row(
                format!("{what} of {size}: walked"),
                syn().then(extension(kind, more)).frame(),
                ports(),
            ));
        }
        rows.extend([
            row(
                format!("{what} before UDP: walked"),
                ipv6(udp(40_000, 53)).then(extension(kind, 0)).frame(),
                v6(17).ports(40_000, 53),
            ),
            row(
                format!("{what} before SCTP: walked"),
                ipv6(sctp(40_000, 3868)).then(extension(kind, 0)).frame(),
                v6(132).ports(40_000, 3868),
            ),
            row(
                format!("{what} before ICMPv6: no ports"),
                ipv6(icmp(143, 0)).then(extension(kind, 0)).frame(),
                v6(58),
            ),
            row(
                format!("{what} before no next header: no ports"),
                ipv6(other(59, BAIT)).then(extension(kind, 0)).frame(),
                v6(59),
            ),
            row(
                format!("{what} before ESP: no ports"),
                ipv6(other(50, BAIT)).then(extension(kind, 0)).frame(),
                v6(50),
            ),
        ]);
    }
    rows.push(row(
        "a routing header does not change the destination",
        syn()
            .then(extension(ROUTING, 2).with(|header| {
                // Type 0 with one segment left: 2001:db8::bad.
                let segment = [&[0x20, 1, 0xd, 0xb8][..], &[0; 10], &[0xb, 0xad]].concat();
                header.body = [&[0, 1, 0, 0, 0, 0][..], &segment].concat();
            }))
            .frame(),
        ports(),
    ));
    rows
}

fn short_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (kind, what) in OPTIONS {
        for (length, bytes, situation) in [
            (0, 1, "one byte of it is there"),
            (0, 7, "seven bytes of it are there"),
            (1, 15, "one byte of two units is missing"),
            (255, 2047, "one byte of 2,048 is missing"),
            (
                255,
                48,
                "a length of 255 in a short packet does not wrap around",
            ),
            (0, 8, "all of it is there, and nothing else"),
            (255, 2048, "2,048 bytes that end the packet"),
        ] {
            let header = [&[6, length][..], &[0; 2046]].concat();
            let packet = ipv6(other(kind, &header[..bytes]));
            let expected = if bytes == 8 * (usize::from(length) + 1) {
                v6(6).malformed("l4_short")
            } else {
                v6(kind).malformed("ip6_ext_short")
            };
            rows.push(row(
                format!("{what}: {situation}"),
                packet.frame(),
                expected,
            ));
        }
    }
    rows
}

fn authentication_rows() -> Vec<Row> {
    let ports = || v6(6).ports(40_000, 443);
    let short = |words: u8, bytes: usize| {
        let header = [&[6, words][..], &[0; 1026], &BAIT].concat();
        ipv6(other(AH, &header[..bytes])).frame()
    };
    let mut rows: Vec<_> = [0, 1, 2, 4, 61, 62, 63, 254, 255]
        .into_iter()
        .map(|words| {
            let size = 4 * (usize::from(words) + 2);
            row(
                format!("AH of {size} bytes: walked"),
                syn().then(authentication(words)).frame(),
                ports(),
            )
        })
        .collect();
    rows.extend([
        row(
            "AH: seven bytes of it are there",
            short(0, 7),
            v6(AH).malformed("ip6_ext_short"),
        ),
        row(
            "AH: all of it is there, and nothing else",
            short(0, 8),
            v6(6).malformed("l4_short"),
        ),
        row(
            "AH: one byte of twelve is missing",
            short(1, 11),
            v6(AH).malformed("ip6_ext_short"),
        ),
        row(
            "AH: twelve bytes that end the packet",
            short(1, 12),
            v6(6).malformed("l4_short"),
        ),
        row(
            "AH: one byte of 1,028 is missing",
            short(255, 1027),
            v6(AH).malformed("ip6_ext_short"),
        ),
        row(
            "AH: 1,028 bytes that end the packet",
            short(255, 1028),
            v6(6).malformed("l4_short"),
        ),
        row(
            "AH: a length of 255 in a short packet does not wrap around",
            short(255, 48),
            v6(AH).malformed("ip6_ext_short"),
        ),
    ]);
    rows
}

fn order_rows() -> Vec<Row> {
    let ports = || v6(6).ports(40_000, 443);
    vec![
        row(
            "all extension headers in the recommended order are walked",
            syn()
                .then(extension(HOP_BY_HOP, 0))
                .then(extension(DESTINATION_OPTIONS, 1))
                .then(extension(ROUTING, 2))
                .then(atomic_fragment())
                .then(authentication(4))
                .then(extension(DESTINATION_OPTIONS, 0))
                .frame(),
            ports(),
        ),
        row(
            "extension headers in any other order are walked",
            syn()
                .then(authentication(1))
                .then(extension(ROUTING, 1))
                .then(extension(DESTINATION_OPTIONS, 2))
                .then(extension(HOP_BY_HOP, 0))
                .frame(),
            ports(),
        ),
        row(
            "the length of a header is counted in its own unit, not in the next one's",
            syn()
                .then(extension(DESTINATION_OPTIONS, 3))
                .then(authentication(5))
                .frame(),
            ports(),
        ),
        row(
            "the length of AH is counted in its own unit, not in the next one's",
            syn()
                .then(authentication(5))
                .then(extension(DESTINATION_OPTIONS, 3))
                .frame(),
            ports(),
        ),
        row(
            "the second byte of a fragment header is no length",
            syn()
                .then(atomic_fragment().with(|header| header.length = 255))
                .frame(),
            ports(),
        ),
        row(
            "a header after the first that is cut off is missed",
            ipv6(other(ROUTING, &BAIT[..7]))
                .then(extension(HOP_BY_HOP, 0))
                .frame(),
            v6(ROUTING).malformed("ip6_ext_short"),
        ),
        row(
            "the payload length ends a header although the frame goes on",
            syn()
                .then(extension(HOP_BY_HOP, 0))
                .with(|ip| ip.payload_length = Some(7))
                .frame(),
            v6(HOP_BY_HOP).malformed("ip6_ext_short"),
        ),
        row(
            "the payload length ends before a transport header although the frame goes on",
            syn()
                .then(extension(HOP_BY_HOP, 0))
                .with(|ip| ip.payload_length = Some(8))
                .frame(),
            v6(6).malformed("l4_short"),
        ),
    ]
}

fn limit_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for count in 0..=10 {
        let packet = (0..count).fold(syn(), |ip, _| ip.then(extension(DESTINATION_OPTIONS, 0)));
        let expected = if count <= 8 {
            v6(6).ports(40_000, 443)
        } else {
            v6(DESTINATION_OPTIONS).malformed("ip6_ext_limit")
        };
        rows.push(row(
            format!("{count} extension headers"),
            packet.frame(),
            expected,
        ));
    }
    let eight = |ip: Ipv6| (0..8).fold(ip, |ip, _| ip.then(extension(DESTINATION_OPTIONS, 0)));
    rows.extend([
        row(
            "eight extension headers before UDP are walked",
            eight(ipv6(udp(40_000, 53))).frame(),
            v6(17).ports(40_000, 53),
        ),
        row(
            "eight extension headers before ESP are walked",
            eight(ipv6(other(50, BAIT))).frame(),
            v6(50),
        ),
        row(
            "a ninth extension header is too many before its bytes are missed",
            eight(ipv6(other(DESTINATION_OPTIONS, []))).frame(),
            v6(DESTINATION_OPTIONS).malformed("ip6_ext_limit"),
        ),
    ]);
    for (kind, what) in [
        (HOP_BY_HOP, "hop-by-hop options"),
        (ROUTING, "a routing header"),
        (FRAGMENT, "a fragment header"),
        (AH, "AH"),
    ] {
        rows.push(row(
            format!("{what} as the ninth extension header: too many"),
            eight(syn().with(|ip| ip.protocol = Some(kind))).frame(),
            v6(kind).malformed("ip6_ext_limit"),
        ));
    }
    let mixed = syn()
        .then(extension(HOP_BY_HOP, 0))
        .then(extension(DESTINATION_OPTIONS, 1))
        .then(extension(ROUTING, 2))
        .then(atomic_fragment())
        .then(authentication(4))
        .then(extension(DESTINATION_OPTIONS, 0))
        .then(authentication(0))
        .then(extension(ROUTING, 0));
    rows.push(row(
        "eight extension headers of all kinds are walked",
        mixed.frame(),
        v6(6).ports(40_000, 443),
    ));
    rows.push(row(
        "a ninth extension header after all kinds is too many",
        mixed.then(extension(DESTINATION_OPTIONS, 0)).frame(),
        v6(DESTINATION_OPTIONS).malformed("ip6_ext_limit"),
    ));
    rows
}

/// Frames in which a parser that computes a length wrongly finds the wrong ports.
fn bypass_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    // A length of 31 is 256 bytes, which a byte holds as 0: the bait stands where such a parser
    // would read on.
    for (kind, length, size) in [(DESTINATION_OPTIONS, 31, 256_usize), (AH, 62, 256)] {
        let body = [&BAIT[..], &vec![0; size - 2 - BAIT.len()]].concat();
        let packet = ipv6(tcp(1111, 2222)).then(extension(kind, 0).with(|header| {
            header.length = length;
            header.body = body;
        }));
        rows.push(row(
            format!("256 bytes of extension header {kind} hide no other ports"),
            packet.frame(),
            v6(6).ports(1111, 2222),
        ));
    }
    // AH of 16 bytes, whose third and fourth words look like a destination options header to TCP.
    let packet = ipv6(tcp(1111, 2222))
        .then(authentication(2).with(|header| header.body = [&[0; 6][..], &BAIT[..8]].concat()));
    rows.push(row(
        "AH read in units of 8 bytes would have other ports",
        packet.frame(),
        v6(6).ports(1111, 2222),
    ));
    rows
}
