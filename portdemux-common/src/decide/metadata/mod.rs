//! Packets that more than their port decides about.

mod claim;
mod flow;
mod judge;
mod read;

use bytemuck::{Pod, Zeroable};

use super::tracks_fragments;
use crate::{
    conntrack::Tuple,
    decision::Outcome,
    entry::Entry,
    fragments::Piece,
    ids::Generation,
    parse::{Address, Fragment, Parsed, Version},
    ruleset::RulesetTables,
    wire::{Port, Transport},
};

/// What is known of a packet that its port alone does not decide about.
///
/// The kernel writes it down before it goes on: the verifier knows nothing of what it reads back, so
/// that all ways through the parser meet there and the rest is verified once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Metadata {
    /// The source address as it stands in the packet; IPv4 fills the first four bytes, and zeros
    /// follow.
    pub source: [u64; 2],
    /// The destination address, likewise.
    pub destination: [u64; 2],
    /// The generation that its entry is from.
    pub generation: Generation,
    /// Length of its frame in bytes.
    pub length: u64,
    /// What the table of ports says about its port, and after [`Metadata::claim`] what all rules say.
    pub entry: Entry,
    /// The shadow that its port has, after [`Metadata::claim`].
    pub shadow: Entry,
    /// Where its IP header begins, in bytes from the start of the frame. It shares a word with the next, as of a
    /// socket lookup both are 0, and LLVM stores them at once: the verifier takes that from the stack if it is aligned.
    pub network: u32,
    /// Where its terminal protocol's header begins, in bytes from the start of the frame.
    pub payload: u32,
    /// Index of its destination port in tables of ports; beyond all of them if it has none.
    pub port: u32,
    /// Its source port, big-endian.
    pub source_port: [u8; 2],
    /// Its destination port, big-endian.
    pub destination_port: [u8; 2],
    /// What kind of packet it is, in one word: bits 0 to 7 [`Version`], 8 to 15 [`Transport`], 16 to 23
    /// [`Fragment`], 24 to 31 the terminal protocol.
    kind: u32,
    /// TCP: its flags. SCTP: the type of the first chunk, 255 if there is none. ICMP: its type.
    pub flags: u8,
    /// 1 if its headers may lie in several buffers.
    pub scattered: u8,
    /// Length of its transport header in words of 4 bytes.
    pub header: u8,
    /// 1 if it is of a flow that is known, half-open or not.
    pub is_known: u8,
    /// TCP: sequence and acknowledgment number, big-endian. ICMP echo: in the first two bytes the
    /// identifier.
    pub numbers: [[u8; 4]; 2],
    /// Of a fragment: the identification of its packet, big-endian; IPv4 fills the first two bytes.
    pub identification: [u8; 4],
    /// Of a fragment of an IPv6 packet: where its fragment header begins, in bytes from the start of the
    /// frame.
    pub fragmentation: u32,
    /// Of a fragment: how far into its packet the first one reaches, or where a later one begins, in units
    /// of 8 bytes.
    pub reach: u16,
    /// Fills the word.
    reserved: [u16; 3],
}

const _: () = assert!(size_of::<Metadata>() == 104);

impl Metadata {
    /// What `parsed` says; `length` is that of the whole frame.
    #[must_use]
    pub fn new(parsed: &Parsed, entry: Entry, generation: Generation, length: u64) -> Self {
        let mut metadata = Self::default();
        metadata.write_down(parsed, entry, generation, length, false);
        metadata
    }

    /// Writes down what `parsed` says, so that the packet can be read again by it; `length` is that of
    /// the whole frame, and `scattered` says whether its headers may lie in several buffers.
    ///
    /// What [`Metadata::read`] and its like read is left as it was.
    #[inline(always)]
    pub fn write_down(
        &mut self,
        parsed: &Parsed,
        entry: Entry,
        generation: Generation,
        length: u64,
        scattered: bool,
    ) {
        self.generation = generation;
        self.length = length;
        self.entry = entry;
        self.shadow = Entry::UNCLAIMED;
        self.network = narrow(parsed.network);
        self.payload = narrow(parsed.payload);
        self.fragmentation = narrow(parsed.fragmentation);
        self.source_port = parsed.source_port.0;
        self.destination_port = parsed.destination_port.0;
        let version = match parsed.version {
            Some(version) => version as u32,
            None => 0,
        };
        let transport = match parsed.transport {
            Some(transport) => transport as u32,
            None => narrow(Transport::COUNT),
        };
        self.port = match parsed.ports() {
            Some(ports) => narrow(ports.destination.index(ports.transport)),
            None => u32::MAX,
        };
        let fragment = parsed.fragment as u32;
        self.kind = version | transport << 8 | fragment << 16 | u32::from(parsed.protocol.0) << 24;
        self.scattered = u8::from(scattered);
        self.is_known = 0;
    }

