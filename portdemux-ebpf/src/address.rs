//! Packets that their port and their destination address decide about.

use aya_ebpf::programs::XdpContext;
use portdemux_common::{
    decide::Decision,
    packet::Packet as _,
    parse::{Parsed, Version, ipv4, ipv6},
    ruleset::{Claim, Entry, Head, RulesetTables as _, find_v4, find_v6},
};

use crate::{counting, frame::LinearFrame, ruleset::Ruleset, verifier};

/// Set in a word whose lower half is the entry that decides.
const IS_DECIDED: u64 = 1 << 32;

/// Decides about a packet by its address and counts it, if nothing else is to be asked; `open` is what its port says.
///
/// The frame is taken up anew, so that packets whose addresses are not asked for keep no register for it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
pub(crate) fn decide(
    ctx: &XdpContext,
    length: u64,
    parsed: &Parsed,
    open: Entry,
    ruleset: Ruleset,
) -> Option<Decision> {
    if !ruleset.header().asks_addresses_alone() {
        return None;
    }
    let ports = parsed.ports()?;
    let packet = ports.destination.index(ports.transport) as u64 | length << 32;
    let (head, open) = (ruleset.head(), open.bits());
    verifier::barrier();
    let frame = LinearFrame::new(ctx);
    let network = parsed.network;
    let decided = match parsed.version? {
        Version::V4 => {
            let address = frame.read(network + ipv4::DESTINATION)?;
            portdemux_address4(head, u32::from_ne_bytes(address), packet, open)
        }
        Version::V6 => {
            let [_, _, upper, lower] = frame.read_words(network + ipv6::SOURCE)?;
            portdemux_address6(head, upper, lower, packet, open)
        }
    };
    let entry = Entry::from_bits(decided as u32);
    (decided & IS_DECIDED != 0).then(|| Decision::closed(entry))
}

/// Decides about a packet to an IPv4 address, as it stands in the packet, and counts it. Of `packet`, bits 0 to 31 are the
/// index of its port, 32 to 63 its length in bytes. Returns the entry and [`IS_DECIDED`]; 0 if more is to be asked.
///
/// A function of its own, so that it is verified once and not behind each way through the parser.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_address4(head: *const Head, address: u32, packet: u64, open: u32) -> u64 {
    let Some(ruleset) = Ruleset::given(head) else {
        return 0;
    };
    let claim = find_v4(&ruleset, address.to_ne_bytes(), key(packet));
    count(claim, packet, open)
}

/// The same of an IPv6 address: its first and its last 8 bytes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_address6(
    head: *const Head,
    upper: u64,
    lower: u64,
    packet: u64,
    open: u32,
) -> u64 {
    let Some(ruleset) = Ruleset::given(head) else {
        return 0;
    };
    let claim = find_v6(&ruleset, bytemuck::cast([upper, lower]), key(packet));
    count(claim, packet, open)
}

/// The [`span_key`](portdemux_common::ruleset::span_key) of the port of a packet: other than in its index, the port's
/// number is in host byte order.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
const fn key(packet: u64) -> u32 {
    packet as u32 & !0xffff | u16::from_be(packet as u16) as u32
}

/// Counts a packet if what its address claims decides about it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn count(claim: Claim, packet: u64, open: u32) -> u64 {
    let entry = claim.entry.or_else(|| Entry::from_bits(open));
    if !entry.is_final() {
        return 0;
    }
    let port = packet as u32 as usize;
    counting::count_known(packet >> 32, port, &Decision::closed(entry));
    u64::from(entry.bits()) | IS_DECIDED
}
