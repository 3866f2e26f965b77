//! Rules 9, 10 and 15: the IPv6 header.

use super::{BAIT, Row, malformed, row, v6};
use crate::frames::{
    DCCP, Frame, HOP_BY_HOP, Ipv6, UDP_LITE, With as _, extension, icmp, ipv6, other, tcp, udp,
};

pub(super) fn rows() -> Vec<Row> {
    [
        header_rows(),
        length_rows(),
        padding_rows(),
        terminal_rows(),
    ]
    .concat()
}

fn syn() -> Ipv6 {
    ipv6(tcp(40_000, 443))
}

fn header_rows() -> Vec<Row> {
    let mut rows = vec![
        row(
            "thirty-nine bytes are no IPv6 header",
            syn().frame().cut(53),
            malformed("ip6_short"),
        ),
        row(
            "forty bytes are an IPv6 header",
            ipv6(other(59, [])).frame(),
            v6(59),
        ),
        row(
            "a short IPv6 header is missed before its version is read",
            syn().with(|ip| ip.version = Some(4)).frame().cut(53),
            malformed("ip6_short"),
        ),
        row(
            "a flow label is not judged",
            syn().with(|ip| ip.flow_label = 0xf_ffff).frame(),
            v6(6).ports(40_000, 443),
        ),
        row(
            "a hop limit of 0 is not judged",
            syn().with(|ip| ip.hop_limit = 0).frame(),
            v6(6).ports(40_000, 443),
        ),
    ];
    for version in (0..16).filter(|&version| version != 6) {
        rows.push(row(
            format!("IPv6 of version {version} is malformed"),
            syn().with(|ip| ip.version = Some(version)).frame(),
            malformed("ip6_version"),
        ));
    }
    rows
}

fn length_rows() -> Vec<Row> {
    let payload = |length: u16| syn().with(|ip| ip.payload_length = Some(length)).frame();
    let jumbo = || -> Frame {
        syn()
            .then(extension(HOP_BY_HOP, 0).with(|header| {
                // Jumbo payload option (RFC 2675 §2): 28 bytes.
                header.body = vec![0xc2, 4, 0, 0, 0, 28];
            }))
            .with(|ip| ip.payload_length = Some(0))
            .frame()
    };
    vec![
        row(
            "a payload length equal to what is there is true",
            payload(20),
            v6(6).ports(40_000, 443),
        ),
        row(
            "a payload length one byte beyond the frame is too long",
            payload(21),
            malformed("ip6_plen_long"),
        ),
        row(
            "the longest payload length is too long",
            payload(65_535),
            malformed("ip6_plen_long"),
        ),
        row(
            "the longest payload length without ports is too long",
            ipv6(icmp(128, 0))
                .with(|ip| ip.payload_length = Some(65_535))
                .frame(),
            malformed("ip6_plen_long"),
        ),
        row(
            "a payload length of 0 leaves no transport header",
            payload(0),
            v6(6).malformed("l4_short"),
        ),
        row(
            "a payload length of 0 is enough without ports",
            ipv6(other(50, BAIT))
                .with(|ip| ip.payload_length = Some(0))
                .frame(),
            v6(50),
        ),
        row("a jumbogram is malformed", jumbo(), malformed("ip6_jumbo")),
        row(
            "a payload length of 0 before hop-by-hop options that are not there is a jumbogram",
            ipv6(other(HOP_BY_HOP, [])).frame(),
            malformed("ip6_jumbo"),
        ),
        row(
            "a payload length of 0 before a routing header is no jumbogram",
            ipv6(other(43, BAIT))
                .with(|ip| ip.payload_length = Some(0))
                .frame(),
            v6(43).malformed("ip6_ext_short"),
        ),
        row(
            "a jumbo option in a packet with a length is an option like any other",
            syn()
                .then(extension(HOP_BY_HOP, 0).with(|header| {
                    header.body = vec![0xc2, 4, 0, 1, 0, 0];
                }))
                .frame(),
            v6(6).ports(40_000, 443),
        ),
        row(
            "a jumbo frame of IPv6 has ports",
            ipv6(udp(40_000, 53).with(|udp| udp.data = vec![0; 8900])).frame(),
            v6(17).ports(40_000, 53),
        ),
    ]
}

fn padding_rows() -> Vec<Row> {
    let bait = |protocol: u8| ipv6(other(protocol, [])).frame().padded(&BAIT);
    vec![
        row(
            "padding after IPv6 that looks like TCP ports is none",
            bait(6),
            v6(6).malformed("l4_short"),
        ),
        row(
            "padding after IPv6 that looks like UDP ports is none",
            bait(17),
            v6(17).malformed("l4_short"),
        ),
        row(
            "padding after IPv6 that looks like SCTP ports is none",
            bait(132),
            v6(132).malformed("l4_short"),
        ),
        row(
            "padding after IPv6 is no extension header",
            bait(60),
            v6(60).malformed("ip6_ext_short"),
        ),
        row(
            "padding after IPv6 does not complete a transport header",
            ipv6(other(6, &BAIT[..19])).frame().padded(&BAIT[19..]),
            v6(6).malformed("l4_short"),
        ),
        row(
            "padding after IPv6 does not lengthen a UDP datagram",
            ipv6(udp(40_000, 53).with(|udp| udp.data = vec![0; 12]))
                .with(|ip| ip.payload_length = Some(19))
                .frame(),
            v6(17).malformed("udp_len_long"),
        ),
        row(
            "padding after a whole packet of IPv6 is not looked at",
            ipv6(udp(40_000, 53)).frame().padded(&BAIT),
            v6(17).ports(40_000, 53),
        ),
    ]
}

fn terminal_rows() -> Vec<Row> {
    let mut rows: Vec<_> = [
        (1, "ICMP"),
        (2, "IGMP"),
        (4, "IPv4 in IPv6"),
        (41, "IPv6 in IPv6"),
        (47, "GRE"),
        (50, "ESP"),
        (58, "ICMPv6"),
        (59, "no next header"),
        (89, "OSPF"),
        (DCCP, "DCCP"),
        (135, "mobility"),
        (UDP_LITE, "UDP-Lite"),
        (139, "HIP"),
        (140, "shim6"),
        (253, "protocol 253"),
        (254, "protocol 254"),
        (255, "protocol 255"),
    ]
    .into_iter()
    .map(|(protocol, what)| {
        row(
            format!("{what} in IPv6 has no ports to dispatch on"),
            ipv6(other(protocol, BAIT)).frame(),
            v6(protocol),
        )
    })
    .collect();
    // Walked like an extension header, these would have TCP ports behind them.
    for protocol in [50, 59, 135, 139, 140, 253, 254] {
        let skipped = [&[6, 0, 0, 0, 0, 0, 0, 0][..], &BAIT].concat();
        rows.push(row(
            format!("next header {protocol} is not walked"),
            ipv6(other(protocol, skipped)).frame(),
            v6(protocol),
        ));
    }
    rows
}
