//! The headers that carry ports: TCP (RFC 9293 §3.1), UDP (RFC 768), SCTP (RFC 9260 §3.1).

use super::{Complaint, Continuation, Fragment, Lengths, Parsed};
use crate::{
    packet::Packet,
    reason::Reason,
    wire::{IpProto, Port, Transport},
};

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const SCTP_HEADER: usize = 12;

/// What an ICMP error promises of the header it quotes (RFC 792).
const QUOTED_HEADER: usize = 8;

/// Reads the header of `parsed.protocol` at `parsed.payload`, `left` bytes before the packet ends.
///
/// A header that is not there in full has no ports, on a first fragment either: otherwise the rest
/// could overwrite it (RFC 1858 §3). Lengths beyond the packet are the rule in a first fragment.
#[inline(always)]
pub(super) fn parse<P, E, C>(
    packet: &P,
    left: usize,
    lengths: Lengths,
    parsed: &mut Parsed,
    then: C,
) -> Result<C::Output, E>
where
    P: Packet + ?Sized,
    E: Complaint,
    C: Continuation<P>,
{
    let (transport, header) = match parsed.protocol {
        IpProto::TCP => (Transport::Tcp, TCP_HEADER),
        IpProto::UDP => (Transport::Udp, UDP_HEADER),
        IpProto::SCTP => (Transport::Sctp, SCTP_HEADER),
        _ => return Ok(then.sound(packet, parsed)),
    };
    let (header, transport_to_check) = match lengths {
        Lengths::Enforced => (header, Some(transport)),
        Lengths::Quoted => (QUOTED_HEADER, None),
    };
    if left < header {
        return Err(E::about(Reason::L4Short));
    }
    let Some([s0, s1, d0, d1, len_high, len_low, _, _]) =
        packet.read::<QUOTED_HEADER>(parsed.payload)
    else {
        return Err(E::about(Reason::L4Short));
    };
    let may_end_early = matches!(parsed.fragment, Fragment::First);
    match transport_to_check {
        Some(Transport::Tcp) => {
            let Some([data_offset]) = packet.read::<1>(parsed.payload + 12) else {
                return Err(E::about(Reason::L4Short));
            };
            let data_offset = usize::from(data_offset >> 4) * 4;
            if data_offset < TCP_HEADER {
                return Err(E::about(Reason::TcpDoff));
            }
            if data_offset > left && !may_end_early {
                return Err(E::about(Reason::TcpDoffLong));
            }
        }
        Some(Transport::Udp) => {
            let length = usize::from(u16::from_be_bytes([len_high, len_low]));
            if length < UDP_HEADER {
                return Err(E::about(Reason::UdpLenSmall));
            }
            if length > left && !may_end_early {
                return Err(E::about(Reason::UdpLenLong));
            }
        }
        Some(Transport::Sctp) | None => {}
    }
    parsed.transport = Some(transport);
    parsed.source_port = Port([s0, s1]);
    parsed.destination_port = Port([d0, d1]);
    Ok(then.sound(packet, parsed))
}
