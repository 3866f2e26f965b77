//! The semantics written down a second time, for comparison: here those of a packet by itself, in [`model`] those of
//! packets that follow one another.
//!
//! This one cuts the frame into smaller and smaller slices, so that a byte outside of the packet
//! cannot even be named, and knows no speed. It shares no code with the parser of the product.

pub mod claims;
mod facts;
mod flows;
mod fragments;
pub mod judgement;
pub mod model;
mod rates;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::answer::{Answer, Class, Fragment};

type Malformed = &'static str;

/// Whether length fields have to be true and whole headers to be there.
#[derive(Clone, Copy, PartialEq)]
enum Trust {
    Whole,
    Quoted,
}

/// What is to be said about a frame.
#[must_use]
pub fn answer(frame: &[u8]) -> Answer {
    read(frame).0
}

/// What is to be said about the packet that a frame quotes, if it is an ICMP error.
#[must_use]
pub fn quoted(frame: &[u8]) -> Option<Answer> {
    read_quoted(frame).map(|(answer, _)| answer)
}

/// The answer about the packet that a frame quotes, and the bytes of its terminal protocol.
fn read_quoted(frame: &[u8]) -> Option<(Answer, &[u8])> {
    let (outer, message) = read(frame);
    if outer.class != Class::NoPorts || outer.fragment == Fragment::Later {
        return None;
    }
    let mut answer = Answer::nothing();
    let inner = message.get(8..).unwrap_or_default();
    let result = match (outer.source?, outer.protocol?, message.first()?) {
        (IpAddr::V4(_), 1, 3 | 4 | 5 | 11 | 12) => ipv4(inner, Trust::Quoted, &mut answer),
        (IpAddr::V6(_), 58, 1..=4) => ipv6(inner, Trust::Quoted, &mut answer),
        _ => return None,
    };
    let rest = *result.as_ref().unwrap_or(&[].as_slice());
    finish(&mut answer, result);
    Some((answer, rest))
}

/// The answer, and the bytes of the terminal protocol where they are sound.
fn read(frame: &[u8]) -> (Answer, &[u8]) {
    let mut answer = Answer::nothing();
    let result = ethernet(frame, &mut answer);
    let message = *result.as_ref().unwrap_or(&[].as_slice());
    finish(&mut answer, result);
    (answer, message)
}

fn finish(answer: &mut Answer, result: Result<&[u8], Malformed>) {
    if let Err(reason) = result {
        answer.class = Class::Malformed;
        answer.reason = Some(reason);
        answer.ports = None;
    } else if answer.ports.is_some() {
        answer.class = Class::Ports;
    } else if answer.source.is_some() {
        answer.class = Class::NoPorts;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from(*bytes.get(at)?) << 8 | u16::from(*bytes.get(at + 1)?))
}

// Rules 1 to 3.
fn ethernet<'f>(frame: &'f [u8], answer: &mut Answer) -> Result<&'f [u8], Malformed> {
    let mut ether_type = word(frame, 12).ok_or("eth_short")?;
    let mut rest = frame.get(14..).ok_or("eth_short")?;
    while ether_type == 0x8100 || ether_type == 0x88a8 {
        if answer.vlans.len() == 2 {
            return Err("vlan_depth");
        }
        let (tag, after) = rest.split_at_checked(4).ok_or("vlan_short")?;
        answer.vlans.push(word(tag, 0).unwrap_or_default() % 4096);
        ether_type = word(tag, 2).unwrap_or_default();
        rest = after;
    }
    match ether_type {
        0x0800 => ipv4(rest, Trust::Whole, answer),
        0x86dd => ipv6(rest, Trust::Whole, answer),
        _ => Ok(&[]),
    }
}

