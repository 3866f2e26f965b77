//! Packets that more than their port decides about.

use bytemuck::{Pod, Zeroable};

use super::Decision;
use crate::{
    packet::Packet,
    parse::{Parsed, Ports, Version},
    reason::Reason,
    ruleset::{Entry, RulesetImage},
    sources::Admission,
    state::Generation,
    wire::{Port, Transport},
};

/// What is known of a packet that its port alone does not decide about.
///
/// The kernel writes it down before it goes on: the verifier knows nothing of what it reads back, so
/// that all ways through the parser meet there and the rest is verified once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Pending {
    /// The source address as it stands in the packet; IPv4 fills the first four bytes, and zeros
    /// follow.
    pub source: [u64; 2],
    /// The destination address, likewise.
    pub destination: [u64; 2],
    /// The generation that its entry is from.
    pub generation: Generation,
    /// Length of its frame in bytes.
    pub length: u64,
    /// What the table of ports says about its port.
    pub entry: Entry,
    /// Where its IP header begins, in bytes from the start of the frame.
    pub network: u32,
    /// Where its terminal protocol's header begins, in bytes from the start of the frame.
    pub payload: u32,
    /// Its source port, big-endian.
    pub source_port: [u8; 2],
    /// Its destination port, big-endian.
    pub destination_port: [u8; 2],
    /// [`Version`].
    pub version: u8,
    /// [`Transport`].
    pub transport: u8,
    /// [`crate::parse::Fragment`].
    pub fragment: u8,
    /// The terminal protocol.
    pub protocol: u8,
    /// Fills the last word.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Pending>() == 72);

impl Pending {
    /// Writes down what is known of `packet`, which `parsed` was read from; `length` is that of the
    /// whole frame.
    #[inline(always)]
    #[must_use]
    pub fn new<P: Packet + ?Sized>(
        packet: &P,
        parsed: &Parsed,
        entry: Entry,
        generation: Generation,
        length: u64,
    ) -> Self {
        // Each version by itself: an address that may be of either would be put together on the stack.
        let (source, destination, version) = match parsed.version {
            Some(Version::V6) => (
                bytemuck::cast(parsed.source_v6(packet).unwrap_or_default()),
                bytemuck::cast(parsed.destination_v6(packet).unwrap_or_default()),
                Version::V6,
            ),
            Some(Version::V4) | None => (
                v4_words(parsed.source_v4(packet).unwrap_or_default()),
                v4_words(parsed.destination_v4(packet).unwrap_or_default()),
                Version::V4,
            ),
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "headers begin in the first 20,000 bytes of a frame"
        )]
        Self {
            source,
            destination,
            generation,
            length,
            entry,
            network: parsed.network as u32,
            payload: parsed.payload as u32,
            source_port: parsed.source_port.0,
            destination_port: parsed.destination_port.0,
            version: version as u8,
            transport: match parsed.transport {
                Some(transport) => transport as u8,
                None => Transport::COUNT as u8,
            },
            fragment: parsed.fragment as u8,
            protocol: parsed.protocol.0,
            reserved: 0,
        }
    }

    /// Decides about it.
    #[inline(always)]
    #[must_use]
    pub fn decide(&self, ruleset: &RulesetImage) -> Decision {
        let entry = self.at_address(ruleset).or_else(|| self.entry);
        if entry.is_conditional() {
            self.admit(entry, ruleset)
        } else {
            Decision::claimed(entry)
        }
    }

    /// Index of its destination port in tables of ports; beyond all of them if it has none.
    #[inline(always)]
    #[must_use]
    pub const fn port(&self) -> usize {
        match self.transport() {
            Some(transport) => Port(self.destination_port).index(transport),
            None => usize::MAX,
        }
    }

    /// What the rules that name its destination address say about its port.
    #[inline(always)]
    fn at_address(&self, ruleset: &RulesetImage) -> Entry {
        let Some(transport) = self.transport() else {
            return Entry::UNCLAIMED;
        };
        let ports = Ports {
            transport,
            source: Port(self.source_port),
            destination: Port(self.destination_port),
        };
        let version = self.version();
        if !ruleset.claims_addresses(version) {
            return Entry::UNCLAIMED;
        }
        match version {
            Version::V4 => ruleset.at_v4(v4_bytes(self.destination), ports),
            Version::V6 => ruleset.at_v6(bytemuck::cast(self.destination), ports),
        }
    }

    /// Judges its source by the terms of the rule that claims its port.
    #[inline(always)]
    fn admit(&self, entry: Entry, ruleset: &RulesetImage) -> Decision {
        let version = self.version();
        let source = match version {
            Version::V4 => [u64::from(u32::from_be_bytes(v4_bytes(self.source))), 0],
            Version::V6 => self.source.map(u64::from_be),
        };
        let Some(policy) = ruleset.policies.get(entry.rule() as usize) else {
            return Decision::dropped(Reason::SourceNotAllowed, entry);
        };
        let sizes = &ruleset.header.sources;
        let reason = match ruleset.sources.admit(sizes, version, source, policy) {
            Admission::Admitted => return Decision::claimed(entry),
            Admission::Denied => Reason::SourceDenied,
            Admission::NotAllowed => Reason::SourceNotAllowed,
        };
        Decision::dropped(reason, entry)
    }

    #[inline(always)]
    const fn version(&self) -> Version {
        if self.version == Version::V6 as u8 {
            Version::V6
        } else {
            Version::V4
        }
    }

    #[inline(always)]
    const fn transport(&self) -> Option<Transport> {
        const TCP: u8 = Transport::Tcp as u8;
        const UDP: u8 = Transport::Udp as u8;
        const SCTP: u8 = Transport::Sctp as u8;
        match self.transport {
            TCP => Some(Transport::Tcp),
            UDP => Some(Transport::Udp),
            SCTP => Some(Transport::Sctp),
            _ => None,
        }
    }
}

#[inline(always)]
fn v4_words(address: [u8; 4]) -> [u64; 2] {
    [u64::from(u32::from_ne_bytes(address)), 0]
}

#[inline(always)]
const fn v4_bytes(address: [u64; 2]) -> [u8; 4] {
    let [word, _] = address;
    #[expect(clippy::cast_possible_truncation, reason = "the rest is zeros")]
    (word as u32).to_ne_bytes()
}
