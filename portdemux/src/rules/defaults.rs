//! What happens to packets that no rule can decide about.

use portdemux_common::policy::{Fragments, Icmp};

use super::word::Word;

/// What happens to packets that no rule can decide about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Defaults {
    /// What happens to packets for ports that no rule claims.
    pub inbound: Inbound,
    /// What happens to IP packets whose headers lie or end early.
    pub malformed: Malformed,
    /// What happens to fragments other than the first.
    pub fragments: Fragments,
    /// What happens to ICMP that is neither about a known flow nor what IPv6 cannot do without.
    pub icmp: Icmp,
}

/// What happens to packets for ports that no rule claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Inbound {
    /// The host's own stack gets them.
    #[default]
    Pass,
    /// Nobody gets them, replies to this host's own packets apart.
    Drop,
    /// They are dropped, and their senders are told.
    Reject,
}

/// What happens to malformed packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Malformed {
    /// The host's own stack gets them.
    Pass,
    /// Nobody gets them.
    #[default]
    Drop,
}

impl Defaults {
    /// The keys and what they say, in words.
    #[must_use]
    pub fn words(&self) -> [(&'static str, &'static str); 4] {
        [
            ("inbound", self.inbound.name()),
            ("malformed", self.malformed.name()),
            ("fragments", self.fragments.name()),
            ("icmp", self.icmp.name()),
        ]
    }

    /// The keys that only the state of flows can obey, as they are written.
    pub(super) fn needing_flows(&self) -> Vec<String> {
        let keys = [
            ("inbound", self.inbound != Inbound::Pass),
            ("icmp", self.icmp != Icmp::Pass),
        ];
        let words = self.words();
        keys.into_iter()
            .filter(|&(_, needs)| needs)
            .filter_map(|(key, _)| words.into_iter().find(|&(name, _)| name == key))
            .map(|(key, word)| format!("{key} = \"{word}\""))
            .collect()
    }
}

impl Word for Inbound {
    const ALL: &'static [Self] = &[Self::Pass, Self::Drop, Self::Reject];

    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
}

impl Word for Malformed {
    const ALL: &'static [Self] = &[Self::Pass, Self::Drop];

    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}
