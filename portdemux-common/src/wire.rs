//! Numbers that stand in packets: `EtherType`s, IP protocols, dispatched protocols and ports.

/// An `EtherType` in host byte order (IEEE 802.3 §3.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4 (RFC 894).
    pub const IPV4: Self = Self(0x0800);
    /// IPv6 (RFC 2464 §3).
    pub const IPV6: Self = Self(0x86dd);
    /// Customer VLAN tag (IEEE 802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// Service VLAN tag (IEEE 802.1ad).
    pub const SERVICE_VLAN: Self = Self(0x88a8);

    /// Whether a VLAN tag that is read as such follows.
    #[inline(always)]
    #[must_use]
    pub fn is_tag(self) -> bool {
        self == Self::VLAN || self == Self::SERVICE_VLAN
    }
}

/// An IP protocol number, in IPv6 a next header value (IANA, Assigned Internet Protocol Numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpProto(pub u8);

impl IpProto {
    /// IPv6 hop-by-hop options (RFC 8200 §4.3).
    pub const HOP_BY_HOP: Self = Self(0);
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: Self = Self(1);
    /// TCP (RFC 9293).
    pub const TCP: Self = Self(6);
    /// UDP (RFC 768).
    pub const UDP: Self = Self(17);
    /// IPv6 routing header (RFC 8200 §4.4).
    pub const ROUTING: Self = Self(43);
    /// IPv6 fragment header (RFC 8200 §4.5).
    pub const FRAGMENT: Self = Self(44);
    /// Authentication header (RFC 4302).
    pub const AH: Self = Self(51);
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: Self = Self(58);
    /// IPv6 destination options (RFC 8200 §4.6).
    pub const DESTINATION_OPTIONS: Self = Self(60);
    /// SCTP (RFC 9260).
    pub const SCTP: Self = Self(132);
}

/// A transport protocol whose ports are dispatched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp = 0,
    /// UDP (RFC 768).
    Udp = 1,
    /// SCTP (RFC 9260).
    Sctp = 2,
}

impl Transport {
    /// Every dispatched protocol, in the order of their table indices.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// How many protocols are dispatched.
    pub const COUNT: usize = Self::ALL.len();

    /// The protocol's name as it stands after the slash in `443/tcp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The IP protocol number.
    #[must_use]
    pub const fn ip_proto(self) -> IpProto {
        match self {
            Self::Tcp => IpProto::TCP,
            Self::Udp => IpProto::UDP,
            Self::Sctp => IpProto::SCTP,
        }
    }
}

/// A port number as it stands in the packet: two bytes, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Port(pub [u8; 2]);

impl Port {
    /// The port of a number in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number.to_be_bytes())
    }

    /// The number in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u16 {
        u16::from_be_bytes(self.0)
    }

    /// Where this port of `transport` stands in a table that has one slot for every port.
    ///
    /// The slot is taken from the bytes as the CPU loads them, not from the port's number: the
    /// verifier forgets the range of a value when its bytes are swapped (Linux 6.18,
    /// `kernel/bpf/verifier.c`, `adjust_scalar_min_max_vals`), and the swap would cost a cycle for
    /// every packet. Always below `Transport::COUNT << 16`.
    #[inline(always)]
    #[must_use]
    pub const fn index(self, transport: Transport) -> usize {
        ((transport as usize) << 16) | u16::from_ne_bytes(self.0) as usize
    }
}

/// A MAC address.
pub type Mac = [u8; 6];

/// A MAC address as it stands in a frame, and two bytes of zeros.
pub type MacWord = u64;

/// Whatever MAC address it is.
pub const ANY_MAC: MacWord = 0;

/// A MAC address in one word.
#[inline(always)]
#[must_use]
#[expect(clippy::many_single_char_names, reason = "bytes of an address")]
pub const fn mac_word([a, b, c, d, e, f]: [u8; 6]) -> MacWord {
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_port_of_every_protocol_has_a_slot_of_its_own() {
        let mut slots = HashSet::new();
        for transport in Transport::ALL {
            for number in 0..=u16::MAX {
                assert!(slots.insert(Port::new(number).index(transport)));
            }
        }
        assert_eq!(slots.len(), Transport::COUNT << 16);
        assert!(slots.iter().all(|&slot| slot < Transport::COUNT << 16));
    }
}
