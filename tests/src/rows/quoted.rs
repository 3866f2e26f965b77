//! Rule 15: the packets that ICMP errors quote.

use super::{BAIT, Row, malformed, row, v4, v6};
use crate::{
    answer::Answer,
    frames::{
        Icmp, Ipv4, VLAN, With as _, extension, first_fragment, fragment, icmp, ipv4, ipv6, other,
        sctp, tcp, udp,
    },
};

pub(super) fn rows() -> Vec<Row> {
    [
        v4_type_rows(),
        v6_type_rows(),
        v4_rows(),
        v6_rows(),
        outer_rows(),
    ]
    .concat()
}

fn about(kind: u8, quoted: Vec<u8>) -> Icmp {
    icmp(kind, 0).with(|icmp| icmp.body = quoted)
}

fn quoting(row: Row, quoted: Answer) -> Row {
    Row {
        quoted: Some(quoted),
        ..row
    }
}

fn v4_type_rows() -> Vec<Row> {
    let quoted = ipv4(tcp(443, 40_000)).bytes();
    (0..=255)
        .filter(|kind| *kind <= 20 || *kind >= 250)
        .map(|kind| {
            let frame = ipv4(about(kind, quoted.clone())).frame();
            if matches!(kind, 3 | 4 | 5 | 11 | 12) {
                let row = row(format!("ICMP of type {kind} quotes a packet"), frame, v4(1));
                quoting(row, v4(6).ports(443, 40_000))
            } else {
                row(format!("ICMP of type {kind} quotes nothing"), frame, v4(1))
            }
        })
        .collect()
}

fn v6_type_rows() -> Vec<Row> {
    let quoted = ipv6(tcp(443, 40_000)).bytes();
    [
        0, 1, 2, 3, 4, 5, 100, 127, 128, 129, 133, 134, 135, 136, 137, 255,
    ]
    .into_iter()
    .map(|kind| {
        let frame = ipv6(about(kind, quoted.clone())).frame();
        if matches!(kind, 1..=4) {
            let row = row(
                format!("ICMPv6 of type {kind} quotes a packet"),
                frame,
                v6(58),
            );
            quoting(row, v6(6).ports(443, 40_000))
        } else {
            row(
                format!("ICMPv6 of type {kind} quotes nothing"),
                frame,
                v6(58),
            )
        }
    })
    .collect()
}

fn v4_rows() -> Vec<Row> {
    let error = |name: &str, quoted: &[u8], expected: Answer| {
        quoting(
            row(name, ipv4(about(3, quoted.to_vec())).frame(), v4(1)),
            expected,
        )
    };
    let long = ipv4(udp(443, 40_000).with(|udp| udp.data = vec![0; 1400])).bytes();
    let options = ipv4(udp(443, 40_000))
        .with(|ip| ip.options = vec![1; 40])
        .bytes();
    vec![
        error(
            "a quoted packet may be cut off after 8 bytes",
            &long[..28],
            v4(17).ports(443, 40_000),
        ),
        error(
            "a quoted packet cut off after 7 bytes has no ports",
            &long[..27],
            v4(17).malformed("l4_short"),
        ),
        error(
            "8 bytes of quoted TCP have ports",
            &ipv4(tcp(443, 40_000)).bytes()[..28],
            v4(6).ports(443, 40_000),
        ),
        error(
            "8 bytes of quoted SCTP have ports",
            &ipv4(sctp(443, 40_000)).bytes()[..28],
            v4(132).ports(443, 40_000),
        ),
        error(
            "the data offset of quoted TCP is not judged",
            &ipv4(tcp(443, 40_000).with(|tcp| tcp.data_offset = Some(0))).bytes(),
            v4(6).ports(443, 40_000),
        ),
        error(
            "the length of quoted UDP is not judged",
            &ipv4(udp(443, 40_000).with(|udp| udp.length = Some(0))).bytes(),
            v4(17).ports(443, 40_000),
        ),
        error(
            "the total length of a quoted packet is not judged",
            &ipv4(udp(443, 40_000))
                .with(|ip| ip.total_length = Some(0))
                .bytes(),
            v4(17).ports(443, 40_000),
        ),
        error(
            "quoted options are skipped",
            &options,
            v4(17).ports(443, 40_000),
        ),
        error(
            "quoted options that are cut off are malformed",
            &options[..59],
            malformed("ip4_opts_short"),
        ),
        error("nothing quoted is malformed", &[], malformed("ip4_short")),
        error(
            "nineteen quoted bytes are malformed",
            &long[..19],
            malformed("ip4_short"),
        ),
        error(
            "a quoted version has to be right",
            &ipv6(udp(443, 40_000)).bytes(),
            malformed("ip4_version"),
        ),
        error(
            "a quoted header length has to be right",
            &ipv4(udp(443, 40_000)).with(|ip| ip.ihl = Some(4)).bytes(),
            malformed("ip4_ihl"),
        ),
        error(
            "a quoted later fragment has no ports",
            &ipv4(other(17, BAIT)).with(|ip| ip.offset = 3).bytes(),
            v4(17).later(),
        ),
        error(
            "a quoted first fragment has ports",
            &ipv4(udp(443, 40_000))
                .with(|ip| ip.flags = Ipv4::MORE_FRAGMENTS)
                .bytes(),
            v4(17).first().ports(443, 40_000),
        ),
        error("quoted ICMP has no ports", &ipv4(icmp(8, 0)).bytes(), v4(1)),
    ]
}

