//! What the sender of a rejected packet is told: a TCP reset (RFC 9293 §3.10.7.1), or that the port cannot be
//! reached (RFC 792, RFC 1122 §3.2.2; RFC 4443 §3.1).
//!
//! [`ReplyKind::of`] says whether a packet is replied to, and with what. A [`RejectReply`] holds the headers of the frame
//! that goes back; of an ICMP error the packet that it is about follows them, as much of it as fits. The
//! request's own bytes stay where they are: the frame grows before them or ends earlier.

mod checksum;
mod kind;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use self::checksum::Sum;
pub use self::kind::ReplyKind;
use crate::{
    decide::{Metadata, bounded},
    packet::{Packet, PacketMut},
    parse::{self, MAX_TAGS, Version},
    policy::Rate,
    wire::IpProto,
};

/// How many replies go out: 1,000 in a second, 50 at once.
pub const RATE: Rate = Rate {
    interval: 1_000_000,
    tolerance: 49_000_000,
};

/// What became of a rejected packet, one counter for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Replied {
    /// Its sender was told.
    Sent = 0,
    /// Its sender would have been told, but there were too many.
    Limited = 1,
    /// It is of a kind that is never replied to.
    Unanswerable = 2,
}

impl Replied {
    /// All of them, in the order of their counter indices.
    pub const ALL: [Self; 3] = [Self::Sent, Self::Limited, Self::Unanswerable];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Limited => "limited",
            Self::Unanswerable => "unanswerable",
        }
    }
}

const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;

/// Bytes of a MAC address.
const MAC: usize = 6;
/// Words of an IPv4 header, an IPv6 header, a TCP header and the head of an ICMP error.
const IPV4_WORDS: usize = 5;
const IPV6_WORDS: usize = 10;
const TCP_WORDS: usize = 5;
const ICMP_WORDS: usize = 2;
/// The most words that the headers of a reply have.
const WORDS: usize = IPV6_WORDS + TCP_WORDS;
/// Words of a TCP header, as the header says it.
const TCP_HEADER: u8 = 5;
/// How far a reply goes.
const HOPS: u8 = 64;
/// DF in the byte that it stands in.
const DO_NOT_FRAGMENT: u8 = 0x40;

/// Bytes that are summed in one step.
const CHUNK: u32 = 64;

/// How long an ICMP error may be, its IP header included (RFC 1812 §4.3.2.3, RFC 4443 §3.1).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;
/// The most bytes that are quoted.
const MOST_QUOTED: u32 = 1280 - 48;

/// A reply: the headers of its frame, and how much of the request follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RejectReply {
    /// The sum of the words that are quoted, as far as it has come.
    pub sum: u64,
    /// How many bytes that are.
    pub summed: u32,
    /// Where its IP header begins, in bytes from the start of the frame: where that of the request began.
    pub network: u32,
    /// How many words of the headers count.
    pub words: u32,
    /// How many bytes of the request follow, from its IP header on.
    pub quoted: u32,
    /// 1 if it is a reset, 0 if it is an ICMP error.
    pub is_reset: u32,
    /// The MAC addresses, destination first.
    pub macs: [u8; 2 * MAC],
    /// The tags and the `EtherType`; what lies before the IP header counts.
    pub tags: [[u8; 2]; 2 * MAX_TAGS + 1],
    /// Fills the word.
    pub reserved: [u8; 2],
    /// The IP header and what follows: a TCP header, or the head of an ICMP error.
    pub headers: [[u8; 4]; WORDS],
}

const _: () = assert!(size_of::<RejectReply>() == 112);

impl RejectReply {
    /// The most steps in which [`RejectReply::sum`] comes to its end: by chunks, by eight bytes, by two, the last.
    pub const STEPS: u32 = MOST_QUOTED / CHUNK + CHUNK / 8 + 8 / 2 + 1;

    /// By how many bytes a frame can grow.
    pub const MOST_GROWTH: usize = 4 * (IPV6_WORDS + ICMP_WORDS);

    /// The reply of this kind to a packet.
    #[must_use]
    pub fn new<P: Packet + ?Sized>(kind: ReplyKind, metadata: &Metadata, packet: &P) -> Self {
        let mut reply = Self::default();
        reply.address(kind, metadata, packet);
        while reply.sum(packet) {}
        reply.fill(metadata, packet);
        reply
    }

