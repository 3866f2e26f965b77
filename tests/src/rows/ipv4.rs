//! Rules 4 to 8: the IPv4 header.

use super::{BAIT, Row, malformed, row, v4};
use crate::frames::{DCCP, Ipv4, Tcp, UDP_LITE, With as _, icmp, ipv4, other, tcp, udp};

pub(super) fn rows() -> Vec<Row> {
    [
        header_rows(),
        option_rows(),
        length_rows(),
        padding_rows(),
        terminal_rows(),
    ]
    .concat()
}

fn syn() -> Ipv4 {
    ipv4(tcp(40_000, 443))
}

/// An IPv4 packet of TCP with `bytes` of options that do nothing.
fn with_options(bytes: usize) -> Ipv4 {
    syn().with(|ip| ip.options = vec![1; bytes])
}

fn header_rows() -> Vec<Row> {
    let ports = || v4(6).ports(40_000, 443);
    let mut rows = vec![
        row(
            "nineteen bytes are no IPv4 header",
            syn().frame().cut(33),
            malformed("ip4_short"),
        ),
        row(
            "twenty bytes are an IPv4 header",
            ipv4(other(1, [])).frame(),
            v4(1),
        ),
        row(
            "a short header is missed before its version is read",
            syn().with(|ip| ip.version = Some(6)).frame().cut(33),
            malformed("ip4_short"),
        ),
        row(
            "the header checksum is not judged",
            syn().with(|ip| ip.checksum = Some(0xdead)).frame(),
            ports(),
        ),
        row(
            "a TTL of 0 is not judged",
            syn().with(|ip| ip.ttl = 0).frame(),
            ports(),
        ),
        row(
            "DF is ignored",
            syn().with(|ip| ip.flags = Ipv4::DO_NOT_FRAGMENT).frame(),
            ports(),
        ),
        row(
            "the reserved bit is ignored",
            syn().with(|ip| ip.flags = Ipv4::RESERVED).frame(),
            ports(),
        ),
    ];
    for version in (0..16).filter(|&version| version != 4) {
        rows.push(row(
            format!("IPv4 of version {version} is malformed"),
            syn().with(|ip| ip.version = Some(version)).frame(),
            malformed("ip4_version"),
        ));
    }
    rows
}

fn option_rows() -> Vec<Row> {
    let ports = || v4(6).ports(40_000, 443);
    let mut rows = vec![
        row(
            "options are cut off one byte before their end",
            with_options(4).frame().cut(14 + 23),
            malformed("ip4_opts_short"),
        ),
        row(
            "options that end with the frame are whole",
            ipv4(other(47, []))
                .with(|ip| ip.options = vec![1; 4])
                .frame(),
            v4(47),
        ),
        row(
            "sixty bytes of header are missed before lengths are read",
            syn()
                .with(|ip| (ip.ihl, ip.total_length) = (Some(15), Some(7)))
                .frame(),
            malformed("ip4_opts_short"),
        ),
        row(
            "a source route does not change the destination",
            syn()
                .with(|ip| {
                    ip.options = vec![0x83, 7, 4, 198, 51, 100, 7, 0];
                })
                .frame(),
            ports(),
        ),
        row(
            "options whose lengths lie are not interpreted",
            syn()
                .with(|ip| ip.options = vec![0x44, 0xff, 0x07, 0x00])
                .frame(),
            ports(),
        ),
        row(
            "an end-of-options byte does not end the header",
            syn()
                .with(|ip| ip.options = [&[0; 4][..], &BAIT[..8]].concat())
                .frame(),
            ports(),
        ),
    ];
    for ihl in 0..5 {
        rows.push(row(
            format!("a header length of {ihl} words is too small"),
            syn().with(|ip| ip.ihl = Some(ihl)).frame(),
            malformed("ip4_ihl"),
        ));
    }
    for words in 1..=10 {
        rows.push(row(
            format!("{words} words of options are skipped"),
            with_options(words * 4).frame(),
            ports(),
        ));
    }
    // The same bytes, read with another header length, are other ports.
    rows.push(row(
        "ports follow the header length, not the place where they usually are",
        syn()
            .with(|ip| {
                ip.ihl = Some(6);
                ip.payload = other(
                    6,
                    [&22_u16.to_be_bytes()[..], &[0, 80], &BAIT[..20]].concat(),
                );
            })
            .frame(),
        v4(6).ports(40_000, 443),
    ));
    rows
}

