//! Ethernet and VLAN tags.

use super::{CLIENT_MAC, Ipv4, Ipv6, SERVER_MAC};

/// A MAC address.
pub type Mac = [u8; 6];

/// `EtherType` of IPv4.
pub const IPV4: u16 = 0x0800;
/// `EtherType` of ARP.
pub const ARP: u16 = 0x0806;
/// `EtherType` of IPv6.
pub const IPV6: u16 = 0x86dd;
/// `EtherType` of a customer VLAN tag (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;
/// `EtherType` of a service VLAN tag (IEEE 802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;

/// A VLAN tag.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    /// The `EtherType` that says so.
    pub ether_type: u16,
    /// Priority (3 bits), drop eligibility (1 bit), VLAN identifier (12 bits).
    pub control: u16,
}

/// A frame, from the destination MAC address to the last byte before the FCS.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Destination MAC address.
    pub destination: Mac,
    /// Source MAC address.
    pub source: Mac,
    /// Tags, outermost first.
    pub tags: Vec<Tag>,
    /// The `EtherType` after the tags.
    pub ether_type: u16,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A frame of any `EtherType`.
#[must_use]
pub fn ethernet(ether_type: u16, payload: impl Into<Vec<u8>>) -> Frame {
    Frame {
        destination: SERVER_MAC,
        source: CLIENT_MAC,
        tags: Vec::new(),
        ether_type,
        payload: payload.into(),
    }
}

/// A frame that says its length instead of an `EtherType` (IEEE 802.3 with LLC), here with the
/// header of a spanning tree message.
#[must_use]
pub fn llc(payload: impl Into<Vec<u8>>) -> Frame {
    let mut bytes = vec![0x42, 0x42, 0x03];
    bytes.extend(payload.into());
    ethernet(u16::try_from(bytes.len()).unwrap_or(1500), bytes)
}

impl Frame {
    /// Adds a tag inside of those that are there.
    #[must_use]
    pub fn tag(mut self, ether_type: u16, id: u16) -> Self {
        self.tags.push(Tag {
            ether_type,
            control: id,
        });
        self
    }

    /// Adds bytes after the packet.
    #[must_use]
    pub fn padded(mut self, padding: &[u8]) -> Self {
        self.payload.extend(padding);
        self
    }

    /// The bytes of the frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(22 + self.payload.len());
        bytes.extend(self.destination);
        bytes.extend(self.source);
        for tag in &self.tags {
            bytes.extend(tag.ether_type.to_be_bytes());
            bytes.extend(tag.control.to_be_bytes());
        }
        bytes.extend(self.ether_type.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The first `length` bytes of the frame.
    #[must_use]
    pub fn cut(&self, length: usize) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes.truncate(length);
        bytes
    }
}

impl From<Frame> for Vec<u8> {
    fn from(frame: Frame) -> Self {
        frame.bytes()
    }
}

impl Ipv4 {
    /// The packet in an untagged frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        ethernet(IPV4, self.bytes())
    }
}

impl Ipv6 {
    /// The packet in an untagged frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        ethernet(IPV6, self.bytes())
    }
}