    /// Writes down where the reply of this kind to `packet` goes, and how long it is.
    #[inline(always)]
    pub fn address<P: Packet + ?Sized>(
        &mut self,
        kind: ReplyKind,
        metadata: &Metadata,
        packet: &P,
    ) {
        let network = bounded(metadata.network);
        let macs: [u8; 2 * MAC] = packet.read(0).unwrap_or_default();
        let [to, from]: [[u8; MAC]; 2] = bytemuck::cast(macs);
        self.macs = bytemuck::cast([from, to]);
        // All of a frame that is replied to is longer than this.
        let first: [u8; 8] = packet.read(2 * MAC).unwrap_or_default();
        let last: [u8; 2] = packet.read(2 * MAC + 8).unwrap_or_default();
        let [a, b, c, d]: [[u8; 2]; 4] = bytemuck::cast(first);
        self.tags = [a, b, c, d, last];
        let version = metadata.version();
        let (ip, longest) = match version {
            Version::V4 => (IPV4_WORDS, LONGEST_V4),
            Version::V6 => (IPV6_WORDS, LONGEST_V6),
        };
        let (transport, quoted) = match kind {
            ReplyKind::Silence => (0, 0),
            ReplyKind::Reset => (TCP_WORDS, 0),
            ReplyKind::Unreachable => {
                let there = packet.length().saturating_sub(network);
                let fits = longest - 4 * (ip + ICMP_WORDS);
                let whole = parse::length(packet, version, network).unwrap_or(0);
                (ICMP_WORDS, whole.min(there).min(fits))
            }
        };
        self.network = metadata.network;
        self.is_reset = u32::from(matches!(kind, ReplyKind::Reset));
        #[expect(clippy::cast_possible_truncation, reason = "a few dozen words")]
        let words = (ip + transport) as u32;
        self.words = words;
        #[expect(clippy::cast_possible_truncation, reason = "at most 1,232 bytes")]
        let quoted = quoted as u32;
        self.quoted = quoted;
        self.summed = 0;
        self.sum = 0;
    }

    /// Adds some more of what is quoted to the sum of it; whether there was more.
    ///
    /// A step at a time, so that the verifier can take up from the map value what it has come to.
    #[inline(always)]
    pub fn sum<P: Packet + ?Sized>(&mut self, packet: &P) -> bool {
        let (at, left) = (
            bounded(self.network + self.summed),
            self.quoted.saturating_sub(self.summed),
        );
        let mut sum = Sum(self.sum);
        let step = if left >= CHUNK {
            let Some(chunk) = packet.read::<{ CHUNK as usize }>(at) else {
                return false;
            };
            sum.words::<{ CHUNK as usize / 4 }>(&bytemuck::cast(chunk));
            CHUNK
        } else if left >= 8 {
            let Some(double) = packet.read(at) else {
                return false;
            };
            sum.double(u64::from_ne_bytes(double));
            8
        } else if left >= 2 {
            let Some(pair) = packet.read(at) else {
                return false;
            };
            sum.pair(pair);
            2
        } else if left == 1 {
            // Never a byte alone: where the check for it comes to `at >= end`, the verifier learns nothing
            // from it (Linux 6.18, kernel/bpf/verifier.c, find_good_pkt_pointers).
            let Some([_, last]) = packet.read(at.saturating_sub(1)) else {
                return false;
            };
            sum.pair([last, 0]);
            1
        } else {
            return false;
        };
        self.sum = sum.0;
        self.summed += step;
        true
    }

    /// Fills in the headers of a reply that is addressed.
    #[inline(always)]
    pub fn fill<P: Packet + ?Sized>(&mut self, metadata: &Metadata, packet: &P) {
        let version = metadata.version();
        if self.is_reset() {
            let words = reset(metadata, packet);
            let mut sum = Sum::of_pseudo_header(metadata, IpProto::TCP, 4 * TCP_WORDS);
            sum.words(&words);
            let [ports, sequence, acknowledged, flags, _] = words;
            let [high, low] = sum.checksum();
            let words = [ports, sequence, acknowledged, flags, [high, low, 0, 0]];
            self.put(version, IpProto::TCP, metadata, words);
        } else {
            let (kind, code, protocol) = match version {
                Version::V4 => (3, 3, IpProto::ICMP),
                Version::V6 => (1, 4, IpProto::ICMPV6),
            };
            let quoted = self.quoted();
            let mut sum = match version {
                Version::V4 => Sum::default(),
                Version::V6 => Sum::of_pseudo_header(metadata, protocol, 4 * ICMP_WORDS + quoted),
            };
            sum.words(&[[kind, code, 0, 0]]);
            sum.double(self.sum);
            let [high, low] = sum.checksum();
            self.put(
                version,
                protocol,
                metadata,
                [[kind, code, high, low], [0; 4]],
            );
        }
    }

    /// Puts what follows the IP header into its place, and the IP header before it: back to where the request
    /// came from, without options, not to be fragmented.
    #[inline(always)]
    fn put<const N: usize>(
        &mut self,
        version: Version,
        protocol: IpProto,
        metadata: &Metadata,
        transport: [[u8; 4]; N],
    ) {
        let (source, destination) = (metadata.destination, metadata.source);
        let payload = 4 * N + self.quoted();
        match version {
            Version::V4 => {
                let [source, _]: [[u8; 4]; 2] = bytemuck::cast(source[0]);
                let [destination, _]: [[u8; 4]; 2] = bytemuck::cast(destination[0]);
                let [high, low] = short(4 * IPV4_WORDS + payload);
                let first = [[0x45, 0, high, low], [0, 0, DO_NOT_FRAGMENT, 0]];
                let mut sum = Sum::default();
                sum.words(&first);
                sum.words(&[[HOPS, protocol.0, 0, 0], source, destination]);
                let [high, low] = sum.checksum();
                self.put_words(0, first);
                self.put_words(2, [[HOPS, protocol.0, high, low], source, destination]);
                self.put_words(IPV4_WORDS, transport);
            }
            Version::V6 => {
                let [high, low] = short(payload);
                self.put_words(0, [[0x60, 0, 0, 0], [high, low, protocol.0, HOPS]]);
                self.put_words(2, bytemuck::cast::<_, [[u8; 4]; 4]>(source));
                self.put_words(6, bytemuck::cast::<_, [[u8; 4]; 4]>(destination));
                self.put_words(IPV6_WORDS, transport);
            }
        }
    }

