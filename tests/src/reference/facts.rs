//! What a packet says besides addresses and ports that matters to the packets after it.

use std::net::IpAddr;

use super::{read, read_quoted, word};
use crate::answer::{Answer, Class, Fragment};

/// What a packet says about its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SYN, INIT.
    Begin,
    /// COOKIE ECHO: the beginning goes on, and proves nothing to who only looks on.
    Cookie,
    /// SYN and ACK, INIT ACK, and the number with which it begins.
    Accept(u32),
    /// FIN, SHUTDOWN, SHUTDOWN ACK.
    Finish,
    /// RST, ABORT, SHUTDOWN COMPLETE.
    Break,
    /// Anything else, and the number that it acknowledges.
    Other(u32),
}

/// The two ends of a flow as this host sees them, and the protocol. Of pings the identifier stands for the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) protocol: u8,
    pub(super) local: (IpAddr, u16),
    pub(super) remote: (IpAddr, u16),
}

/// A packet and which one it is a fragment of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Whole {
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    /// Of IPv4 alone: each fragment of IPv6 may name another.
    protocol: Option<u8>,
}

/// A fragment of a packet, from and to which byte of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) whole: Whole,
    pub(super) begin: usize,
    pub(super) end: usize,
}

/// What a packet is about.
pub(super) enum About {
    /// It is no error.
    Nothing,
    /// An error about a packet of this flow of the host's, if that can be read and is of a kind that has flows.
    Error(Option<Key>),
}

/// What a frame says.
#[derive(Debug)]
pub(super) struct Facts<'f> {
    frame: &'f [u8],
    pub(super) answer: Answer,
    /// What the terminal protocol has.
    body: &'f [u8],
}

impl<'f> Facts<'f> {
    pub(super) fn of(frame: &'f [u8]) -> Self {
        let (answer, body) = read(frame);
        Self {
            frame,
            answer,
            body,
        }
    }

    /// The type of an ICMP message and whether it is of IPv6.
    pub(super) fn icmp(&self) -> Option<(bool, u8)> {
        icmp(&self.answer, self.body)
    }

    /// The flow of a packet that came in.
    pub(super) fn received(&self) -> Option<Key> {
        key(&self.answer, self.body).map(|(source, destination, protocol)| Key {
            protocol,
            local: destination,
            remote: source,
        })
    }

    /// The flow of a packet that goes out.
    pub(super) fn sent(&self) -> Option<Key> {
        sent(&self.answer, self.body)
    }

    /// Whether it is an ICMP error, and the flow of the packet that it is about, which this host has sent.
    pub(super) fn about(&self) -> About {
        match read_quoted(self.frame) {
            Some((answer, body)) if self.answer.fragment == Fragment::None => {
                About::Error(sent(&answer, body).filter(|_| answer.class != Class::Malformed))
            }
            _ => About::Nothing,
        }
    }

    /// Whether it is of a kind that begins flows.
    pub(super) fn may_begin(&self) -> bool {
        self.answer.ports.is_some() || matches!(self.icmp(), Some((false, 8) | (true, 128)))
    }

    /// What it says about its flow.
    pub(super) fn signal(&self) -> Signal {
        let number = |at: usize| {
            let high = u32::from(word(self.body, at).unwrap_or_default());
            high << 16 | u32::from(word(self.body, at + 2).unwrap_or_default())
        };
        match (self.answer.protocol, self.answer.ports) {
            (Some(6), Some(_)) => {
                let flags = self.body.get(13).copied().unwrap_or_default();
                let [fin, syn, reset, ack] = [0, 1, 2, 4].map(|bit| flags >> bit & 1 == 1);
                match (reset, syn, fin) {
                    (true, ..) => Signal::Break,
                    (_, true, _) if ack => Signal::Accept(number(4)),
                    (_, true, _) => Signal::Begin,
                    (.., true) => Signal::Finish,
                    _ => Signal::Other(number(8)),
                }
            }
            // The first chunk stands behind 12 bytes, and has a head of four.
            (Some(132), Some(_)) => match (self.body.get(12), self.body.len() >= 16) {
                (Some(1), true) => Signal::Begin,
                (Some(2), true) => Signal::Accept(0),
                (Some(6 | 14), true) => Signal::Break,
                (Some(7 | 8), true) => Signal::Finish,
                (Some(10), true) => Signal::Cookie,
                _ => Signal::Other(0),
            },
            _ => Signal::Other(0),
        }
    }

    /// Which packet it is a fragment of, if it is one.
    pub(super) fn piece(&self) -> Option<Piece> {
        if self.answer.fragment == Fragment::None {
            return None;
        }
        let (source, destination) = (self.answer.source?, self.answer.destination?);
        let ip = self.frame.get(14 + 4 * self.answer.vlans.len()..)?;
        let whole = |identification, protocol| Whole {
            source,
            destination,
            identification,
            protocol,
        };
        if source.is_ipv4() {
            let length = usize::from(word(ip, 2)?) - 4 * usize::from(ip.first()? % 16);
            let begin = 8 * usize::from(word(ip, 6)? % 0x2000);
            return Some(Piece {
                whole: whole(word(ip, 4)?.into(), self.answer.protocol),
                begin,
                end: begin + length,
            });
        }
        let end = 40 + usize::from(word(ip, 4)?);
        let header = fragment_header(ip.get(..end)?)?;
        let at = end - header.len();
        let identification = u32::from(word(header, 4)?) << 16 | u32::from(word(header, 6)?);
        let begin = 8 * usize::from(word(header, 2)? / 8);
        Some(Piece {
            whole: whole(identification, None),
            begin,
            end: begin + end - at - 8,
        })
    }
}

/// An IPv6 packet from the fragment header on that makes it a fragment: the last one that says more than that it is whole.
fn fragment_header(packet: &[u8]) -> Option<&[u8]> {
    let mut kind = *packet.get(6)?;
    let mut rest = packet.get(40..)?;
    let mut found = None;
    loop {
        let size = match kind {
            0 | 43 | 60 => (usize::from(*rest.get(1)?) + 1) * 8,
            51 => (usize::from(*rest.get(1)?) + 2) * 4,
            44 => 8,
            _ => return found,
        };
        if kind == 44 {
            let says = word(rest, 2)?;
            if says & 0xfff9 != 0 {
                found = Some(rest);
            }
            if says >> 3 != 0 {
                return found;
            }
        }
        kind = *rest.first()?;
        rest = rest.get(size..)?;
    }
}

type Endpoint = (IpAddr, u16);

fn sent(answer: &Answer, body: &[u8]) -> Option<Key> {
    key(answer, body).map(|(source, destination, protocol)| Key {
        protocol,
        local: source,
        remote: destination,
    })
}

/// Source, destination and protocol of a packet of a kind that has flows.
fn key(answer: &Answer, body: &[u8]) -> Option<(Endpoint, Endpoint, u8)> {
    let (source, destination) = (answer.source?, answer.destination?);
    let protocol = answer.protocol?;
    if let Some((from, to)) = answer.ports {
        return Some(((source, from), (destination, to), protocol));
    }
    match icmp(answer, body)? {
        (false, 0 | 8) | (true, 128 | 129) => {
            let identifier = word(body, 4)?;
            Some(((source, identifier), (destination, identifier), protocol))
        }
        _ => None,
    }
}

fn icmp(answer: &Answer, body: &[u8]) -> Option<(bool, u8)> {
    if answer.class != Class::NoPorts || answer.fragment == Fragment::Later {
        return None;
    }
    match answer.protocol? {
        1 => Some((false, *body.first()?)),
        58 => Some((true, *body.first()?)),
        _ => None,
    }
}
