//! IPv4 packets.

use std::net::{IpAddr, Ipv4Addr};

use super::{CLIENT_V4, Payload, SERVER_V4, checksum};

/// An IPv4 packet. Fields that are `None` are computed.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// The reserved bit, DF and MF: 3 bits.
    pub flags: u8,
    /// Fragment offset in units of 8 bytes: 13 bits.
    pub offset: u16,
    /// Options; a multiple of 4 bytes unless the header length is overridden.
    pub options: Vec<u8>,
    /// Version: 4 bits.
    pub version: Option<u8>,
    /// Header length in words of 4 bytes: 4 bits.
    pub ihl: Option<u8>,
    /// Length of header and payload in bytes.
    pub total_length: Option<u16>,
    /// Protocol of the payload.
    pub protocol: Option<u8>,
    /// Header checksum.
    pub checksum: Option<u16>,
    /// What it carries.
    pub payload: Payload,
}

/// An IPv4 packet that carries `payload`.
#[must_use]
pub fn ipv4(payload: impl Into<Payload>) -> Ipv4 {
    Ipv4 {
        source: CLIENT_V4,
        destination: SERVER_V4,
        ttl: 64,
        id: 1,
        flags: 0,
        offset: 0,
        options: Vec::new(),
        version: None,
        ihl: None,
        total_length: None,
        protocol: None,
        checksum: None,
        payload: payload.into(),
    }
}

impl Ipv4 {
    /// The same from the other end: from the server to the client.
    #[must_use]
    pub fn back(mut self) -> Self {
        std::mem::swap(&mut self.source, &mut self.destination);
        self
    }

    /// MF: more fragments follow.
    pub const MORE_FRAGMENTS: u8 = 0b001;
    /// DF: do not fragment.
    pub const DO_NOT_FRAGMENT: u8 = 0b010;
    /// The reserved bit.
    pub const RESERVED: u8 = 0b100;

    /// The protocol number in the header.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
            .unwrap_or_else(|| self.payload.protocol(false))
    }

    /// The bytes of what it carries.
    #[must_use]
    pub fn payload_bytes(&self) -> Vec<u8> {
        self.payload
            .bytes((IpAddr::V4(self.source), IpAddr::V4(self.destination)))
    }

    /// The bytes of the packet.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let payload = self.payload_bytes();
        let header_length = 20 + self.options.len();
        let ihl = self
            .ihl
            .unwrap_or_else(|| u8::try_from(header_length / 4).unwrap_or(15));
        let total_length = self
            .total_length
            .unwrap_or_else(|| u16::try_from(header_length + payload.len()).unwrap_or(u16::MAX));
        let fragmentation = u16::from(self.flags) << 13 | self.offset & 0x1fff;
        let mut bytes = vec![self.version.unwrap_or(4) << 4 | ihl & 0x0f, 0];
        bytes.extend(total_length.to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(fragmentation.to_be_bytes());
        bytes.extend([self.ttl, self.protocol(), 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.options);
        let checksum = self.checksum.unwrap_or_else(|| checksum::internet(&bytes));
        bytes.splice(10..12, checksum.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// The packet in fragments whose payloads are of `size` bytes, a multiple of 8.
    #[must_use]
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        let payload = self.payload_bytes();
        let pieces: Vec<_> = payload.chunks(size).collect();
        pieces
            .iter()
            .enumerate()
            .map(|(index, piece)| Self {
                flags: if index + 1 == pieces.len() {
                    0
                } else {
                    Self::MORE_FRAGMENTS
                },
                offset: u16::try_from(index * size / 8).unwrap_or(u16::MAX),
                payload: Payload::Other {
                    protocol: self.protocol(),
                    bytes: piece.to_vec(),
                },
                ..self.clone()
            })
            .collect()
    }
}
