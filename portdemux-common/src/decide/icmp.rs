//! What ICMP is for (RFC 792, RFC 4443).

use crate::{policy::Icmp, wire::IpProto};

/// What an ICMP message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    /// It says that a packet did not get through.
    Error,
    /// IPv6 does not work without it: neighbours, routers, multicast listeners.
    Vital,
    /// Anything else.
    Other,
}

impl Category {
    /// The kind of a message of this type; nothing if it is not ICMP.
    #[inline(always)]
    pub(super) const fn of(protocol: u8, kind: u8) -> Option<Self> {
        match (IpProto(protocol), kind) {
            (IpProto::ICMP, 3 | 4 | 5 | 11 | 12) | (IpProto::ICMPV6, 1..=4) => Some(Self::Error),
            // RFC 4890 §4.4.1: neighbour and router discovery and its inverse, MLD, MLDv2, secure
            // neighbour discovery, multicast router discovery.
            (IpProto::ICMPV6, 130..=137 | 141..=143 | 148 | 149 | 151..=153) => Some(Self::Vital),
            (IpProto::ICMP | IpProto::ICMPV6, _) => Some(Self::Other),
            _ => None,
        }
    }

    /// Whether the setting of a ruleset lets it in. An unknown one lets in what is vital.
    #[inline(always)]
    pub(super) const fn is_let_in(self, setting: u32) -> bool {
        match self {
            Self::Vital => true,
            Self::Error => setting == Icmp::Pass as u32 || setting == Icmp::ErrorsOnly as u32,
            Self::Other => setting == Icmp::Pass as u32,
        }
    }
}

/// Whether a message is an echo request or the reply to one.
#[inline(always)]
pub(super) const fn is_echo(protocol: u8, kind: u8) -> bool {
    is_echo_request(protocol, kind)
        || matches!(
            (IpProto(protocol), kind),
            (IpProto::ICMP, 0) | (IpProto::ICMPV6, 129)
        )
}

/// Whether a message is an echo request.
#[inline(always)]
pub(super) const fn is_echo_request(protocol: u8, kind: u8) -> bool {
    matches!(
        (IpProto(protocol), kind),
        (IpProto::ICMP, 8) | (IpProto::ICMPV6, 128)
    )
}
