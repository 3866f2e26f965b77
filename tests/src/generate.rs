//! Frames by the million: sound ones, and sound ones with something broken.
//!
//! A frame is a function of its seed, so that a failure is a number and so that the kernel and the
//! host can be shown the same millions.

use std::net::IpAddr;

use crate::frames::{
    self, DCCP, Extension, Frame, IPV4, IPV6, Payload, SERVICE_VLAN, UDP_LITE, VLAN, With as _,
    ethernet, ipv4, ipv6,
};

mod random;
pub mod traffic;

pub use random::Random;

/// The frame of this seed.
#[must_use]
pub fn frame(seed: u64) -> Vec<u8> {
    Generator::default().frame(seed)
}

/// What frames are drawn from.
#[derive(Clone, Debug)]
pub struct Generator {
    /// Destination ports that a quarter of the frames use each; the rest use any port.
    pub ports: Vec<u16>,
    /// Addresses that half of the packets of their version are for, if there are any; the rest are
    /// for any address.
    pub addresses: Vec<IpAddr>,
    /// Source addresses that come up in about half of the packets of their family.
    pub sources: Vec<IpAddr>,
    /// The longest data after a transport header, in bytes.
    pub data: usize,
    /// Whether some frames are broken.
    pub breaks: bool,
}

impl Default for Generator {
    fn default() -> Self {
        Self {
            ports: vec![53, 443, 8080],
            addresses: Vec::new(),
            sources: Vec::new(),
            data: 64,
            breaks: true,
        }
    }
}

/// Bytes that stand at the edges of what headers mean.
const EDGES: [u8; 24] = [
    0, 1, 3, 4, 5, 6, 7, 8, 17, 31, 43, 44, 50, 51, 58, 59, 60, 0x40, 0x45, 0x4f, 0x60, 0x81, 132,
    255,
];

impl Generator {
    /// The frame of this seed.
    #[must_use]
    pub fn frame(&self, seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed);
        let mut bytes = self.sound(&mut random).bytes();
        if self.breaks && random.one_in(2) {
            for _ in 0..=random.below(3) {
                damage(&mut random, &mut bytes);
            }
        }
        bytes
    }

    fn sound(&self, random: &mut Random) -> Frame {
        let mut frame = match random.below(16) {
            0 => {
                let length = random.below(64);
                ethernet(random.word(), random.bytes(length))
            }
            1..=7 => self.ipv4(random),
            _ => self.ipv6(random),
        };
        let tags = [0, 0, 0, 0, 1, 1, 2, 3];
        for _ in 0..random.pick(&tags) {
            let kind = random.pick(&[VLAN, VLAN, SERVICE_VLAN, 0x9100]);
            frame = frame.tag(kind, random.word());
        }
        if random.one_in(4) {
            let length = random.below(64);
            frame = frame.padded(&random.bytes(length));
        }
        frame
    }

    fn ipv4(&self, random: &mut Random) -> Frame {
        let payload = self.payload(random, false);
        let mut packet = ipv4(payload).with(|ip| {
            ip.source = random.double_word().into();
            ip.destination = random.double_word().into();
            ip.flags = random.pick(&[0, 0, 2, 2, 1, 4, 3]);
        });
        if let Some(IpAddr::V4(address)) = Self::address(&self.addresses, random, IpAddr::is_ipv4) {
            packet.destination = address;
        }
        if let Some(IpAddr::V4(address)) = Self::address(&self.sources, random, IpAddr::is_ipv4) {
            packet.source = address;
        }
        if random.one_in(4) {
            let length = 4 * (1 + random.below(10));
            packet.options = random.bytes(length);
        }
        if random.one_in(8) {
            packet.offset = random.pick(&[1, 2, 0x100, 0x1000, 0x1fff]);
        }
        if random.one_in(24) {
            packet.total_length = Some(edge(random, packet.bytes().len()));
        }
        if random.one_in(32) {
            packet.ihl = Some(random.nibble());
        }
        if random.one_in(64) {
            packet.version = Some(random.nibble());
        }
        packet.frame()
    }

    fn ipv6(&self, random: &mut Random) -> Frame {
        let payload = self.payload(random, true);
        let mut packet = ipv6(payload).with(|ip| {
            ip.source = random.quad_word().into();
            ip.destination = random.quad_word().into();
        });
        if let Some(IpAddr::V6(address)) = Self::address(&self.addresses, random, IpAddr::is_ipv6) {
            packet.destination = address;
        }
        if let Some(IpAddr::V6(address)) = Self::address(&self.sources, random, IpAddr::is_ipv6) {
            packet.source = address;
        }
        let count = random.pick(&[0, 0, 0, 1, 1, 2, 3, 7, 8, 9]);
        for _ in 0..count {
            packet = packet.then(extension(random));
        }
        if random.one_in(24) {
            packet.payload_length = Some(edge(random, packet.bytes().len() - 40));
        }
        if random.one_in(64) {
            packet.version = Some(random.nibble());
        }
        packet.frame()
    }

    /// One of the addresses that the generator knows, half of the time. Without any, nothing is
    /// drawn from `random`.
    fn address(
        known: &[IpAddr],
        random: &mut Random,
        is_wanted: fn(&IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let known: Vec<_> = known.iter().copied().filter(is_wanted).map(Some).collect();
        if known.is_empty() || random.one_in(2) {
            return None;
        }
        random.pick(&known)
    }

    fn payload(&self, random: &mut Random, is_v6: bool) -> Payload {
        let destination = if random.one_in(4) {
            random.word()
        } else {
            random.pick(&self.ports)
        };
        let source = random.word();
        let length = random.below(self.data + 1);
        match random.below(12) {
            0..=3 => frames::tcp(source, destination)
                .with(|tcp| {
                    let options = 4 * random.pick(&[0, 0, 0, 1, 5, 10]);
                    (tcp.options, tcp.data) = (random.bytes(options), random.bytes(length));
                    if random.one_in(12) {
                        tcp.data_offset = Some(random.nibble());
                    }
                })
                .into(),
            4..=6 => frames::udp(source, destination)
                .with(|udp| {
                    udp.data = random.bytes(length);
                    if random.one_in(8) {
                        udp.length = Some(edge(random, 8 + length));
                    }
                })
                .into(),
            7 => frames::sctp(source, destination)
                .with(|sctp| sctp.chunks = random.bytes(length))
                .into(),
            8 | 9 => self.icmp(random, is_v6),
            10 => {
                // The start of a header, or of something that looks like one.
                let protocol = random.pick(&[6, 17, 132, 0, 43, 44, 51, 60]);
                let length = random.below(24);
                frames::other(protocol, random.bytes(length))
            }
            _ => {
                let protocols = [
                    2, 4, 41, 47, 50, 59, DCCP, UDP_LITE, 135, 139, 140, 253, 255,
                ];
                let protocol = if random.one_in(4) {
                    random.byte()
                } else {
                    random.pick(&protocols)
                };
                frames::other(protocol, random.bytes(length))
            }
        }
    }

    fn icmp(&self, random: &mut Random, is_v6: bool) -> Payload {
        let errors: &[u8] = if is_v6 {
            &[1, 2, 3, 4, 128]
        } else {
            &[3, 4, 5, 8, 11, 12]
        };
        let quoted = Self {
            breaks: false,
            ..self.clone()
        }
        .quoted(random, is_v6);
        let kind = random.pick(errors);
        frames::icmp(kind, random.byte())
            .with(|icmp| icmp.body = quoted)
            .into()
    }

    /// The start of a packet of UDP or TCP.
    fn quoted(&self, random: &mut Random, is_v6: bool) -> Vec<u8> {
        let payload: Payload = if random.one_in(2) {
            frames::udp(random.pick(&self.ports), random.word()).into()
        } else {
            frames::tcp(random.pick(&self.ports), random.word()).into()
        };
        let mut bytes = if is_v6 {
            let count = random.pick(&[0, 0, 1, 2]);
            (0..count)
                .fold(ipv6(payload), |packet, _| packet.then(extension(random)))
                .bytes()
        } else {
            ipv4(payload).bytes()
        };
        if random.one_in(2) {
            bytes.truncate(random.below(bytes.len() + 1));
        }
        bytes
    }
}

