//! Rules 13 and 14: TCP, UDP and SCTP.

use super::{BAIT, Row, row, v4, v6};
use crate::{
    answer::Answer,
    frames::{Frame, Payload, Tcp, With as _, ipv4, ipv6, other, sctp, tcp, udp},
};

pub(super) fn rows() -> Vec<Row> {
    let v4_frame: fn(Payload) -> Frame = |payload| ipv4(payload).frame();
    let v6_frame: fn(Payload) -> Frame = |payload| ipv6(payload).frame();
    [
        ("IPv4", v4_frame, v4 as fn(u8) -> Answer),
        ("IPv6", v6_frame, v6),
    ]
    .into_iter()
    .flat_map(|(name, frame, answer)| {
        let rows = [
            port_rows(frame, answer),
            short_rows(frame, answer),
            lie_rows(frame, answer),
        ];
        rows.concat().into_iter().map(move |row| Row {
            name: format!("{} ({name})", row.name),
            ..row
        })
    })
    .collect()
}

fn port_rows(frame: fn(Payload) -> Frame, answer: fn(u8) -> Answer) -> Vec<Row> {
    let mut rows = Vec::new();
    for (source, destination) in [
        (0, 0),
        (1, 65_535),
        (65_535, 1),
        (0x1234, 0x5678),
        (443, 40_000),
    ] {
        rows.extend([
            row(
                format!("TCP from {source} to {destination}"),
                frame(tcp(source, destination).into()),
                answer(6).ports(source, destination),
            ),
            row(
                format!("UDP from {source} to {destination}"),
                frame(udp(source, destination).into()),
                answer(17).ports(source, destination),
            ),
            row(
                format!("SCTP from {source} to {destination}"),
                frame(sctp(source, destination).into()),
                answer(132).ports(source, destination),
            ),
        ]);
    }
    rows.extend([
        row(
            "TCP with options and data has ports",
            frame(
                tcp(40_000, 443)
                    .with(|tcp| {
                        tcp.flags = Tcp::ACK;
                        tcp.options = vec![1; 40];
                        tcp.data = vec![7; 100];
                    })
                    .into(),
            ),
            answer(6).ports(40_000, 443),
        ),
        row(
            "UDP with data has ports",
            frame(udp(40_000, 53).with(|udp| udp.data = vec![7; 100]).into()),
            answer(17).ports(40_000, 53),
        ),
        row(
            "TCP flags and a wrong checksum are not judged",
            frame(
                tcp(40_000, 443)
                    .with(|tcp| (tcp.flags, tcp.checksum) = (0, Some(1)))
                    .into(),
            ),
            answer(6).ports(40_000, 443),
        ),
        row(
            "UDP without a checksum has ports",
            frame(udp(40_000, 53).with(|udp| udp.checksum = Some(0)).into()),
            answer(17).ports(40_000, 53),
        ),
    ]);
    rows
}

fn short_rows(frame: fn(Payload) -> Frame, answer: fn(u8) -> Answer) -> Vec<Row> {
    let mut rows = Vec::new();
    for (protocol, name, header) in [(6, "TCP", 20), (17, "UDP", 8), (132, "SCTP", 12)] {
        for bytes in [0, 1, 3, 4, 7, 8, 11, 12, 13, 19, 20, 21] {
            let start: Vec<u8> = [&BAIT[..4], &[0, 8], &BAIT[6..]].concat();
            let payload = other(protocol, start.get(..bytes).unwrap_or_default());
            let expected = if bytes < header {
                answer(protocol).malformed("l4_short")
            } else {
                answer(protocol).ports(40_000, 443)
            };
            rows.push(row(
                format!("{bytes} bytes of {name}"),
                frame(payload),
                expected,
            ));
        }
    }
    rows
}

fn lie_rows(frame: fn(Payload) -> Frame, answer: fn(u8) -> Answer) -> Vec<Row> {
    let mut rows = Vec::new();
    let segment = |data_offset: u8, data: usize| {
        frame(
            tcp(40_000, 443)
                .with(|tcp| (tcp.data_offset, tcp.data) = (Some(data_offset), vec![0; data]))
                .into(),
        )
    };
    for data_offset in 0..=15_u8 {
        let beyond = usize::from(data_offset).saturating_sub(5) * 4;
        if data_offset < 5 {
            rows.push(row(
                format!("a TCP data offset of {data_offset} is too small"),
                segment(data_offset, 60),
                answer(6).malformed("tcp_doff"),
            ));
            continue;
        }
        rows.push(row(
            format!("a TCP data offset of {data_offset} that ends the packet is true"),
            segment(data_offset, beyond),
            answer(6).ports(40_000, 443),
        ));
        if data_offset > 5 {
            rows.push(row(
                format!(
                    "a TCP data offset of {data_offset} one byte beyond the packet is too long"
                ),
                segment(data_offset, beyond - 1),
                answer(6).malformed("tcp_doff_long"),
            ));
        }
    }
    let datagram = |length: u16| {
        let udp = udp(40_000, 53).with(|udp| (udp.length, udp.data) = (Some(length), vec![0; 12]));
        frame(udp.into())
    };
    for length in [0, 1, 7] {
        rows.push(row(
            format!("a UDP length of {length} is too small"),
            datagram(length),
            answer(17).malformed("udp_len_small"),
        ));
    }
    for length in [8, 9, 19, 20] {
        rows.push(row(
            format!("a UDP length of {length} in a packet of 20 is true"),
            datagram(length),
            answer(17).ports(40_000, 53),
        ));
    }
    for length in [21, 256, 65_535] {
        rows.push(row(
            format!("a UDP length of {length} in a packet of 20 is too long"),
            datagram(length),
            answer(17).malformed("udp_len_long"),
        ));
    }
    rows.push(row(
        "a TCP data offset beyond the packet is not made true by padding",
        segment(6, 0).padded(&[0; 4]),
        answer(6).malformed("tcp_doff_long"),
    ));
    rows
}