fn length_rows() -> Vec<Row> {
    let total = |length: u16| syn().with(|ip| ip.total_length = Some(length)).frame();
    vec![
        row(
            "a total length of 0 is too small",
            total(0),
            malformed("ip4_totlen_small"),
        ),
        row(
            "a total length one byte less than the header is too small",
            total(19),
            malformed("ip4_totlen_small"),
        ),
        row(
            "a total length equal to the header leaves no transport header",
            total(20),
            v4(6).malformed("l4_short"),
        ),
        row(
            "a total length equal to the header is enough without ports",
            ipv4(other(50, BAIT))
                .with(|ip| ip.total_length = Some(20))
                .frame(),
            v4(50),
        ),
        row(
            "a total length that ends inside the options is too small",
            with_options(8)
                .with(|ip| ip.total_length = Some(27))
                .frame(),
            malformed("ip4_totlen_small"),
        ),
        row(
            "a total length that ends with the options is not too small",
            with_options(8)
                .with(|ip| ip.total_length = Some(28))
                .frame(),
            v4(6).malformed("l4_short"),
        ),
        row(
            "a total length equal to what is there is true",
            total(40),
            v4(6).ports(40_000, 443),
        ),
        row(
            "a total length one byte beyond the frame is too long",
            total(41),
            malformed("ip4_totlen_long"),
        ),
        row(
            "the longest total length is too long",
            total(65_535),
            malformed("ip4_totlen_long"),
        ),
        row(
            "the longest total length without ports is too long",
            ipv4(icmp(8, 0))
                .with(|ip| ip.total_length = Some(65_535))
                .frame(),
            malformed("ip4_totlen_long"),
        ),
        row(
            "a total length of 0, as segmentation offload leaves it, is malformed",
            ipv4(tcp(40_000, 443).with(|tcp| tcp.data = vec![0; 4000]))
                .with(|ip| ip.total_length = Some(0))
                .frame(),
            malformed("ip4_totlen_small"),
        ),
        row(
            "a jumbo frame has ports",
            ipv4(tcp(40_000, 443).with(|tcp| (tcp.flags, tcp.data) = (Tcp::ACK, vec![0; 8940])))
                .frame(),
            v4(6).ports(40_000, 443),
        ),
    ]
}

fn padding_rows() -> Vec<Row> {
    let cut_to = |length: u16| {
        ipv4(udp(40_000, 53).with(|udp| udp.data = vec![0; 12]))
            .with(|ip| ip.total_length = Some(length))
            .frame()
    };
    vec![
        row(
            "padding up to the smallest Ethernet frame is not looked at",
            ipv4(udp(40_000, 53)).frame().padded(&[0; 18]),
            v4(17).ports(40_000, 53),
        ),
        row(
            "padding that looks like TCP ports is none",
            ipv4(other(6, [])).frame().padded(&BAIT),
            v4(6).malformed("l4_short"),
        ),
        row(
            "padding that looks like UDP ports is none",
            ipv4(other(17, [])).frame().padded(&BAIT),
            v4(17).malformed("l4_short"),
        ),
        row(
            "padding that looks like SCTP ports is none",
            ipv4(other(132, [])).frame().padded(&BAIT),
            v4(132).malformed("l4_short"),
        ),
        row(
            "padding does not complete a transport header",
            ipv4(other(6, &BAIT[..19])).frame().padded(&BAIT[19..]),
            v4(6).malformed("l4_short"),
        ),
        row(
            "padding does not lengthen a UDP datagram",
            cut_to(39),
            v4(17).malformed("udp_len_long"),
        ),
        row(
            "a UDP datagram that is whole ignores padding",
            cut_to(40),
            v4(17).ports(40_000, 53),
        ),
    ]
}

fn terminal_rows() -> Vec<Row> {
    let mut rows: Vec<_> = [
        (0, "hop-by-hop options"),
        (1, "ICMP"),
        (2, "IGMP"),
        (4, "IPv4 in IPv4"),
        (41, "IPv6 in IPv4"),
        (43, "an IPv6 routing header"),
        (44, "an IPv6 fragment header"),
        (47, "GRE"),
        (50, "ESP"),
        (51, "AH"),
        (58, "ICMPv6"),
        (59, "no next header"),
        (60, "IPv6 destination options"),
        (89, "OSPF"),
        (DCCP, "DCCP"),
        (112, "VRRP"),
        (UDP_LITE, "UDP-Lite"),
        (137, "MPLS in IP"),
        (255, "protocol 255"),
    ]
    .into_iter()
    .map(|(protocol, what)| {
        row(
            format!("{what} in IPv4 has no ports to dispatch on"),
            ipv4(other(protocol, BAIT)).frame(),
            v4(protocol),
        )
    })
    .collect();
    // An authentication header of 12 bytes with TCP behind it, as IPv6 would skip it.
    let authenticated = [&[6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1][..], &BAIT].concat();
    rows.push(row(
        "AH is not skipped in IPv4",
        ipv4(other(51, authenticated)).frame(),
        v4(51),
    ));
    rows.push(row(
        "the ports of a tunnelled packet are not the tunnel's",
        ipv4(other(4, ipv4(tcp(40_000, 443)).bytes())).frame(),
        v4(4),
    ));
    rows
}
