//! The headers that carry ports: TCP (RFC 9293 §3.1), UDP (RFC 768), SCTP (RFC 9260 §3.1).

use super::{Complaint, Continuation, Fragment, Lengths, Parsed, header};
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
///
/// Each protocol hands the frame on by itself, so that what follows is compiled for it.
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
    let may_end_early = matches!(parsed.fragment, Fragment::First);
    match (lengths, parsed.protocol) {
        (Lengths::Quoted, protocol) => {
            let Some(transport) = dispatched(protocol) else {
                return Ok(then.sound(packet, parsed));
            };
            let header: header::Quoted =
                bytemuck::cast(read::<P, E, QUOTED_HEADER>(packet, parsed, left)?);
            Ok(finish(packet, parsed, transport, header.ports, then))
        }
        (Lengths::Enforced, IpProto::TCP) => {
            let header: header::Tcp =
                bytemuck::cast(read::<P, E, TCP_HEADER>(packet, parsed, left)?);
            let data_offset = usize::from(header.data_offset >> 4) * 4;
            if data_offset < TCP_HEADER {
                return Err(E::about(Reason::TcpDoff));
            }
            if data_offset > left && !may_end_early {
                return Err(E::about(Reason::TcpDoffLong));
            }
            Ok(finish(packet, parsed, Transport::Tcp, header.ports, then))
        }
        (Lengths::Enforced, IpProto::UDP) => {
            let header: header::Udp =
                bytemuck::cast(read::<P, E, UDP_HEADER>(packet, parsed, left)?);
            let length = usize::from(u16::from_be_bytes(header.length));
            if length < UDP_HEADER {
                return Err(E::about(Reason::UdpLenSmall));
            }
            if length > left && !may_end_early {
                return Err(E::about(Reason::UdpLenLong));
            }
            Ok(finish(packet, parsed, Transport::Udp, header.ports, then))
        }
        (Lengths::Enforced, IpProto::SCTP) => {
            let header: header::Sctp =
                bytemuck::cast(read::<P, E, SCTP_HEADER>(packet, parsed, left)?);
            Ok(finish(packet, parsed, Transport::Sctp, header.ports, then))
        }
        (Lengths::Enforced, _) => Ok(then.sound(packet, parsed)),
    }
}

/// Reads the `N` bytes that a header must have.
#[inline(always)]
fn read<P, E, const N: usize>(packet: &P, parsed: &Parsed, left: usize) -> Result<[u8; N], E>
where
    P: Packet + ?Sized,
    E: Complaint,
{
    if left < N {
        return Err(E::about(Reason::L4Short));
    }
    match packet.read(parsed.payload) {
        Some(header) => Ok(header),
        None => Err(E::about(Reason::L4Short)),
    }
}

/// Notes the ports, with which every one of these headers begins, and hands the frame on.
#[inline(always)]
fn finish<P, C>(
    packet: &P,
    parsed: &mut Parsed,
    transport: Transport,
    ports: header::PortBytes,
    then: C,
) -> C::Output
where
    P: Packet + ?Sized,
    C: Continuation<P>,
{
    parsed.transport = Some(transport);
    parsed.source_port = Port(ports.source);
    parsed.destination_port = Port(ports.destination);
    then.sound(packet, parsed)
}

fn dispatched(protocol: IpProto) -> Option<Transport> {
    match protocol {
        IpProto::TCP => Some(Transport::Tcp),
        IpProto::UDP => Some(Transport::Udp),
        IpProto::SCTP => Some(Transport::Sctp),
        _ => None,
    }
}
