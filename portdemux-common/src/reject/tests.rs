use proptest::prelude::*;

use super::*;
use crate::{
    entry::Entry,
    ids::Generation,
    parse,
    wire::{ANY_MAC, mac_word},
};

const TO: [u8; 6] = [2, 0, 0, 0, 0, 2];
const FROM: [u8; 6] = [2, 0, 0, 0, 0, 1];
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// A packet of either version, with every field open to a change.
#[derive(Clone)]
struct Request {
    macs: [[u8; 6]; 2],
    tags: Vec<[u8; 4]>,
    source: Vec<u8>,
    destination: Vec<u8>,
    protocol: u8,
    /// IPv4: options. IPv6: extension headers, the first of type 60.
    between: Vec<u8>,
    more_fragments: bool,
    payload: Vec<u8>,
    padding: usize,
}

fn v4(protocol: u8, payload: Vec<u8>) -> Request {
    Request {
        macs: [TO, FROM],
        tags: Vec::new(),
        source: vec![192, 0, 2, 1],
        destination: vec![192, 0, 2, 2],
        protocol,
        between: Vec::new(),
        more_fragments: false,
        payload,
        padding: 0,
    }
}

fn v6(protocol: u8, payload: Vec<u8>) -> Request {
    let address = |last| [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[last]].concat();
    Request {
        source: address(1),
        destination: address(2),
        ..v4(protocol, payload)
    }
}

fn tcp(flags: u8, data: usize) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0x01, 0xbb];
    segment.extend(1_000_u32.to_be_bytes());
    segment.extend(7_777_u32.to_be_bytes());
    segment.extend([0x60, flags, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
    segment.extend(vec![0xab; data]);
    segment
}

fn udp(data: usize) -> Vec<u8> {
    let length = u16::try_from(8 + data).unwrap().to_be_bytes();
    let mut datagram = vec![0x9c, 0x40, 0, 53, length[0], length[1], 0, 0];
    datagram.extend((0..data).map(|slot| u8::try_from(slot % 251).unwrap()));
    datagram
}

fn sctp(chunk: u8) -> Vec<u8> {
    [&[0x9c, 0x40, 0, 80][..], &[0; 8], &[chunk, 0, 0, 4]].concat()
}

impl Request {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn frame(&self) -> Vec<u8> {
        let is_v4 = self.source.len() == 4;
        let mut frame = self.macs.concat();
        frame.extend(self.tags.concat());
        let length = self.between.len() + self.payload.len();
        if is_v4 {
            frame.extend([
                8,
                0,
                0x45 + u8::try_from(self.between.len() / 4).unwrap(),
                0,
            ]);
            frame.extend(u16::try_from(20 + length).unwrap().to_be_bytes());
            let fragment = if self.more_fragments { 0x20 } else { 0 };
            frame.extend([0, 1, fragment, 0, 33, self.protocol, 0, 0]);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            let fragment = if self.more_fragments { 8 } else { 0 };
            let length = u16::try_from(length + fragment).unwrap();
            frame.extend(length.to_be_bytes());
            let next = match (self.more_fragments, self.between.is_empty()) {
                (true, _) => 44,
                (false, true) => self.protocol,
                (false, false) => 60,
            };
            frame.extend([next, 33]);
        }
        frame.extend(&self.source);
        frame.extend(&self.destination);
        if !is_v4 && self.more_fragments {
            frame.extend([self.protocol, 0, 0, 1, 0, 0, 0, 9]);
        }
        frame.extend(&self.between);
        frame.extend(&self.payload);
        frame.extend(vec![0; self.padding]);
        frame
    }

    fn metadata(frame: &[u8]) -> Metadata {
        let parsed = parse::parse(frame);
        assert_eq!(parsed.malformed, None);
        let mut metadata =
            Metadata::new(&parsed, Entry::UNCLAIMED, Generation(1), frame.len() as u64);
        metadata.read(frame);
        metadata
    }

    fn kind(&self) -> ReplyKind {
        let frame = self.frame();
        ReplyKind::of(&Self::metadata(&frame), frame.as_slice(), ANY_MAC)
    }

    /// The whole frame that replies to it.
    fn reply(&self) -> Vec<u8> {
        let frame = self.frame();
        let metadata = Self::metadata(&frame);
        let kind = ReplyKind::of(&metadata, frame.as_slice(), ANY_MAC);
        assert_ne!(kind, ReplyKind::Silence);
        composed(&RejectReply::new(kind, &metadata, frame.as_slice()), &frame)
    }
}

fn composed(reply: &RejectReply, request: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; reply.length()];
    assert!(reply.compose(request, &mut frame));
    frame
}

