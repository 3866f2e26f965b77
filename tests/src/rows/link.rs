//! Rules 1 to 3: Ethernet and VLAN tags.

use super::{BAIT, Row, malformed, non_ip, row, v4, v6};
use crate::frames::{
    ARP, Frame, IPV4, IPV6, SERVICE_VLAN, VLAN, With as _, ethernet, ipv4, ipv6, llc, tcp, udp,
};

pub(super) fn rows() -> Vec<Row> {
    [ethernet_rows(), tag_rows(), depth_rows()].concat()
}

fn web() -> Frame {
    ipv4(tcp(40_000, 443)).frame()
}

fn ethernet_rows() -> Vec<Row> {
    let mut rows = vec![
        row("no bytes are no frame", [], malformed("eth_short")),
        row(
            "thirteen bytes are no frame",
            web().cut(13),
            malformed("eth_short"),
        ),
        row(
            "fourteen bytes of IPv4 lack its header",
            web().cut(14),
            malformed("ip4_short"),
        ),
        row(
            "fourteen bytes of IPv6 lack its header",
            ethernet(IPV6, []),
            malformed("ip6_short"),
        ),
        row(
            "fourteen bytes of another EtherType are not IP",
            ethernet(ARP, []),
            non_ip(),
        ),
        row("an IPv4 frame has ports", web(), v4(6).ports(40_000, 443)),
        row(
            "an IPv6 frame has ports",
            ipv6(tcp(40_000, 443)).frame(),
            v6(6).ports(40_000, 443),
        ),
        row(
            "a broadcast frame is read like any other",
            web().with(|frame| frame.destination = [0xff; 6]),
            v4(6).ports(40_000, 443),
        ),
        row(
            "a spanning tree message, whose type is a length, is not IP",
            llc(BAIT),
            non_ip(),
        ),
    ];
    for (ether_type, what) in [
        (ARP, "ARP"),
        (0x0000, "EtherType 0"),
        (0x0600, "the smallest EtherType"),
        (0x0801, "EtherType 0x0801"),
        (0x0008, "IPv4 in the wrong byte order"),
        (0xdd86, "IPv6 in the wrong byte order"),
        (0x8847, "MPLS"),
        (0x8848, "multicast MPLS"),
        (0x8863, "PPPoE discovery"),
        (0x8864, "PPPoE"),
        (0x88e7, "802.1ah"),
        (0x88cc, "LLDP"),
        (0x88e5, "MACsec"),
        (0x9100, "the old service tag 0x9100"),
        (0x9200, "the old service tag 0x9200"),
        (0x9300, "the old service tag 0x9300"),
        (0x8101, "EtherType 0x8101"),
        (0x80ff, "EtherType 0x80ff"),
        (0x88a7, "EtherType 0x88a7"),
        (0x88a9, "EtherType 0x88a9"),
        (0xffff, "EtherType 0xffff"),
    ] {
        let packet = ipv4(tcp(40_000, 443)).bytes();
        rows.push(row(
            format!("{what} is not IP"),
            ethernet(ether_type, packet),
            non_ip(),
        ));
    }
    rows
}

