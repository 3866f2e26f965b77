//! What the kernel's side says about one frame, for comparison with the host's.

use bytemuck::{Pod, Zeroable};

use crate::{
    decide::Decision,
    parse::{Address, Class, Fragment, Parsed},
};

/// A decision as the twin of the loaded program leaves it in its map.
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
    /// Where the terminal protocol's header begins.
    pub payload: u32,
    /// The claiming rule's id plus one, 0 for none.
    pub rule: u32,
    /// VLAN identifiers, outermost first.
    pub vlans: [u16; 2],
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
    /// 0 ports, 1 no ports, 2 not IP, 3 malformed.
    pub class: u8,
    /// [`crate::reason::Verdict`].
    pub verdict: u8,
    /// [`crate::reason::Reason`].
    pub reason: u8,
    /// IP version, or 0.
    pub version: u8,
    /// The terminal protocol plus one in host byte order, 0 for none.
    pub protocol: u16,
    /// [`Fragment`].
    pub fragment: u8,
    /// Number of VLAN tags.
    pub vlan_count: u8,
}

const _: () = assert!(size_of::<Trace>() == 60);

impl Trace {
    /// Writes down a decision.
    #[inline(always)]
    #[must_use]
    pub fn new(length: usize, parsed: &Parsed, decision: &Decision) -> Self {
        let (version, source) = widen(parsed.source);
        let (_, destination) = widen(parsed.destination);
        let (class, source_port, destination_port) = match parsed.class {
            Class::Ports(ports) => (0, ports.source.0, ports.destination.0),
            Class::NoPorts => (1, [0; 2], [0; 2]),
            Class::NonIp => (2, [0; 2], [0; 2]),
            Class::Malformed(_) => (3, [0; 2], [0; 2]),
        };
        #[expect(clippy::cast_possible_truncation, reason = "frames are shorter than 4 GiB")]
        Self {
            source,
            destination,
            length: length as u32,
            payload: parsed.payload as u32,
            rule: match decision.rule {
                Some(rule) => u32::from(rule) + 1,
                None => 0,
            },
            vlans: parsed.vlans.ids,
            source_port,
            destination_port,
            class,
            verdict: decision.verdict as u8,
            reason: decision.reason as u8,
            version,
            protocol: match parsed.protocol {
                Some(protocol) => u16::from(protocol.0) + 1,
                None => 0,
            },
            fragment: match parsed.fragment {
                Fragment::None => 0,
                Fragment::First => 1,
                Fragment::Later => 2,
            },
            vlan_count: parsed.vlans.count,
        }
    }
}

#[inline(always)]
const fn widen(address: Address) -> (u8, [u8; 16]) {
    match address {
        Address::None => (0, [0; 16]),
        Address::V4([a, b, c, d]) => (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Address::V6(address) => (6, address),
    }
}