/// The checksum of RFC 1071 §4.1, the way it is written there.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// The parts of a reply, all checksums checked: what lies before the IP header, the IP header, the rest.
fn taken_apart(reply: &[u8], network: usize) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let (link, packet) = reply.split_at(network);
    let is_v4 = packet[0] >> 4 == 4;
    let (ip, rest) = packet.split_at(if is_v4 { 20 } else { 40 });
    let (protocol, addresses, length) = if is_v4 {
        assert_eq!(sum(ip), 0xffff, "IPv4 header");
        (ip[9], &ip[12..], u16::from_be_bytes([ip[2], ip[3]]) - 20)
    } else {
        (ip[6], &ip[8..], u16::from_be_bytes([ip[4], ip[5]]))
    };
    assert_eq!(
        usize::from(length),
        rest.len(),
        "the length in the IP header"
    );
    let pseudo = if protocol == 1 {
        Vec::new()
    } else {
        [addresses, &length.to_be_bytes(), &[0, protocol]].concat()
    };
    assert_eq!(sum(&[&pseudo[..], rest].concat()), 0xffff, "checksum");
    (link.to_vec(), ip.to_vec(), rest.to_vec())
}

#[test]
fn what_is_never_answered_is_not() {
    for request in [v4, v6] {
        let syn = || request(TCP, tcp(2, 0));
        let silent = [
            ("a frame to a group", syn().with(|to| to.macs[0][0] |= 1)),
            ("a frame to all", syn().with(|to| to.macs[0] = [0xff; 6])),
            ("a frame from a group", syn().with(|to| to.macs[1][0] |= 1)),
            ("a reset", request(TCP, tcp(4, 0))),
            ("a reset that acknowledges", request(TCP, tcp(0x14, 0))),
            (
                "a first fragment of TCP",
                syn().with(|to| to.more_fragments = true),
            ),
            ("an ABORT", request(SCTP, sctp(6))),
            ("ICMP", request(1, vec![8, 0, 0, 0, 0, 0, 0, 0])),
            ("ICMPv6", request(58, vec![128, 0, 0, 0, 0, 0, 0, 0])),
            ("GRE", request(47, vec![0; 40])),
        ];
        for (what, request) in silent {
            assert_eq!(request.kind(), ReplyKind::Silence, "{what}");
        }
        assert_eq!(syn().kind(), ReplyKind::Reset);
        assert_eq!(request(UDP, udp(0)).kind(), ReplyKind::Unreachable);
        assert_eq!(request(SCTP, sctp(1)).kind(), ReplyKind::Unreachable);
        let first = request(UDP, udp(30)).with(|to| to.more_fragments = true);
        assert_eq!(first.kind(), ReplyKind::Unreachable);
    }
}

