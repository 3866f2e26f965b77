//! What two ends say to each other.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::Random;
use crate::frames::{self, ICMP, Ipv4, Payload, SCTP, TCP, UDP, With as _};

/// A frame, and whether this host sends it.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) is_sent: bool,
    pub(super) frame: Vec<u8>,
}

/// Who says what, as a rule: whether it is the one who began, and what.
type Script = &'static [(bool, u8)];

/// Flags of segments.
const OF_TCP: Script = &[
    (true, 0x02),
    (false, 0x12),
    (true, 0x10),
    (true, 0x18),
    (false, 0x18),
    (false, 0x10),
    (true, 0x11),
    (false, 0x10),
    (false, 0x11),
    (true, 0x10),
];
/// Types of chunks.
const OF_SCTP: Script = &[
    (true, 1),
    (false, 2),
    (true, 10),
    (false, 11),
    (true, 0),
    (false, 3),
    (true, 7),
    (false, 8),
    (true, 14),
];
/// Nothing but who speaks.
const OF_UDP: Script = &[(true, 0), (false, 0), (true, 0), (false, 0)];
/// Whether it is an answer.
const OF_ECHO: Script = &[(true, 0), (false, 1)];

/// A conversation.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    protocol: u8,
    is_v6: bool,
    is_begun_here: bool,
    /// The last byte of the peer's address.
    peer: u8,
    /// The last byte of this host's address.
    host: u8,
    local: u16,
    remote: u16,
    /// How far the script has come.
    at: usize,
    /// The number with which the beginning was answered.
    accepted: u32,
}

impl Talk {
    pub(super) fn random(random: &mut Random) -> Self {
        let locals = [443, 443, 8080, 25, 53, 22, 8000, 40_001, 40_002, 40_003];
        let remotes = [443, 9000, 50_000, 50_001, 50_002, 50_003, 51_000];
        Self {
            protocol: random.pick(&[TCP, TCP, TCP, UDP, UDP, SCTP, ICMP]),
            is_v6: random.one_in(2),
            is_begun_here: random.one_in(2),
            peer: random.pick(&[1, 1, 7, 8, 9]),
            host: random.pick(&[2, 2, 2, 3]),
            local: random.pick(&locals),
            remote: random.pick(&remotes),
            at: 0,
            accepted: 100,
        }
    }

    /// What is said next: a frame, or the fragments of one.
    pub(super) fn next(&mut self, random: &mut Random) -> Vec<Said> {
        if random.one_in(12) {
            let quoted = self.payload(random, true, 0x10, 0);
            return vec![self.error(random, quoted)];
        }
        let (is_sent, what) = if random.one_in(8) {
            (random.one_in(2), self.anything(random))
        } else {
            self.scripted(random)
        };
        let acknowledged = if random.one_in(4) {
            random.pick(&[0, 1, 100, 101, 102, u32::MAX])
        } else {
            self.accepted.wrapping_add(1)
        };
        if self.protocol == TCP && what & 0x12 == 0x12 {
            self.accepted = random.pick(&[100, 101, u32::MAX]);
        }
        let payload = self.payload(random, is_sent, what, acknowledged);
        let is_cut = random.one_in(12);
        self.frames(random, is_sent, payload, is_cut)
            .into_iter()
            .map(|frame| Said { is_sent, frame })
            .collect()
    }

    /// What is to be said now, most often once.
    fn scripted(&mut self, random: &mut Random) -> (bool, u8) {
        let script = match self.protocol {
            TCP => OF_TCP,
            SCTP => OF_SCTP,
            UDP => OF_UDP,
            _ => OF_ECHO,
        };
        let (is_of_beginner, what) = script[self.at % script.len()];
        if !random.one_in(6) {
            self.at += 1;
        }
        (is_of_beginner == self.is_begun_here, what)
    }

    /// Anything that can be said.
    fn anything(&self, random: &mut Random) -> u8 {
        match self.protocol {
            TCP => random.pick(&[0, 0x01, 0x02, 0x04, 0x10, 0x11, 0x12, 0x14, 0x18, 0xc2]),
            SCTP => random.pick(&[0, 1, 2, 3, 4, 6, 7, 8, 10, 11, 14]),
            _ => random.pick(&[0, 1]),
        }
    }

