//! What is read of a packet that is decided about step by step.

use core::hint::cold_path;

use super::{Metadata, bounded};
use crate::{
    entry::Entry,
    packet::Packet,
    parse::{self, Version, fragment, ipv4, ipv6},
    wire::Transport,
};

impl Metadata {
    /// Reads what else matters of the packet that it was written down for.
    #[inline(always)]
    pub fn read<P: Packet + ?Sized>(&mut self, packet: &P) {
        self.read_addresses(packet);
        self.read_signal(packet);
    }

    /// Reads the addresses.
    #[inline(always)]
    pub fn read_addresses<P: Packet + ?Sized>(&mut self, packet: &P) {
        let network = bounded(self.network);
        // Each version by itself: an address that may be of either would be put together on the stack.
        match self.version() {
            Version::V4 => {
                let addresses: [u8; 8] = packet.read(network + ipv4::SOURCE).unwrap_or_default();
                let [source, destination]: [[u8; 4]; 2] = bytemuck::cast(addresses);
                self.source = v4_words(source);
                self.destination = v4_words(destination);
            }
            Version::V6 => {
                let words = packet.read_words(network + ipv6::SOURCE);
                let [a, b, c, d] = words.unwrap_or_default();
                self.source = [a, b];
                self.destination = [c, d];
            }
        }
    }

    /// Reads what the packet signals to its peer: TCP's flags and numbers, SCTP's first chunk, an ICMP
    /// message's type; 255 stands for what is not there.
    #[inline(always)]
    pub fn read_signal<P: Packet + ?Sized>(&mut self, packet: &P) {
        let payload = bounded(self.payload);
        self.flags = u8::MAX;
        self.numbers = [[0; 4]; 2];
        match self.transport() {
            Some(Transport::Tcp) => {
                let header: [u8; 20] = packet.read(payload).unwrap_or_default();
                let [_, sequence, acknowledged, [offset, flags, ..], _]: [[u8; 4]; 5] =
                    bytemuck::cast(header);
                self.header = offset >> 4;
                self.flags = flags;
                self.numbers = [sequence, acknowledged];
            }
            Some(Transport::Sctp) => {
                self.header = 3;
                // The common header and the head of a chunk (RFC 9260 §3).
                if let Some([.., chunk, _, _, _]) = packet.read::<16>(payload) {
                    self.flags = chunk;
                }
            }
            Some(Transport::Udp) => self.header = 2,
            None => {
                self.header = 0;
                if let Some([kind, _, _, _, a, b]) = packet.read::<6>(payload) {
                    self.flags = kind;
                    self.numbers = [[a, b, 0, 0], [0; 4]];
                }
            }
        }
    }

    /// Reads which packet it is a fragment of and which part of that, if it is one.
    #[inline(always)]
    pub fn read_extent<P: Packet + ?Sized>(&mut self, packet: &P) {
        if !self.is_fragment() {
            return;
        }
        cold_path();
        let (network, header) = (bounded(self.network), bounded(self.fragmentation));
        let extent = fragment::extent(packet, self.version(), network, header);
        self.identification = extent.identification;
        self.reach = if self.is_later() {
            extent.begin
        } else {
            extent.end
        };
    }

    /// Reads the packet that it quotes if it is an error, which is one that this host has sent; none if too little of it
    /// is there. Written down for `about`.
    #[inline(always)]
    pub fn read_quoted<P: Packet + ?Sized>(&self, packet: &P, about: &mut Self) {
        let (version, network) = (self.version(), bounded(self.network));
        let length = match parse::length(packet, version, network) {
            Some(length) => network + length,
            None => 0,
        };
        let packet = Measured { packet, length };
        let parsed = parse::quoted(&packet, version, bounded(self.payload));
        about.write_down(&parsed, Entry::UNCLAIMED, self.generation, 0, false);
        if parsed.malformed.is_some() {
            about.kind &= !0xff;
        }
        about.read(&packet);
    }
}

/// A packet that ends where it says so; padding may follow.
struct Measured<'a, P: ?Sized> {
    packet: &'a P,
    length: usize,
}

impl<P: Packet + ?Sized> Packet for Measured<'_, P> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // What is quoted stands anywhere.
        let offset = self.packet.locate(offset)?;
        if offset + N > self.length {
            return None;
        }
        self.packet.read(offset)
    }
}

#[inline(always)]
fn v4_words(address: [u8; 4]) -> [u64; 2] {
    [u64::from(u32::from_ne_bytes(address)), 0]
}