#[test]
fn only_a_packet_from_one_host_to_one_host_is_answered() {
    for (address, is_host) in [
        ([0, 0, 0, 0], false),
        ([127, 0, 0, 1], false),
        ([223, 255, 255, 254], true),
        ([224, 0, 0, 1], false),
        ([240, 0, 0, 1], false),
        ([255, 255, 255, 255], false),
        ([10, 0, 0, 1], true),
    ] {
        let source = v4(UDP, udp(1)).with(|to| to.source = address.to_vec());
        let destination = v4(UDP, udp(1)).with(|to| to.destination = address.to_vec());
        for request in [source, destination] {
            assert_eq!(request.kind() != ReplyKind::Silence, is_host, "{address:?}");
        }
    }
    for (address, is_host) in [
        ("::", false),
        ("::1", false),
        ("::2", true),
        ("1::1", true),
        ("ff02::1", false),
        ("ff0e::1", false),
        ("fe80::1", true),
        ("100::", true),
    ] {
        let bytes = address.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let source = v6(TCP, tcp(2, 0)).with(|to| to.source = bytes.to_vec());
        let destination = v6(TCP, tcp(2, 0)).with(|to| to.destination = bytes.to_vec());
        for request in [source, destination] {
            assert_eq!(request.kind() != ReplyKind::Silence, is_host, "{address}");
        }
    }
}

#[test]
fn a_packet_is_answered_only_if_its_headers_can_be_written_over() {
    for (request, needed) in [
        (v4(TCP, tcp(2, 30)), 14 + 20 + 20),
        (v6(TCP, tcp(2, 30)), 14 + 40 + 20),
        (v4(UDP, udp(30)), 14 + 20 + 8),
        (v6(UDP, udp(30)), 14 + 40 + 8),
    ] {
        let frame = request.frame();
        let metadata = Request::metadata(&frame);
        for length in 0..frame.len() {
            let kind = ReplyKind::of(&metadata, &frame[..length], ANY_MAC);
            assert_eq!(kind != ReplyKind::Silence, length >= needed, "{length}");
        }
    }
}

#[test]
fn a_reset_says_what_rfc_9293_asks_of_it() {
    const SYN_FIN: u8 = 3;
    for request in [v4, v6] {
        for (flags, data, sequence, acknowledged, reply) in [
            (2, 0, 0, 1_001, 0x14),
            (2, 100, 0, 1_101, 0x14),
            (1, 0, 0, 1_001, 0x14),
            (SYN_FIN, 7, 0, 1_009, 0x14),
            (0, 7, 0, 1_007, 0x14),
            (0, 0, 0, 1_000, 0x14),
            (0x10, 0, 7_777, 0, 4),
            (0x12, 0, 7_777, 0, 4),
            (0x18, 500, 7_777, 0, 4),
            (0x11, 1, 7_777, 0, 4),
        ] {
            for padding in [0, 6] {
                let request = request(TCP, tcp(flags, data)).with(|to| to.padding = padding);
                let (_, _, segment) = taken_apart(&request.reply(), 14);
                let mut expected = vec![0x01, 0xbb, 0x9c, 0x40];
                expected.extend(u32::to_be_bytes(sequence));
                expected.extend(u32::to_be_bytes(acknowledged));
                expected.extend([0x50, reply, 0, 0]);
                assert_eq!(segment[..16], expected, "flags {flags}, {data} bytes");
                assert_eq!(segment[18..], [0, 0]);
            }
        }
    }
}

