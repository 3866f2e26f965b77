//! What a flow is known by.

use bytemuck::{Pod, Zeroable};

use crate::hash::mixed;

/// The two ends of a flow as this host sees them, and its protocol.
///
/// Seen from here, both directions have the same key: the local end is the destination of what comes in
/// and the source of what goes out. Of forwarded traffic, the local end is the one behind this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Tuple {
    /// The local address as it stands in packets; IPv4 fills the first four bytes, and zeros follow.
    pub local: [u64; 2],
    /// The remote address, likewise.
    pub remote: [u64; 2],
    /// Bytes 0 and 1: the local port, big-endian. 2 and 3: the remote port. 4: the protocol. 5: the IP
    /// version. Of ICMP echo the identifier stands for both ports.
    pub ports: u64,
}

impl Tuple {
    /// How many words it has.
    pub const WORDS: usize = 5;

    /// No flow.
    pub const NONE: Self = Self {
        local: [0; 2],
        remote: [0; 2],
        ports: 0,
    };

    /// Whether it is no flow: a flow has a protocol.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.ports == 0
    }

    /// Puts a key together.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        local: ([u64; 2], [u8; 2]),
        remote: ([u64; 2], [u8; 2]),
        protocol: u8,
        version: u8,
    ) -> Self {
        let [a, b] = local.1;
        let [c, d] = remote.1;
        Self {
            local: local.0,
            remote: remote.0,
            ports: u64::from_ne_bytes([a, b, c, d, protocol, version, 0, 0]),
        }
    }

    /// The key of a packet of which local and remote were taken for one another.
    #[inline(always)]
    #[must_use]
    pub const fn mirrored(&self) -> Self {
        let [a, b, c, d, protocol, version, ..] = self.ports.to_ne_bytes();
        Self {
            local: self.remote,
            remote: self.local,
            ports: u64::from_ne_bytes([c, d, a, b, protocol, version, 0, 0]),
        }
    }

    /// The local port as it stands in packets.
    #[inline(always)]
    #[must_use]
    pub const fn local_port(&self) -> [u8; 2] {
        let [a, b, ..] = self.ports.to_ne_bytes();
        [a, b]
    }

    /// The remote port as it stands in packets.
    #[inline(always)]
    #[must_use]
    pub const fn remote_port(&self) -> [u8; 2] {
        let [_, _, a, b, ..] = self.ports.to_ne_bytes();
        [a, b]
    }

    /// The protocol's number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        let [_, _, _, _, protocol, ..] = self.ports.to_ne_bytes();
        protocol
    }

    /// The IP version: 4 or 6.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u8 {
        let [_, _, _, _, _, version, ..] = self.ports.to_ne_bytes();
        version
    }

    /// The words of the key.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; Self::WORDS] {
        let [local, local_low] = self.local;
        let [remote, remote_low] = self.remote;
        [local, local_low, remote, remote_low, self.ports]
    }

    /// The key of some words.
    #[must_use]
    pub const fn from_words(
        [local, local_low, remote, remote_low, ports]: [u64; Self::WORDS],
    ) -> Self {
        Self {
            local: [local, local_low],
            remote: [remote, remote_low],
            ports,
        }
    }

    /// Hashes it: every word is mixed in by itself, after the secret.
    #[inline(always)]
    #[must_use]
    pub const fn hash(&self, seed: u64) -> u64 {
        let mut hash = seed;
        let [local, local_low, remote, remote_low, ports] = self.words();
        hash = mixed(hash ^ remote);
        hash = mixed(hash ^ ports);
        hash = mixed(hash ^ local);
        if local_low | remote_low != 0 {
            hash = mixed(hash ^ remote_low);
            hash = mixed(hash ^ local_low);
        }
        hash
    }
}

const _: () = assert!(size_of::<Tuple>() == 40);
