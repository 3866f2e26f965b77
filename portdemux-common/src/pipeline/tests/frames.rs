//! Frames of IPv4 between a peer and this host, 192.0.2.1 and 192.0.2.2 unless it is said otherwise.

/// The last byte of the peer's address.
pub(super) const PEER: u8 = 1;
/// The last byte of this host's address.
pub(super) const HERE: u8 = 2;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

/// More fragments follow, in the word that has the offset.
pub(super) const MORE: u16 = 0x2000;

/// A packet from one end to the other, each the last byte of an address.
pub(super) fn ipv4([from, to]: [u8; 2], protocol: u8, payload: &[u8]) -> Vec<u8> {
    fragment([from, to], protocol, 0, payload)
}

/// A fragment: the flags and the offset are in one word.
pub(super) fn fragment([from, to]: [u8; 2], protocol: u8, word: u16, payload: &[u8]) -> Vec<u8> {
    let [offset_high, offset_low] = word.to_be_bytes();
    let length = u16::try_from(20 + payload.len()).expect("packets are short");
    let [high, low] = length.to_be_bytes();
    let mut frame = vec![0; 12];
    frame.extend([
        0x08,
        0x00,
        0x45,
        0,
        high,
        low,
        0,
        7,
        offset_high,
        offset_low,
    ]);
    frame.extend([64, protocol, 0, 0, 192, 0, 2, from, 192, 0, 2, to]);
    frame.extend(payload);
    frame
}

/// A segment without data; sequence and acknowledgment number are 0.
pub(super) fn tcp(ports: [u16; 2], flags: u8) -> Vec<u8> {
    let mut segment = ports.map(u16::to_be_bytes).concat();
    segment.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    segment
}

/// A segment that acknowledges a number.
pub(super) fn tcp_ack(ports: [u16; 2], acknowledged: u32) -> Vec<u8> {
    let mut segment = tcp(ports, ACK);
    segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    segment
}

/// A datagram without data.
pub(super) fn udp(ports: [u16; 2]) -> Vec<u8> {
    let mut datagram = ports.map(u16::to_be_bytes).concat();
    datagram.extend([0, 8, 0, 0]);
    datagram
}

/// An SCTP packet with one chunk of a type.
pub(super) fn sctp(ports: [u16; 2], chunk: u8) -> Vec<u8> {
    let mut packet = ports.map(u16::to_be_bytes).concat();
    packet.extend([0, 0, 0, 0, 0, 0, 0, 0, chunk, 0, 0, 4]);
    packet
}

/// An ICMP message of a type, with an identifier and what follows it.
pub(super) fn icmp(kind: u8, identifier: u16, rest: &[u8]) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    let mut message = vec![kind, 0, 0, 0, high, low, 0, 0];
    message.extend(rest);
    message
}

/// From the peer to this host.
pub(super) fn received(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4([PEER, HERE], protocol, payload)
}

/// From this host to the peer.
pub(super) fn sent(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4([HERE, PEER], protocol, payload)
}