// Rules 4 to 8.
fn ipv4<'f>(bytes: &'f [u8], trust: Trust, answer: &mut Answer) -> Result<&'f [u8], Malformed> {
    let header = bytes.get(..20).ok_or("ip4_short")?;
    if header[0] / 16 != 4 {
        return Err("ip4_version");
    }
    let header_length = usize::from(header[0] % 16) * 4;
    if header_length < 20 {
        return Err("ip4_ihl");
    }
    let mut payload = bytes.get(header_length..).ok_or("ip4_opts_short")?;
    let total_length = usize::from(header[2]) * 256 + usize::from(header[3]);
    if trust == Trust::Whole {
        if total_length < header_length {
            return Err("ip4_totlen_small");
        }
        payload = payload
            .get(..total_length - header_length)
            .ok_or("ip4_totlen_long")?;
    }
    let address = |at: usize| {
        IpAddr::V4(Ipv4Addr::new(
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ))
    };
    answer.source = Some(address(12));
    answer.destination = Some(address(16));
    answer.protocol = Some(header[9]);
    let more_fragments = header[6] & 0b0010_0000 != 0;
    let offset = usize::from(header[6] & 0b0001_1111) * 256 + usize::from(header[7]);
    if offset != 0 {
        answer.fragment = Fragment::Later;
        return Ok(payload);
    }
    if more_fragments {
        answer.fragment = Fragment::First;
    }
    transport(header[9], payload, trust, answer)
}

// Rules 9 to 12.
fn ipv6<'f>(bytes: &'f [u8], trust: Trust, answer: &mut Answer) -> Result<&'f [u8], Malformed> {
    let (header, mut rest) = bytes.split_at_checked(40).ok_or("ip6_short")?;
    if header[0] / 16 != 6 {
        return Err("ip6_version");
    }
    let payload_length = usize::from(header[4]) * 256 + usize::from(header[5]);
    let mut kind = header[6];
    if trust == Trust::Whole {
        rest = rest.get(..payload_length).ok_or("ip6_plen_long")?;
        if payload_length == 0 && kind == 0 {
            return Err("ip6_jumbo");
        }
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    answer.source = Some(address(8));
    answer.destination = Some(address(24));
    answer.protocol = Some(kind);
    let mut walked = 0;
    while matches!(kind, 0 | 43 | 44 | 51 | 60) {
        if walked == 8 {
            return Err("ip6_ext_limit");
        }
        walked += 1;
        // No extension header is shorter than 8 bytes.
        let start = rest.get(..8).ok_or("ip6_ext_short")?;
        let length = usize::from(start[1]);
        let size = match kind {
            44 => 8,
            51 => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        let after = rest.get(size..).ok_or("ip6_ext_short")?;
        let was_fragment = kind == 44;
        kind = start[0];
        answer.protocol = Some(kind);
        if was_fragment {
            if usize::from(start[2]) * 32 + usize::from(start[3] / 8) != 0 {
                answer.fragment = Fragment::Later;
                return Ok(after);
            }
            if start[3] % 2 == 1 {
                answer.fragment = Fragment::First;
            }
        }
        rest = after;
    }
    transport(kind, rest, trust, answer)
}

// Rules 13 to 15.
fn transport<'f>(
    protocol: u8,
    payload: &'f [u8],
    trust: Trust,
    answer: &mut Answer,
) -> Result<&'f [u8], Malformed> {
    let whole = match protocol {
        6 => 20,
        17 => 8,
        132 => 12,
        _ => return Ok(payload),
    };
    let needed = if trust == Trust::Whole { whole } else { 8 };
    let header = payload.get(..needed).ok_or("l4_short")?;
    if trust == Trust::Whole {
        let may_end_early = answer.fragment == Fragment::First;
        if protocol == 6 {
            let data_offset = usize::from(header[12] / 16) * 4;
            if data_offset < 20 {
                return Err("tcp_doff");
            }
            if data_offset > payload.len() && !may_end_early {
                return Err("tcp_doff_long");
            }
        }
        if protocol == 17 {
            let length = usize::from(header[4]) * 256 + usize::from(header[5]);
            if length < 8 {
                return Err("udp_len_small");
            }
            if length > payload.len() && !may_end_early {
                return Err("udp_len_long");
            }
        }
    }
    answer.ports = word(header, 0).zip(word(header, 2));
    Ok(payload)
}
