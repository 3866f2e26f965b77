//! Which rejected packets are replied to, and with what.

use super::{IPV4_WORDS, IPV6_WORDS, MAC, RST, TCP_WORDS};
use crate::{
    decide::{Metadata, bounded},
    packet::Packet,
    parse::{Fragment, Version},
    wire::{ANY_MAC, MacWord, Transport, mac_word},
};

/// The type of an ABORT chunk (RFC 9260 §3.3.7).
const ABORT: u8 = 6;

/// What a rejected packet is replied to with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// Nothing.
    Silence,
    /// A TCP segment with RST.
    Reset,
    /// An ICMP error: the port cannot be reached.
    Unreachable,
}

impl ReplyKind {
    /// What a rejected packet is replied to with; `packet` are those of its bytes that can be changed in place.
    ///
    /// `own` is the MAC address of the interface. Nothing if the frame is for another or may be for or from more
    /// than one host, or from this one, if it is itself a refusal, or if
    /// it is no whole TCP segment (RFC 1122 §3.2.2, RFC 9293 §3.10.7.1, RFC 9260 §8.4).
    #[inline(always)]
    #[must_use]
    pub fn of<P: Packet + ?Sized>(metadata: &Metadata, packet: &P, own: MacWord) -> Self {
        let Some(macs) = packet.read::<{ 2 * MAC }>(0) else {
            return Self::Silence;
        };
        let [destination, source]: [[u8; MAC]; 2] = bytemuck::cast(macs);
        let ([to, ..], [from, ..]) = (destination, source);
        let is_for_another = own != ANY_MAC && own != mac_word(destination);
        if (to | from) & GROUP != 0 || is_for_another {
            return Self::Silence;
        }
        let (words, is_single) = match metadata.version() {
            Version::V4 => {
                let is_single = is_host_v4(metadata.source) && is_host_v4(metadata.destination);
                (IPV4_WORDS, is_single)
            }
            Version::V6 => {
                let is_single = is_host_v6(metadata.source) && is_host_v6(metadata.destination);
                (IPV6_WORDS, is_single)
            }
        };
        if !is_single {
            return Self::Silence;
        }
        let is_whole = metadata.fragment() == Fragment::None as u8;
        let (kind, last) = match metadata.transport() {
            Some(Transport::Tcp) if is_whole && metadata.flags & RST == 0 => {
                let headers = 4 * (words + TCP_WORDS);
                (Self::Reset, bounded(metadata.network) + headers - 4)
            }
            Some(Transport::Udp) => (Self::Unreachable, bounded(metadata.payload) + 4),
            Some(Transport::Sctp) if metadata.flags != ABORT => {
                (Self::Unreachable, bounded(metadata.payload) + 4)
            }
            Some(Transport::Tcp | Transport::Sctp) | None => return Self::Silence,
        };
        // What is written over, or quoted at least, has to lie in the part that can be changed.
        match packet.read::<4>(last) {
            Some(_) => kind,
            None => Self::Silence,
        }
    }
}

/// The bit of a MAC address that says that it is of a group (IEEE 802 §8.2).
const GROUP: u8 = 1;

/// Whether an address is neither unspecified, loopback, multicast, reserved nor broadcast (RFC 6890 §2.2.2).
#[inline(always)]
const fn is_host_v4(address: [u64; 2]) -> bool {
    let [[first, ..], _]: [[u8; 8]; 2] = [address[0].to_ne_bytes(), address[1].to_ne_bytes()];
    first != 0 && first != 127 && first < 224
}

/// Whether an address is neither unspecified, loopback nor multicast (RFC 4291 §2.4).
#[inline(always)]
const fn is_host_v6(address: [u64; 2]) -> bool {
    let [high, low] = address;
    let [first, ..] = high.to_ne_bytes();
    first != 0xff && (high != 0 || low != 0 && low != 1_u64.to_be())
}