fn v6_rows() -> Vec<Row> {
    let error = |name: &str, quoted: &[u8], expected: Answer| {
        quoting(
            row(name, ipv6(about(1, quoted.to_vec())).frame(), v6(58)),
            expected,
        )
    };
    let long = ipv6(udp(443, 40_000).with(|udp| udp.data = vec![0; 1200])).bytes();
    vec![
        error(
            "a quoted IPv6 packet may be cut off after 8 bytes",
            &long[..48],
            v6(17).ports(443, 40_000),
        ),
        error(
            "a quoted IPv6 packet cut off after 7 bytes has no ports",
            &long[..47],
            v6(17).malformed("l4_short"),
        ),
        error(
            "thirty-nine quoted bytes are malformed",
            &long[..39],
            malformed("ip6_short"),
        ),
        error(
            "a quoted IPv6 version has to be right",
            &ipv4(udp(443, 40_000))
                .with(|ip| ip.options = vec![1; 40])
                .bytes(),
            malformed("ip6_version"),
        ),
        error(
            "quoted extension headers are walked",
            &ipv6(udp(443, 40_000)).then(extension(60, 1)).bytes(),
            v6(17).ports(443, 40_000),
        ),
        error(
            "a quoted extension header that is cut off is malformed",
            &ipv6(udp(443, 40_000)).then(extension(60, 1)).bytes()[..55],
            v6(60).malformed("ip6_ext_short"),
        ),
        error(
            "nine quoted extension headers are too many",
            &(0..9)
                .fold(ipv6(udp(443, 40_000)), |ip, _| ip.then(extension(60, 0)))
                .bytes(),
            v6(60).malformed("ip6_ext_limit"),
        ),
        error(
            "the payload length of a quoted packet is not judged",
            &ipv6(udp(443, 40_000))
                .then(extension(0, 0))
                .with(|ip| ip.payload_length = Some(0))
                .bytes(),
            v6(17).ports(443, 40_000),
        ),
        error(
            "a quoted later fragment of IPv6 has no ports",
            &ipv6(other(17, BAIT)).then(fragment(2, true)).bytes(),
            v6(17).later(),
        ),
        error(
            "a quoted first fragment of IPv6 has ports",
            &ipv6(udp(443, 40_000)).then(first_fragment()).bytes(),
            v6(17).first().ports(443, 40_000),
        ),
    ]
}

fn outer_rows() -> Vec<Row> {
    let quoted = || ipv4(udp(443, 40_000)).bytes();
    let quoted_v6 = || ipv6(udp(443, 40_000)).bytes();
    vec![
        quoting(
            row(
                "padding after an ICMP error completes no quoted header",
                ipv4(about(3, ipv4(other(17, [])).bytes()))
                    .frame()
                    .padded(&BAIT),
                v4(1),
            ),
            v4(17).malformed("l4_short"),
        ),
        quoting(
            row(
                "padding after an ICMPv6 error completes no quoted header",
                ipv6(about(1, ipv6(other(17, [])).bytes()))
                    .frame()
                    .padded(&BAIT),
                v6(58),
            ),
            v6(17).malformed("l4_short"),
        ),
        quoting(
            row(
                "padding after an ICMP error is no quoted packet",
                ipv4(about(3, Vec::new())).frame().padded(&quoted()),
                v4(1),
            ),
            malformed("ip4_short"),
        ),
        row(
            "padding after an empty packet of ICMP is no error",
            ipv4(other(1, []))
                .frame()
                .padded(&[&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted()].concat()),
            v4(1),
        ),
        quoting(
            row(
                "an ICMP error behind tags and options quotes a packet",
                ipv4(about(11, quoted()))
                    .with(|ip| ip.options = vec![1; 8])
                    .frame()
                    .tag(VLAN, 7)
                    .tag(VLAN, 8),
                v4(1).vlans(&[7, 8]),
            ),
            v4(17).ports(443, 40_000),
        ),
        quoting(
            row(
                "an ICMPv6 error behind extension headers quotes a packet",
                ipv6(about(3, quoted_v6()))
                    .then(extension(0, 0))
                    .then(extension(60, 1))
                    .frame(),
                v6(58),
            ),
            v6(17).ports(443, 40_000),
        ),
        row(
            "a later fragment of ICMP quotes nothing",
            ipv4(about(3, quoted())).with(|ip| ip.offset = 1).frame(),
            v4(1).later(),
        ),
        quoting(
            row(
                "a first fragment of an ICMP error quotes a packet",
                ipv4(about(3, quoted()))
                    .with(|ip| ip.flags = Ipv4::MORE_FRAGMENTS)
                    .frame(),
                v4(1).first(),
            ),
            v4(17).ports(443, 40_000),
        ),
        row(
            "ICMP in IPv6 quotes nothing",
            ipv6(other(
                1,
                [&[3, 0, 0, 0, 0, 0, 0, 0][..], &quoted()].concat(),
            ))
            .frame(),
            v6(1),
        ),
        row(
            "ICMPv6 in IPv4 quotes nothing",
            ipv4(other(
                58,
                [&[1, 0, 0, 0, 0, 0, 0, 0][..], &quoted_v6()].concat(),
            ))
            .frame(),
            v4(58),
        ),
    ]
}