#[test]
fn an_answer_goes_back_where_the_request_came_from() {
    let tags = [
        vec![],
        vec![[0x81, 0, 0x60, 7]],
        vec![[0x88, 0xa8, 0, 9], [0x81, 0, 0, 7]],
    ];
    for tags in tags {
        let network = 14 + 4 * tags.len();
        for payload in [(TCP, tcp(2, 9)), (UDP, udp(9)), (SCTP, sctp(1))] {
            // Options of IPv4, and a header of destination options of IPv6.
            for between in [0, 8] {
                let request = v4(payload.0, payload.1.clone()).with(|to| {
                    to.tags.clone_from(&tags);
                    to.between = vec![1; between];
                });
                let (link, ip, _) = taken_apart(&request.reply(), network);
                assert_eq!(
                    link,
                    [&[FROM, TO].concat()[..], &tags.concat(), &[8, 0]].concat()
                );
                assert_eq!(ip[..2], [0x45, 0]);
                assert_eq!(ip[4..9], [0, 0, 0x40, 0, 64]);
                assert_eq!(ip[9], if payload.0 == TCP { 6 } else { 1 });
                assert_eq!(ip[12..], [192, 0, 2, 2, 192, 0, 2, 1]);

                let request = v6(payload.0, payload.1.clone()).with(|to| {
                    to.tags.clone_from(&tags);
                    if between != 0 {
                        to.between = vec![payload.0, 0, 1, 4, 0, 0, 0, 0];
                    }
                });
                let (link, ip, _) = taken_apart(&request.reply(), network);
                assert_eq!(
                    link,
                    [&[FROM, TO].concat()[..], &tags.concat(), &[0x86, 0xdd]].concat()
                );
                assert_eq!(ip[..4], [0x60, 0, 0, 0]);
                assert_eq!(ip[6..8], [if payload.0 == TCP { 6 } else { 58 }, 64]);
                assert_eq!(ip[8..24], request.destination);
                assert_eq!(ip[24..], request.source);
            }
        }
    }
}

#[test]
fn an_error_quotes_as_much_of_the_packet_as_fits() {
    for data in (0..70).chain([400, 519, 520, 521, 1183, 1184, 1185, 1400]) {
        let requests = [
            (v4(UDP, udp(data)), [3, 3], 576 - 28),
            (v6(UDP, udp(data)), [1, 4], 1280 - 48),
        ];
        for (request, kind, fits) in requests {
            let packet = request.frame().split_off(14);
            let request = request.with(|to| to.padding = 5);
            let (_, _, message) = taken_apart(&request.reply(), 14);
            assert_eq!(message[..2], kind);
            assert_eq!(message[4..8], [0; 4]);
            assert_eq!(message[8..], packet[..packet.len().min(fits)], "{data}");
        }
    }
}

#[test]
fn of_a_packet_in_several_buffers_what_lies_in_the_first_is_quoted() {
    let frame = v4(UDP, udp(1000)).frame();
    let metadata = Request::metadata(&frame);
    let there = &frame[..100];
    let reply = RejectReply::new(ReplyKind::of(&metadata, there, ANY_MAC), &metadata, there);
    let (_, _, message) = taken_apart(&composed(&reply, there), 14);
    assert_eq!(message[8..], there[14..]);
}

proptest! {
    #[test]
    fn whatever_is_quoted_the_checksums_are_right(
        data in prop::collection::vec(any::<u8>(), 0..1400),
        is_v4: bool,
        source: [u8; 3],
        numbers: [u8; 8],
        flags in any::<u8>().prop_map(|flags| flags & !RST),
        is_tcp: bool,
    ) {
        let payload = if is_tcp {
            let mut segment = tcp(flags, 0);
            segment.splice(4..12, numbers);
            [segment, data].concat()
        } else {
            let mut datagram = udp(data.len());
            datagram.splice(8.., data);
            datagram
        };
        let request = if is_v4 { v4 } else { v6 };
        let request = request(if is_tcp { TCP } else { UDP }, payload)
            .with(|to| { to.source.splice(1..4, source); });
        taken_apart(&request.reply(), 14);
    }
}

#[test]
fn frames_for_other_hosts_are_not_answered_in_their_name() {
    let frame = v4(TCP, tcp(SYN, 0)).frame();
    let metadata = Request::metadata(&frame);
    let kind = |own| ReplyKind::of(&metadata, frame.as_slice(), own);
    let (own, _) = frame.split_first_chunk::<6>().unwrap();
    let mut other = *own;
    other[5] ^= 1;
    assert_eq!(kind(mac_word(*own)), ReplyKind::Reset);
    assert_eq!(kind(mac_word(other)), ReplyKind::Silence);
    assert_eq!(kind(ANY_MAC), ReplyKind::Reset);
}