fn tag_rows() -> Vec<Row> {
    let v4_ports = || v4(6).ports(40_000, 443);
    let tagged = || web().tag(VLAN, 7);
    vec![
        row("one VLAN tag is read", tagged(), v4_ports().vlans(&[7])),
        row(
            "one service tag is read",
            web().tag(SERVICE_VLAN, 7),
            v4_ports().vlans(&[7]),
        ),
        row(
            "VLAN 0 is a tag",
            web().tag(VLAN, 0),
            v4_ports().vlans(&[0]),
        ),
        row(
            "VLAN 4095 is a tag",
            web().tag(VLAN, 4095),
            v4_ports().vlans(&[4095]),
        ),
        row(
            "priority and drop eligibility are no part of the VLAN",
            web().tag(VLAN, 0xf000 | 5),
            v4_ports().vlans(&[5]),
        ),
        row(
            "IPv6 behind a tag has ports",
            ipv6(udp(40_000, 53)).frame().tag(VLAN, 7),
            v6(17).ports(40_000, 53).vlans(&[7]),
        ),
        row(
            "ARP behind a tag is not IP",
            ethernet(ARP, BAIT).tag(VLAN, 7),
            non_ip().vlans(&[7]),
        ),
        row(
            "0x9100 behind a tag is no tag",
            ethernet(0x9100, web().tag(VLAN, 7).payload).tag(VLAN, 7),
            non_ip().vlans(&[7]),
        ),
        row(
            "a tag behind 0x9100 is not read",
            web().tag(0x9100, 1).tag(VLAN, 7),
            non_ip(),
        ),
        row(
            "a tag needs four bytes and has none",
            tagged().cut(14),
            malformed("vlan_short"),
        ),
        row(
            "a tag needs four bytes and has three",
            tagged().cut(17),
            malformed("vlan_short"),
        ),
        row(
            "a tag with four bytes is whole",
            tagged().cut(18),
            malformed("ip4_short").vlans(&[7]),
        ),
        row(
            "a tag with four bytes before ARP is whole",
            ethernet(ARP, []).tag(VLAN, 7),
            non_ip().vlans(&[7]),
        ),
    ]
}

fn depth_rows() -> Vec<Row> {
    let v4_ports = || v4(6).ports(40_000, 443);
    let two = || web().tag(SERVICE_VLAN, 7).tag(VLAN, 8);
    vec![
        row(
            "two tags are read, the outer one first",
            two(),
            v4_ports().vlans(&[7, 8]),
        ),
        row(
            "two VLAN tags are read",
            web().tag(VLAN, 7).tag(VLAN, 8),
            v4_ports().vlans(&[7, 8]),
        ),
        row(
            "a service tag inside of a VLAN tag is read",
            web().tag(VLAN, 7).tag(SERVICE_VLAN, 8),
            v4_ports().vlans(&[7, 8]),
        ),
        row(
            "two tags of VLAN 0 are two tags",
            web().tag(VLAN, 0).tag(VLAN, 0),
            v4_ports().vlans(&[0, 0]),
        ),
        row(
            "IPv6 behind two tags has ports",
            ipv6(udp(40_000, 53))
                .frame()
                .tag(SERVICE_VLAN, 7)
                .tag(VLAN, 8),
            v6(17).ports(40_000, 53).vlans(&[7, 8]),
        ),
        row(
            "a second tag needs four bytes and has none",
            two().cut(18),
            malformed("vlan_short").vlans(&[7]),
        ),
        row(
            "a second tag needs four bytes and has three",
            two().cut(21),
            malformed("vlan_short").vlans(&[7]),
        ),
        row(
            "a second tag with four bytes is whole",
            two().cut(22),
            malformed("ip4_short").vlans(&[7, 8]),
        ),
        row(
            "a third tag is too many",
            two().tag(VLAN, 9),
            malformed("vlan_depth").vlans(&[7, 8]),
        ),
        row(
            "a third service tag is too many",
            two().tag(SERVICE_VLAN, 9),
            malformed("vlan_depth").vlans(&[7, 8]),
        ),
        row(
            "a third tag of VLAN 0 is too many",
            web().tag(VLAN, 0).tag(VLAN, 0).tag(VLAN, 0),
            malformed("vlan_depth").vlans(&[0, 0]),
        ),
        row(
            "a third tag is too many before its bytes are missed",
            ethernet(VLAN, []).tag(VLAN, 7).tag(VLAN, 8),
            malformed("vlan_depth").vlans(&[7, 8]),
        ),
        row(
            "a third tag before ARP is too many",
            ethernet(ARP, BAIT).tag(VLAN, 7).tag(VLAN, 8).tag(VLAN, 9),
            malformed("vlan_depth").vlans(&[7, 8]),
        ),
        row(
            "0x9100 behind two tags is no third tag",
            ethernet(0x9100, BAIT).tag(VLAN, 7).tag(VLAN, 8),
            non_ip().vlans(&[7, 8]),
        ),
        row(
            "IPv4 in the type of a tag of a tagged LLC frame is not guessed",
            ethernet(0x0040, ipv4(tcp(40_000, 443)).bytes()).tag(VLAN, IPV4),
            non_ip().vlans(&[0x800]),
        ),
    ]
}