fn extension(random: &mut Random) -> Extension {
    match random.below(8) {
        0 => frames::authentication(random.pick(&[0, 1, 2, 4, 62])),
        1 => frames::atomic_fragment().with(|fragment| fragment.length = random.byte()),
        2 => frames::first_fragment(),
        3 if random.one_in(2) => frames::fragment(random.pick(&[1, 2, 0x1000, 0x1fff]), true),
        _ => {
            let kind = random.pick(&[0, 43, 60]);
            frames::extension(kind, random.pick(&[0, 0, 0, 1, 2, 31]))
        }
    }
}

/// A length field at, near or far from the truth.
fn edge(random: &mut Random, truth: usize) -> u16 {
    let truth = u16::try_from(truth).unwrap_or(u16::MAX);
    let near = random.pick(&[1, 2, 4, 8, 20]);
    match random.below(5) {
        0 => truth.saturating_sub(near),
        1 => truth.saturating_add(near),
        2 => random.pick(&[0, 7, 8, 19, 20, 21, 60, 255, 256, 65_535]),
        3 => random.word(),
        _ => truth,
    }
}

/// Breaks one thing.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    // Headers stand at the front.
    let reach = random
        .pick(&[14, 24, 40, 64, 128, 4096])
        .min(bytes.len().max(1));
    let index = random.below(reach);
    match random.below(8) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => {
            let length = random.below(64);
            bytes.extend(random.bytes(length));
        }
        2 => {
            let tail = bytes.split_off(index.min(bytes.len()));
            let length = random.below(9);
            bytes.extend(random.bytes(length));
            bytes.extend(tail);
        }
        3 if bytes.len() > index => {
            bytes.remove(index);
        }
        4 => {
            if let Some(ether_type) = bytes.get_mut(12..14) {
                let kind = random.pick(&[IPV4, IPV6, VLAN, SERVICE_VLAN]);
                ether_type.copy_from_slice(&kind.to_be_bytes());
            }
        }
        choice => {
            if let Some(byte) = bytes.get_mut(index) {
                *byte = match choice {
                    5 => random.byte(),
                    6 => *byte ^ 1 << random.below(8),
                    _ => random.pick(&EDGES),
                };
            }
        }
    }
}