    fn payload(&self, random: &mut Random, is_sent: bool, what: u8, acknowledged: u32) -> Payload {
        let (from, to) = if is_sent {
            (self.local, self.remote)
        } else {
            (self.remote, self.local)
        };
        let data = vec![7; random.pick(&[0, 0, 4, 30])];
        match self.protocol {
            TCP => frames::tcp(from, to)
                .with(|tcp| {
                    tcp.flags = what;
                    (tcp.sequence, tcp.acknowledgement) = (self.accepted, acknowledged);
                    tcp.data = data;
                })
                .into(),
            SCTP => {
                let chunk = [what, 0, 0, 4];
                // One without a chunk says nothing.
                let chunks = if random.one_in(16) { &[] } else { &chunk[..] };
                frames::sctp(from, to)
                    .with(|sctp| sctp.chunks = chunks.to_vec())
                    .into()
            }
            UDP => frames::udp(from, to).with(|udp| udp.data = data).into(),
            _ => {
                let kind = match (self.is_v6, what) {
                    (false, 0) => 8,
                    (false, _) => 0,
                    (true, 0) => 128,
                    (true, _) => 129,
                };
                let [high, low] = self.remote.to_be_bytes();
                frames::icmp(kind, 0)
                    .with(|icmp| (icmp.rest, icmp.body) = ([high, low, 0, 1], data))
                    .into()
            }
        }
    }

    /// An error about what this host sent, or is said to have sent.
    fn error(&self, random: &mut Random, quoted: Payload) -> Said {
        let is_ours = !random.one_in(8);
        let (from, to) = if is_ours {
            (self.host, self.peer)
        } else {
            (self.peer, self.host)
        };
        let (mut body, promised) = if self.is_v6 {
            let packet = frames::ipv6(quoted);
            (
                packet
                    .with(|ip| (ip.source, ip.destination) = (v6(from), v6(to)))
                    .bytes(),
                48,
            )
        } else {
            let packet = frames::ipv4(quoted);
            (
                packet
                    .with(|ip| (ip.source, ip.destination) = (v4(from), v4(to)))
                    .bytes(),
                28,
            )
        };
        if random.one_in(4) {
            body.truncate(random.below(body.len() + 1));
        } else if random.one_in(2) {
            body.truncate(promised);
        }
        let kind = if self.is_v6 {
            random.pick(&[1, 2, 3, 4, 128, 135, 138])
        } else {
            random.pick(&[3, 4, 5, 11, 12, 13])
        };
        let error = frames::icmp(kind, 0).with(|icmp| icmp.body = body);
        // Whoever is on the way can send it.
        let router = random.pick(&[self.peer, 99]);
        let frame = if self.is_v6 {
            let packet = frames::ipv6(error);
            packet
                .with(|ip| (ip.source, ip.destination) = (v6(router), v6(self.host)))
                .frame()
        } else {
            let packet = frames::ipv4(error);
            packet
                .with(|ip| (ip.source, ip.destination) = (v4(router), v4(self.host)))
                .frame()
        };
        Said {
            is_sent: false,
            frame: frame.bytes(),
        }
    }

    /// The frame of a packet, or its fragments in some order, now and then one of them twice or in the wrong place.
    fn frames(
        &self,
        random: &mut Random,
        is_sent: bool,
        payload: Payload,
        is_cut: bool,
    ) -> Vec<Vec<u8>> {
        let (from, to) = if is_sent {
            (self.host, self.peer)
        } else {
            (self.peer, self.host)
        };
        let size = random.pick(&[8, 16, 24, 32]);
        let id = random.pick(&[1, 2, 0x100]);
        let mut frames: Vec<Vec<u8>> = if self.is_v6 {
            let packet =
                frames::ipv6(payload).with(|ip| (ip.source, ip.destination) = (v6(from), v6(to)));
            if !is_cut {
                return vec![packet.frame().bytes()];
            }
            let mut pieces = packet.fragments(size);
            for piece in &mut pieces {
                if let Some(header) = piece.extensions.last_mut() {
                    header.body[2..6].copy_from_slice(&u32::from(id).to_be_bytes());
                    if random.one_in(12) {
                        header.body[1] ^= 1 << 3;
                    }
                }
            }
            pieces
                .iter()
                .map(|piece| piece.clone().frame().bytes())
                .collect()
        } else {
            let packet = frames::ipv4(payload)
                .with(|ip| (ip.source, ip.destination, ip.id) = (v4(from), v4(to), id));
            if !is_cut {
                return vec![packet.frame().bytes()];
            }
            let mut pieces: Vec<Ipv4> = packet.fragments(size);
            for piece in &mut pieces {
                if random.one_in(12) {
                    piece.offset ^= 1;
                }
            }
            pieces
                .iter()
                .map(|piece| piece.clone().frame().bytes())
                .collect()
        };
        if random.one_in(3) {
            let last = frames.len() - 1;
            frames.swap(0, last);
        }
        if random.one_in(4) {
            let again = random.below(frames.len());
            frames.push(frames[again].clone());
        }
        frames
    }
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

fn v6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into())
}
