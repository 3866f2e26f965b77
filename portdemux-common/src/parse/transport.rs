//! The headers that carry ports: TCP (RFC 9293 §3.1), UDP (RFC 768), SCTP (RFC 9260 §3.1).

use super::{Class, Fragment, Lengths, Ports};
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

/// Reads the transport header at `offset`, `left` bytes before the packet ends.
///
/// A header that is not there in full has no ports, on a first fragment either: otherwise the rest
/// could overwrite it (RFC 1858 §3). Lengths beyond the packet are the rule in a first fragment.
#[inline(always)]
pub(super) fn parse<P: Packet + ?Sized>(
    packet: &P,
    protocol: IpProto,
    offset: usize,
    left: usize,
    fragment: Fragment,
    lengths: Lengths,
) -> Result<Class, Reason> {
    let (transport, header) = match protocol {
        IpProto::TCP => (Transport::Tcp, TCP_HEADER),
        IpProto::UDP => (Transport::Udp, UDP_HEADER),
        IpProto::SCTP => (Transport::Sctp, SCTP_HEADER),
        _ => return Ok(Class::NoPorts),
    };
    if lengths == Lengths::Quoted {
        if left < QUOTED_HEADER {
            return Err(Reason::L4Short);
        }
        return match packet.read::<4>(offset) {
            Some([s0, s1, d0, d1]) => Ok(ports(transport, [s0, s1], [d0, d1])),
            None => Err(Reason::L4Short),
        };
    }
    if left < header {
        return Err(Reason::L4Short);
    }
    match transport {
        Transport::Tcp => {
            let Some(bytes) = packet.read::<TCP_HEADER>(offset) else {
                return Err(Reason::L4Short);
            };
            let [s0, s1, d0, d1, _, _, _, _, _, _, _, _, data_offset, ..] = bytes;
            let data_offset = usize::from(data_offset >> 4) * 4;
            if data_offset < TCP_HEADER {
                return Err(Reason::TcpDoff);
            }
            if data_offset > left && fragment == Fragment::None {
                return Err(Reason::TcpDoffLong);
            }
            Ok(ports(transport, [s0, s1], [d0, d1]))
        }
        Transport::Udp => {
            let Some([s0, s1, d0, d1, len_high, len_low, _, _]) = packet.read::<UDP_HEADER>(offset)
            else {
                return Err(Reason::L4Short);
            };
            let length = usize::from(u16::from_be_bytes([len_high, len_low]));
            if length < UDP_HEADER {
                return Err(Reason::UdpLenSmall);
            }
            if length > left && fragment == Fragment::None {
                return Err(Reason::UdpLenLong);
            }
            Ok(ports(transport, [s0, s1], [d0, d1]))
        }
        Transport::Sctp => match packet.read::<SCTP_HEADER>(offset) {
            Some([s0, s1, d0, d1, ..]) => Ok(ports(transport, [s0, s1], [d0, d1])),
            None => Err(Reason::L4Short),
        },
    }
}

#[inline(always)]
fn ports(transport: Transport, source: [u8; 2], destination: [u8; 2]) -> Class {
    Class::Ports(Ports { transport, source: Port(source), destination: Port(destination) })
}
