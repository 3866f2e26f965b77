//! Verdicts and the reasons for them.
//!
//! Every packet has exactly one verdict and one reason. A reason is the index of a counter, the word
//! the command line and its JSON show, and the word the documentation uses.

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// The host's network stack gets it, as if portdemux were not there.
    Pass = 0,
    /// Nobody gets it.
    Drop = 1,
    /// Nobody gets it, and the sender is told so.
    Reject = 2,
    /// Somebody else gets it: another interface, another CPU or a program that takes raw frames.
    Redirect = 3,
}

impl Verdict {
    /// Every verdict, in the order of their counter indices.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Drop, Self::Reject, Self::Redirect];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Redirect => "redirect",
        }
    }

    /// Whether nobody gets the packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_dropped(self) -> bool {
        matches!(self, Self::Drop | Self::Reject)
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet got its verdict.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of their counter indices.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word for it, the same in counters, JSON and documentation.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One sentence about it.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)+
                }
            }
        }
    };
}

reasons! {
    /// A rule claims the port and hands the packet to the host's own stack.
    RuleLocal = "rule_local",
    /// A rule claims the port and drops what comes to it.
    RuleDrop = "rule_drop",
    /// A rule claims the port and tells the senders of what comes to it that it is closed.
    RuleReject = "rule_reject",
    /// A rule claims the port and hands new connections and datagrams to a socket.
    RuleSocket = "rule_socket",
    /// A rule claims the port and sends the packet out of an interface.
    RuleInterface = "rule_interface",
    /// A rule claims the port and hands the packet to other CPUs.
    RuleCpu = "rule_cpu",
    /// A rule claims the port and hands the frame to a program that takes raw frames (AF_XDP).
    RuleXsk = "rule_xsk",
    /// The rule's socket is not there.
    NoSocket = "no_socket",
    /// The rule's interface is not there.
    NoInterface = "no_interface",
    /// The rule's CPU takes no packets.
    NoCpu = "no_cpu",
    /// No program has a socket on the queue that the frame came by.
    NoXsk = "no_xsk",
    /// The source is on the list of those who may not use the rule's ports.
    SourceDenied = "source_denied",
    /// The source is not on the list of those who may use the rule's ports.
    SourceNotAllowed = "source_not_allowed",
    /// The rule lets only replies in, and the packet is of no flow that this host began.
    NotEstablished = "not_established",
    /// More packets came than the rule lets in.
    RateLimited = "rate_limited",
    /// No rule claims the port, and the packet is of a flow that this host began.
    Reply = "reply",
    /// An ICMP error about a packet of a known flow.
    Related = "related",
    /// No rule claims the port.
    Unclaimed = "unclaimed",
    /// Valid IP whose protocol has no ports to dispatch on.
    NoPorts = "no_ports",
    /// A fragment other than the first, which has no transport header of its own.
    LaterFragment = "later_fragment",
    /// A fragment other than the first, of a packet whose first fragment was not seen.
    FragmentUnknown = "fragment_unknown",
    /// A fragment other than the first that covers bytes of the first one.
    FragmentOverlap = "fragment_overlap",
    /// ICMP that the ruleset does not let in.
    IcmpPolicy = "icmp_policy",
    /// Neither IPv4 nor IPv6.
    NonIp = "non_ip",
    /// Fewer than 14 bytes: no Ethernet header.
    EthShort = "eth_short",
    /// The frame ends inside a VLAN tag.
    VlanShort = "vlan_short",
    /// More than two VLAN tags.
    VlanDepth = "vlan_depth",
    /// Fewer than 20 bytes for an IPv4 header.
    Ip4Short = "ip4_short",
    /// An IPv4 `EtherType` before a header of another version.
    Ip4Version = "ip4_version",
    /// An IPv4 header length below 20 bytes.
    Ip4Ihl = "ip4_ihl",
    /// The frame ends inside the IPv4 options.
    Ip4OptsShort = "ip4_opts_short",
    /// An IPv4 total length smaller than the header.
    Ip4TotlenSmall = "ip4_totlen_small",
    /// An IPv4 total length beyond the end of the frame.
    Ip4TotlenLong = "ip4_totlen_long",
    /// Fewer than 40 bytes for an IPv6 header.
    Ip6Short = "ip6_short",
    /// An IPv6 `EtherType` before a header of another version.
    Ip6Version = "ip6_version",
    /// An IPv6 payload length beyond the end of the frame.
    Ip6PlenLong = "ip6_plen_long",
    /// An IPv6 jumbogram.
    Ip6Jumbo = "ip6_jumbo",
    /// The packet ends inside an IPv6 extension header.
    Ip6ExtShort = "ip6_ext_short",
    /// More than 8 IPv6 extension headers.
    Ip6ExtLimit = "ip6_ext_limit",
    /// The packet ends inside its transport header.
    L4Short = "l4_short",
    /// A TCP data offset below 5 words.
    TcpDoff = "tcp_doff",
    /// A TCP data offset beyond the end of the packet.
    TcpDoffLong = "tcp_doff_long",
    /// A UDP length below 8 bytes.
    UdpLenSmall = "udp_len_small",
    /// A UDP length beyond the end of the packet.
    UdpLenLong = "udp_len_long",
}

impl Reason {
    /// The reason whose counter has this index.
    #[must_use]
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// The reason of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.name() == name)
    }

    /// Whether it says that a packet's headers lie or end early.
    #[must_use]
    pub const fn is_malformed(self) -> bool {
        self as u8 >= Self::EthShort as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_its_index_and_by_its_name() {
        for (index, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(Reason::from_index(index), Some(reason));
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
        }
        assert_eq!(Reason::from_index(Reason::ALL.len()), None);
    }

    #[test]
    fn only_the_parser_s_complaints_are_malformed() {
        let sound: Vec<_> = Reason::ALL
            .iter()
            .filter(|reason| !reason.is_malformed())
            .map(|r| r.name())
            .collect();
        assert_eq!(
            sound,
            [
                "rule_local",
                "rule_drop",
                "rule_reject",
                "rule_socket",
                "rule_interface",
                "rule_cpu",
                "rule_xsk",
                "no_socket",
                "no_interface",
                "no_cpu",
                "no_xsk",
                "source_denied",
                "source_not_allowed",
                "not_established",
                "rate_limited",
                "reply",
                "related",
                "unclaimed",
                "no_ports",
                "later_fragment",
                "fragment_unknown",
                "fragment_overlap",
                "icmp_policy",
                "non_ip"
            ]
        );
    }
}
