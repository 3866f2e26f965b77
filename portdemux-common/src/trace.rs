//! What the kernel's side says about one frame, for comparison with the host's.

use bytemuck::{Pod, Zeroable};

use crate::{
    entry::Entry,
    packet::Packet,
    parse::{Parsed, Version, ipv4, ipv6},
};

/// A decision as the shadow program leaves it in its map.
///
/// All numbers in host byte order, addresses and ports as they stand in the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Trace {
    /// Source address; an IPv4 address fills the first four bytes.
    pub source: [u8; 16],
    /// Destination address; an IPv4 address fills the first four bytes.
    pub destination: [u8; 16],
    /// Length of the frame in bytes.
    pub length: u32,
    /// Where the IP header begins; 0 without one.
    pub network: u32,
    /// Where the terminal protocol's header begins.
    pub payload: u32,
    /// What the tables say about its port.
    pub entry: Entry,
    /// VLAN identifiers, outermost first.
    pub vlans: [u16; 2],
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
    /// [`crate::parse::Class`].
    pub class: u8,
    /// [`crate::reason::Verdict`].
    pub verdict: u8,
    /// [`crate::reason::Reason`].
    pub reason: u8,
    /// IP version, or 0.
    pub version: u8,
    /// The terminal protocol.
    pub protocol: u8,
    /// [`crate::parse::Fragment`].
    pub fragment: u8,
    /// Number of VLAN tags.
    pub vlan_count: u8,
    /// Fills the last word.
    pub reserved: u8,
}

const _: () = assert!(size_of::<Trace>() == 64);

impl Trace {
    /// Writes down what was read of a packet, all but what [`Trace::read`] reads. Nothing is decided yet.
    #[inline(always)]
    pub fn write(&mut self, parsed: &Parsed) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "frames are shorter than 4 GiB"
        )]
        let without_addresses = Self {
            source: [0; 16],
            destination: [0; 16],
            length: 0,
            network: parsed.network as u32,
            payload: parsed.payload as u32,
            entry: Entry::UNCLAIMED,
            vlans: parsed.vlans.ids,
            source_port: parsed.source_port.0,
            destination_port: parsed.destination_port.0,
            class: parsed.class() as u8,
            verdict: 0,
            reason: 0,
            version: match parsed.version {
                Some(version) => version as u8,
                None => 0,
            },
            protocol: parsed.protocol.0,
            fragment: parsed.fragment as u8,
            vlan_count: parsed.vlans.count,
            reserved: 0,
        };
        *self = without_addresses;
    }

    /// Reads the length and the addresses of the packet that was written down, by what was: in place, as the
    /// addresses would take much of a BPF program's stack.
    #[inline(always)]
    pub fn read<P: Packet + ?Sized>(&mut self, packet: &P) {
        const V4: u8 = Version::V4 as u8;
        const V6: u8 = Version::V6 as u8;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "frames are shorter than 4 GiB"
        )]
        let length = packet.length() as u32;
        self.length = length;
        let network = self.network as usize;
        match self.version {
            V4 => {
                fill::<4>(&mut self.source, packet.read(network + ipv4::SOURCE));
                fill::<4>(
                    &mut self.destination,
                    packet.read(network + ipv4::DESTINATION),
                );
            }
            V6 => {
                fill::<16>(&mut self.source, packet.read(network + ipv6::SOURCE));
                fill::<16>(
                    &mut self.destination,
                    packet.read(network + ipv6::DESTINATION),
                );
            }
            _ => {}
        }
    }
}

/// Writes the first bytes of a field, if there are any.
#[inline(always)]
fn fill<const N: usize>(field: &mut [u8; 16], bytes: Option<[u8; N]>) {
    if let (Some(bytes), Some((first, _))) = (bytes, field.split_first_chunk_mut::<N>()) {
        *first = bytes;
    }
}