    #[inline(always)]
    fn put_words<const N: usize>(&mut self, at: usize, words: [[u8; 4]; N]) {
        for (slot, word) in words.into_iter().enumerate() {
            if let Some(header) = self.headers.get_mut(at + slot) {
                *header = word;
            }
        }
    }

    /// By how many bytes the frame has to grow at its start, so that what is quoted follows the headers.
    #[inline(always)]
    #[must_use]
    pub fn growth(&self) -> usize {
        if self.is_reset() { 0 } else { 4 * self.words() }
    }

    /// Length of its frame in bytes.
    #[inline(always)]
    #[must_use]
    pub fn length(&self) -> usize {
        bounded(self.network) + 4 * self.words() + self.quoted()
    }

    /// Writes it over the start of a frame that has grown; whether there was room for it.
    #[inline(always)]
    #[must_use]
    pub fn write<P: PacketMut + ?Sized>(&self, frame: &mut P) -> bool {
        let network = bounded(self.network);
        if !frame.write(0, self.macs) {
            return false;
        }
        for (slot, &tag) in self.tags.iter().enumerate() {
            let at = 2 * (MAC + slot);
            if at >= network {
                break;
            }
            if !frame.write(at, tag) {
                return false;
            }
        }
        for (slot, &word) in self.headers.iter().enumerate() {
            if slot >= self.words() {
                break;
            }
            if !frame.write(network + 4 * slot, word) {
                return false;
            }
        }
        true
    }

    /// Puts the whole frame together in `frame`, which is as long as it is; whether the request has what is
    /// quoted of it.
    #[must_use]
    pub fn compose(&self, request: &[u8], frame: &mut [u8]) -> bool {
        let network = bounded(self.network);
        let headers = network + 4 * self.words();
        let quoted = request.get(network..network + self.quoted());
        match (quoted, frame.get_mut(headers..)) {
            (Some(quoted), Some(slot)) if quoted.len() == slot.len() => {
                slot.copy_from_slice(quoted);
                self.write(frame)
            }
            _ => false,
        }
    }

    #[inline(always)]
    const fn is_reset(&self) -> bool {
        self.is_reset != 0
    }

    /// How many words of the headers count, so that the verifier knows a bound, too.
    #[inline(always)]
    const fn words(&self) -> usize {
        (self.words & 0xf) as usize
    }

    /// How many bytes are quoted, likewise.
    #[inline(always)]
    const fn quoted(&self) -> usize {
        (self.quoted & 0x7ff) as usize
    }
}

/// The TCP header of a reset, without its checksum (RFC 9293 §3.10.7.1).
#[inline(always)]
fn reset<P: Packet + ?Sized>(metadata: &Metadata, packet: &P) -> [[u8; 4]; TCP_WORDS] {
    let [here, there] = [metadata.destination_port, metadata.source_port];
    let ports = [here[0], here[1], there[0], there[1]];
    let [sequence, acknowledged] = metadata.numbers;
    let (sequence, acknowledged, flags) = if metadata.flags & ACK != 0 {
        (acknowledged, [0; 4], RST)
    } else {
        let next = u32::from_be_bytes(sequence).wrapping_add(segment(metadata, packet));
        ([0; 4], next.to_be_bytes(), RST | ACK)
    };
    [
        ports,
        sequence,
        acknowledged,
        [TCP_HEADER << 4, flags, 0, 0],
        [0; 4],
    ]
}

/// The length of a segment: its data, and SYN and FIN.
#[inline(always)]
fn segment<P: Packet + ?Sized>(metadata: &Metadata, packet: &P) -> u32 {
    let network = bounded(metadata.network);
    let whole = parse::length(packet, metadata.version(), network).unwrap_or(0);
    let headers = bounded(metadata.payload) - network + 4 * usize::from(metadata.header);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "packets are shorter than 64 KiB"
    )]
    let data = whole.saturating_sub(headers) as u32;
    let controls = (metadata.flags & SYN) / SYN + (metadata.flags & FIN);
    data + u32::from(controls)
}

/// A number of two bytes as it stands in packets.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a reply is shorter than 64 KiB"
)]
const fn short(number: usize) -> [u8; 2] {
    (number as u16).to_be_bytes()
}
