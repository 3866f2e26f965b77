//! How the rules reach a socket.

use std::net::IpAddr;

use portdemux_common::reason::Verdict;

use crate::rules::PortRange;

/// How the rules reach a socket, or why they do not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Packets for its own port come to it, by this rule or as those of a port that no rule claims.
    Direct {
        /// The rule.
        rule: Option<String>,
    },
    /// A rule hands it packets of the sources that it admits.
    Sources {
        /// The rule.
        rule: String,
    },
    /// Packets for these ports are handed to it in the kernel's look-up of sockets (`to = "socket:…"`).
    Socket {
        /// The rule.
        rule: String,
        /// The ports that packets are sent to.
        ports: Vec<PortRange>,
    },
    /// Packets come to it past the rules, by an interface that the instance is not attached to.
    Unwatched {
        /// The interface, if it is one.
        interface: Option<String>,
    },
    /// Only replies to what this host began come to its port.
    Replies {
        /// The rule.
        rule: String,
    },
    /// A rule hands packets for its port to another destination.
    Elsewhere {
        /// The rule.
        rule: String,
        /// The destination.
        to: String,
    },
    /// Packets for its port are dropped or rejected, by this rule or by `[default] inbound`.
    Refused {
        /// What happens to them.
        verdict: Verdict,
        /// The rule.
        rule: Option<String>,
    },
    /// It is bound to where packets of this host alone can come.
    Loopback,
}

/// How the rules reach a socket at some of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// How.
    pub reach: Reach,
    /// At which addresses; none where that makes no difference.
    pub addresses: Vec<IpAddr>,
    /// The rule that says so for the peers whose ports it claims, if it is only for them.
    pub peers: Option<String>,
}

impl Reach {
    /// The word for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Direct { .. } => "direct",
            Self::Sources { .. } => "sources",
            Self::Socket { .. } => "socket",
            Self::Unwatched { .. } => "unwatched",
            Self::Replies { .. } => "replies",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Refused {
                verdict: Verdict::Reject,
                ..
            } => "rejected",
            Self::Refused { .. } => "dropped",
            Self::Loopback => "loopback",
        }
    }

    /// The rule by which it is so.
    #[must_use]
    pub fn rule(&self) -> Option<&str> {
        match self {
            Self::Direct { rule } | Self::Refused { rule, .. } => rule.as_deref(),
            Self::Sources { rule }
            | Self::Socket { rule, .. }
            | Self::Replies { rule }
            | Self::Elsewhere { rule, .. } => Some(rule),
            Self::Unwatched { .. } | Self::Loopback => None,
        }
    }
}