    #[inline(always)]
    const fn is_later(&self) -> bool {
        self.fragment() == Fragment::Later as u8
    }

    /// Whether what came of the first fragment of its packet is asked for.
    #[inline(always)]
    #[must_use]
    pub fn follows<R: RulesetTables>(&self, ruleset: &R) -> bool {
        self.is_later() && tracks_fragments(ruleset)
    }

    /// Whether what comes of it is remembered for the other fragments of its packet.
    #[inline(always)]
    #[must_use]
    pub fn leads<R: RulesetTables>(&self, ruleset: &R) -> bool {
        self.fragment() == Fragment::First as u8 && tracks_fragments(ruleset)
    }

    /// It as a fragment of its packet, of which this came.
    ///
    /// Packets are told apart as receivers do it: IPv4 by the addresses, the protocol and the identification
    /// (RFC 791 §3.2), IPv6 without the protocol, which each fragment may give as it likes (RFC 8200 §4.5),
    /// and none by VLAN or interface.
    #[inline(always)]
    #[must_use]
    pub const fn piece(&self, outcome: Outcome) -> Piece {
        let [a, b, c, d] = self.identification;
        let protocol = match self.version() {
            Version::V4 => self.protocol(),
            Version::V6 => 0,
        };
        let (to, from) = ((self.destination, [a, b]), (self.source, [c, d]));
        let packet = Tuple::new(to, from, protocol, self.version_number());
        Piece::new(packet, outcome, self.generation, self.reach, self.port)
    }

    /// Whether it has ports.
    #[inline(always)]
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        self.port != u32::MAX
    }

    /// Whether it is a fragment.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.fragment() != Fragment::None as u8
    }

    /// Index of its source port in tables of ports; beyond all of them if it has none.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "indices have 18 bits")]
    pub const fn source_slot(&self) -> u32 {
        match self.transport() {
            Some(transport) => Port(self.source_port).index(transport) as u32,
            None => u32::MAX,
        }
    }

    /// The upper and lower 64 bits of its source address; of IPv4 the address and 0.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> [u64; 2] {
        match self.version() {
            Version::V4 => [u64::from(u32::from_be_bytes(v4_bytes(self.source))), 0],
            Version::V6 => self.source.map(u64::from_be),
        }
    }

    /// Its destination address.
    #[must_use]
    pub fn destination_address(&self) -> Address {
        match self.version() {
            Version::V4 => Address::V4(v4_bytes(self.destination)),
            Version::V6 => Address::V6(bytemuck::cast(self.destination)),
        }
    }

    /// [`Version`]; 0 if it has none.
    #[inline(always)]
    const fn version_number(&self) -> u8 {
        let [version, ..] = self.kind.to_le_bytes();
        version
    }

    /// [`Fragment`].
    #[inline(always)]
    pub(crate) const fn fragment(&self) -> u8 {
        let [_, _, fragment, _] = self.kind.to_le_bytes();
        fragment
    }

    /// The terminal protocol.
    #[inline(always)]
    pub(crate) const fn protocol(&self) -> u8 {
        let [.., protocol] = self.kind.to_le_bytes();
        protocol
    }

    /// The version of its IP.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> Version {
        if self.version_number() == Version::V6 as u8 {
            Version::V6
        } else {
            Version::V4
        }
    }

    /// The protocol whose ports it has.
    #[inline(always)]
    #[must_use]
    pub const fn transport(&self) -> Option<Transport> {
        const TCP: u8 = Transport::Tcp as u8;
        const UDP: u8 = Transport::Udp as u8;
        const SCTP: u8 = Transport::Sctp as u8;
        let [_, transport, ..] = self.kind.to_le_bytes();
        match transport {
            TCP => Some(Transport::Tcp),
            UDP => Some(Transport::Udp),
            SCTP => Some(Transport::Sctp),
            _ => None,
        }
    }
}

/// An offset or an index, of which all are small.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "offsets and indices have less than 20 bits"
)]
const fn narrow(number: usize) -> u32 {
    number as u32
}

/// An offset that is known to be below 20,000, so that the verifier knows it, too.
#[inline(always)]
pub(crate) const fn bounded(offset: u32) -> usize {
    (offset & 0x7fff) as usize
}

#[inline(always)]
const fn v4_bytes(address: [u64; 2]) -> [u8; 4] {
    let [word, _] = address;
    #[expect(clippy::cast_possible_truncation, reason = "the rest is zeros")]
    (word as u32).to_ne_bytes()
}
