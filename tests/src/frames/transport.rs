//! What IP carries: TCP, UDP, SCTP, ICMP and anything else.

use std::net::IpAddr;

use super::checksum;

/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// DCCP.
pub const DCCP: u8 = 33;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;
/// UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// What an IP packet carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
    /// SCTP.
    Sctp(Sctp),
    /// ICMP of the version that the packet has.
    Icmp(Icmp),
    /// Anything else.
    Other {
        /// Its protocol number.
        protocol: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// A TCP segment. Fields that are `None` are computed.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
    pub flags: u8,
    /// Options; a multiple of 4 bytes unless the data offset is overridden.
    pub options: Vec<u8>,
    /// Data offset in words of 4 bytes: 4 bits.
    pub data_offset: Option<u8>,
    /// Checksum.
    pub checksum: Option<u16>,
    /// Data.
    pub data: Vec<u8>,
}

/// A UDP datagram. Fields that are `None` are computed.
#[derive(Clone, Debug)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Length of header and data in bytes.
    pub length: Option<u16>,
    /// Checksum.
    pub checksum: Option<u16>,
    /// Data.
    pub data: Vec<u8>,
}

/// An SCTP packet. Fields that are `None` are computed.
#[derive(Clone, Debug)]
pub struct Sctp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Verification tag.
    pub tag: u32,
    /// Checksum (CRC-32C).
    pub checksum: Option<u32>,
    /// Chunks.
    pub chunks: Vec<u8>,
}

/// An ICMP message. Fields that are `None` are computed.
#[derive(Clone, Debug)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes after the checksum.
    pub rest: [u8; 4],
    /// Checksum.
    pub checksum: Option<u16>,
    /// What follows the first 8 bytes; in an error, the packet it is about.
    pub body: Vec<u8>,
}

/// A SYN without data.
#[must_use]
pub fn tcp(source: u16, destination: u16) -> Tcp {
    Tcp {
        source,
        destination,
        sequence: 1,
        acknowledgement: 0,
        flags: 2,
        options: Vec::new(),
        data_offset: None,
        checksum: None,
        data: Vec::new(),
    }
}

/// A datagram without data.
#[must_use]
pub fn udp(source: u16, destination: u16) -> Udp {
    Udp {
        source,
        destination,
        length: None,
        checksum: None,
        data: Vec::new(),
    }
}

/// A packet without chunks.
#[must_use]
pub fn sctp(source: u16, destination: u16) -> Sctp {
    Sctp {
        source,
        destination,
        tag: 0,
        checksum: None,
        chunks: Vec::new(),
    }
}

/// A message with nothing after its first 8 bytes.
#[must_use]
pub fn icmp(kind: u8, code: u8) -> Icmp {
    Icmp {
        kind,
        code,
        rest: [0; 4],
        checksum: None,
        body: Vec::new(),
    }
}

/// Bytes of any protocol.
#[must_use]
pub fn other(protocol: u8, bytes: impl Into<Vec<u8>>) -> Payload {
    Payload::Other {
        protocol,
        bytes: bytes.into(),
    }
}

impl Payload {
    /// The number by which an IP header of version 6, or else of version 4, names it.
    #[must_use]
    pub fn protocol(&self, is_v6: bool) -> u8 {
        match self {
            Self::Tcp(_) => TCP,
            Self::Udp(_) => UDP,
            Self::Sctp(_) => SCTP,
            Self::Icmp(_) => {
                if is_v6 {
                    ICMPV6
                } else {
                    ICMP
                }
            }
            Self::Other { protocol, .. } => *protocol,
        }
    }

    /// Its bytes in a packet between these two ends.
    #[must_use]
    pub fn bytes(&self, ends: (IpAddr, IpAddr)) -> Vec<u8> {
        match self {
            Self::Tcp(tcp) => tcp.bytes(ends),
            Self::Udp(udp) => udp.bytes(ends),
            Self::Sctp(sctp) => sctp.bytes(),
            Self::Icmp(icmp) => icmp.bytes(ends),
            Self::Other { bytes, .. } => bytes.clone(),
        }
    }
}

impl Tcp {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;

    fn bytes(&self, ends: (IpAddr, IpAddr)) -> Vec<u8> {
        let words = u8::try_from((20 + self.options.len()) / 4).unwrap_or(15);
        let mut bytes = ports(self.source, self.destination);
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgement.to_be_bytes());
        bytes.extend([self.data_offset.unwrap_or(words) << 4, self.flags]);
        // A window of 64,240 bytes, no checksum yet, no urgent data.
        bytes.extend([0xfa, 0xf0, 0, 0, 0, 0]);
        bytes.extend(&self.options);
        bytes.extend(&self.data);
        let checksum = self
            .checksum
            .unwrap_or_else(|| checksum::with_pseudo_header(ends, TCP, &bytes));
        bytes.splice(16..18, checksum.to_be_bytes());
        bytes
    }
}

impl Udp {
    fn bytes(&self, ends: (IpAddr, IpAddr)) -> Vec<u8> {
        let length = u16::try_from(8 + self.data.len()).unwrap_or(u16::MAX);
        let mut bytes = ports(self.source, self.destination);
        bytes.extend(self.length.unwrap_or(length).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&self.data);
        // 0 says that there is no checksum, so one that comes to 0 is sent as 0xffff (RFC 768).
        let checksum = self.checksum.unwrap_or_else(|| {
            match checksum::with_pseudo_header(ends, UDP, &bytes) {
                0 => 0xffff,
                checksum => checksum,
            }
        });
        bytes.splice(6..8, checksum.to_be_bytes());
        bytes
    }
}

impl Sctp {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = ports(self.source, self.destination);
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.chunks);
        let checksum = self.checksum.unwrap_or_else(|| checksum::crc32c(&bytes));
        bytes.splice(8..12, checksum.to_le_bytes());
        bytes
    }
}

impl Icmp {
    fn bytes(&self, ends: (IpAddr, IpAddr)) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend(self.rest);
        bytes.extend(&self.body);
        let checksum = self.checksum.unwrap_or_else(|| match ends.0 {
            IpAddr::V4(_) => checksum::internet(&bytes),
            IpAddr::V6(_) => checksum::with_pseudo_header(ends, ICMPV6, &bytes),
        });
        bytes.splice(2..4, checksum.to_be_bytes());
        bytes
    }
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

impl From<Tcp> for Payload {
    fn from(tcp: Tcp) -> Self {
        Self::Tcp(tcp)
    }
}

impl From<Udp> for Payload {
    fn from(udp: Udp) -> Self {
        Self::Udp(udp)
    }
}

impl From<Sctp> for Payload {
    fn from(sctp: Sctp) -> Self {
        Self::Sctp(sctp)
    }
}

impl From<Icmp> for Payload {
    fn from(icmp: Icmp) -> Self {
        Self::Icmp(icmp)
    }
}
