//! IPv6 packets and their extension headers.

use std::net::{IpAddr, Ipv6Addr};

use super::{CLIENT_V6, Payload, SERVER_V6};

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// Authentication header.
pub const AH: u8 = 51;
/// Destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// An extension header.
#[derive(Clone, Debug)]
pub struct Extension {
    /// Its type, which the header before it names.
    pub kind: u8,
    /// The type of the next header, if it is to be another than the one that follows.
    pub next: Option<u8>,
    /// The second byte: the length in the units of its type, or what a fragment header reserves.
    pub length: u8,
    /// What follows the first two bytes.
    pub body: Vec<u8>,
}

/// An IPv6 packet. Fields that are `None` are computed.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Hop limit.
    pub hop_limit: u8,
    /// Flow label: 20 bits.
    pub flow_label: u32,
    /// Extension headers in their order.
    pub extensions: Vec<Extension>,
    /// Version: 4 bits.
    pub version: Option<u8>,
    /// Length of everything after the header in bytes.
    pub payload_length: Option<u16>,
    /// Type of the first header after this one.
    pub next_header: Option<u8>,
    /// Type of the header after the last extension header.
    pub protocol: Option<u8>,
    /// What it carries.
    pub payload: Payload,
}

/// An IPv6 packet that carries `payload`.
#[must_use]
pub fn ipv6(payload: impl Into<Payload>) -> Ipv6 {
    Ipv6 {
        source: CLIENT_V6,
        destination: SERVER_V6,
        hop_limit: 64,
        flow_label: 0,
        extensions: Vec::new(),
        version: None,
        payload_length: None,
        next_header: None,
        protocol: None,
        payload: payload.into(),
    }
}

/// A hop-by-hop, routing or destination options header of `8 × (1 + more)` bytes.
///
/// It is filled with experimental options that who does not know them skips (RFC 4727 §3.3), which
/// as a routing header read as one without segments left. Padding is no alternative: Linux refuses
/// more than 7 bytes of it (`net/ipv6/exthdrs.c`, `ip6_parse_tlv`).
#[must_use]
pub fn extension(kind: u8, more: u8) -> Extension {
    let mut body = vec![0; 6 + 8 * usize::from(more)];
    let mut left = body.as_mut_slice();
    while let [option, length, rest @ ..] = left {
        let size = rest.len().min(255);
        (*option, *length) = (0x1e, u8::try_from(size).unwrap_or(u8::MAX));
        left = rest.get_mut(size..).unwrap_or_default();
    }
    if kind == ROUTING {
        body.splice(1..2, [0]);
    }
    Extension {
        kind,
        next: None,
        length: more,
        body,
    }
}

/// An authentication header of `4 × (2 + words)` bytes (RFC 4302 §2.2).
#[must_use]
pub fn authentication(words: u8) -> Extension {
    Extension {
        kind: AH,
        next: None,
        length: words,
        body: vec![0; 6 + 4 * usize::from(words)],
    }
}

/// A fragment header: offset in units of 8 bytes, and whether more fragments follow.
#[must_use]
pub fn fragment(offset: u16, more: bool) -> Extension {
    let mut body = (offset << 3 | u16::from(more)).to_be_bytes().to_vec();
    body.extend(0x1234_5678_u32.to_be_bytes());
    Extension {
        kind: FRAGMENT,
        next: None,
        length: 0,
        body,
    }
}

/// The header of a first fragment.
#[must_use]
pub fn first_fragment() -> Extension {
    fragment(0, true)
}

/// The header of a fragment that is the whole packet (RFC 6946).
#[must_use]
pub fn atomic_fragment() -> Extension {
    fragment(0, false)
}

impl Ipv6 {
    /// The same from the other end: from the server to the client.
    #[must_use]
    pub fn back(mut self) -> Self {
        std::mem::swap(&mut self.source, &mut self.destination);
        self
    }

    /// Adds an extension header after those that are there.
    #[must_use]
    pub fn then(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// The protocol number that the last header names.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol.unwrap_or_else(|| self.payload.protocol(true))
    }

    /// The bytes of what it carries after the extension headers.
    #[must_use]
    pub fn payload_bytes(&self) -> Vec<u8> {
        self.payload
            .bytes((IpAddr::V6(self.source), IpAddr::V6(self.destination)))
    }

    /// The bytes of the packet.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut after = Vec::new();
        let mut kinds: Vec<u8> = self
            .extensions
            .iter()
            .map(|extension| extension.kind)
            .collect();
        kinds.push(self.protocol());
        for (extension, &next) in self.extensions.iter().zip(kinds.iter().skip(1)) {
            after.extend([extension.next.unwrap_or(next), extension.length]);
            after.extend(&extension.body);
        }
        after.extend(self.payload_bytes());
        let payload_length = self
            .payload_length
            .unwrap_or_else(|| u16::try_from(after.len()).unwrap_or(u16::MAX));
        let first_word = u32::from(self.version.unwrap_or(6)) << 28 | self.flow_label & 0xf_ffff;
        let mut bytes = first_word.to_be_bytes().to_vec();
        bytes.extend(payload_length.to_be_bytes());
        let next_header = self.next_header.or(kinds.first().copied());
        bytes.extend([next_header.unwrap_or_default(), self.hop_limit]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(after);
        bytes
    }

    /// The packet in fragments whose payloads are of `size` bytes, a multiple of 8. Extension headers
    /// that are there are repeated before each fragment header.
    #[must_use]
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        let payload = self.payload_bytes();
        let pieces: Vec<_> = payload.chunks(size).collect();
        pieces
            .iter()
            .enumerate()
            .map(|(index, piece)| {
                let offset = u16::try_from(index * size / 8).unwrap_or(u16::MAX);
                let payload = Payload::Other {
                    protocol: self.protocol(),
                    bytes: piece.to_vec(),
                };
                Self {
                    payload,
                    ..self.clone()
                }
                .then(fragment(offset, index + 1 < pieces.len()))
            })
            .collect()
    }
}
