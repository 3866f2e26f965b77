//! Ethernet II with VLAN tags (IEEE 802.3 §3, IEEE 802.1Q §9).

use super::{Complaint, Vlans, header};
use crate::{packet::Packet, reason::Reason, wire::EtherType};

/// How many VLAN tags are read; one more is malformed.
pub const MAX_TAGS: usize = 2;

const HEADER: usize = 14;
const TAG: usize = 4;

/// Reads destination, source, tags and `EtherType`; returns the last and where its payload begins.
#[inline(always)]
pub(super) fn parse<P: Packet + ?Sized, E: Complaint>(
    packet: &P,
    vlans: &mut Vlans,
) -> Result<(EtherType, usize), E> {
    let mut ether_type = match packet.read::<2>(HEADER - 2) {
        Some(bytes) => EtherType(u16::from_be_bytes(bytes)),
        None => return Err(E::about(Reason::EthShort)),
    };
    let mut offset = HEADER;
    for id in &mut vlans.ids {
        if !ether_type.is_tag() {
            return Ok((ether_type, offset));
        }
        let Some(tag) = packet.read::<TAG>(offset) else {
            return Err(E::about(Reason::VlanShort));
        };
        let tag: header::Tag = bytemuck::cast(tag);
        *id = u16::from_be_bytes(tag.control) & 0x0fff;
        vlans.count += 1;
        ether_type = EtherType(u16::from_be_bytes(tag.ether_type));
        offset += TAG;
    }
    if ether_type.is_tag() {
        Err(E::about(Reason::VlanDepth))
    } else {
        Ok((ether_type, offset))
    }
}
