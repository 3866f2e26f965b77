//! What a rule asks of packets besides their ports and addresses.

use portdemux_common::policy::Policy;

use super::{
    rate::{Rate, RateError},
    word::Word,
};

/// What a rule asks of packets besides their ports and addresses; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Which packets may come.
    pub connections: Connections,
    /// How many may come.
    pub rate: Option<Rate>,
    /// How many of them at once, if not as many as the rate says.
    pub burst: Option<u64>,
    /// For whom the rates hold, if that was said.
    pub per: Option<Per>,
    /// How many packets may begin a flow.
    pub new_rate: Option<Rate>,
    /// How many of them at once, if not as many as the rate says.
    pub new_burst: Option<u64>,
}

/// Which packets a rule lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Connections {
    /// Those that begin a flow and those of known flows.
    #[default]
    All,
    /// Replies only: packets of flows that this host began.
    Established,
}

/// Whose ports a rule claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// This host's: destination ports.
    #[default]
    Destination,
    /// The peer's: source ports.
    Source,
}

/// For whom a rate holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Per {
    /// For all who use the rule, together.
    #[default]
    Rule,
    /// For each source address by itself.
    Source,
}

/// What is wrong with the terms of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// Something is said about a rate that is not there.
    #[error("`{key}` without `{rate}`")]
    NoRate {
        /// What is said about it.
        key: &'static str,
        /// What is not there.
        rate: &'static str,
    },
    /// It is said for whom rates hold, and there are none.
    #[error("`per` without `rate` or `new_rate`")]
    PerNothing,
    /// A rate cannot be kept.
    #[error("{0}")]
    Rate(#[from] RateError),
}

impl TermsError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NoRate { key, rate } => {
                format!("leave `{key}` out, or add a rate, as in {rate} = \"1000/s\"")
            }
            Self::PerNothing => "leave `per` out, or add a rate, as in rate = \"1000/s\"".into(),
            Self::Rate(error) => error.help(),
        }
    }
}

impl Terms {
    /// Whether the rule asks for what only the state of flows can tell: which key does.
    #[must_use]
    pub fn needs_flows(&self) -> Option<String> {
        if self.connections == Connections::Established {
            return Some("connections = \"established\"".into());
        }
        self.new_rate.map(|rate| format!("new_rate = \"{rate}\""))
    }

    /// Whether two terms come to the same, however they are written.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self == other || self.policy() == other.policy()
    }

    /// The keys that say something and what they say, as it is written but for the quotes.
    #[must_use]
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let burst = |rate: Option<Rate>, burst: Option<u64>| {
            let unusual = |&burst: &u64| rate.is_none_or(|rate| burst != rate.default_burst());
            burst.filter(unusual).map(|burst| burst.to_string())
        };
        let established = self.connections == Connections::Established;
        let per_source = self.per == Some(Per::Source);
        let words = [
            (
                "connections",
                established.then(|| self.connections.name().into()),
            ),
            ("rate", self.rate.map(|rate| rate.to_string())),
            ("burst", burst(self.rate, self.burst)),
            ("new_rate", self.new_rate.map(|rate| rate.to_string())),
            ("new_burst", burst(self.new_rate, self.new_burst)),
            ("per", per_source.then(|| Per::Source.name().into())),
        ];
        words
            .into_iter()
            .filter_map(|(key, word)| Some((key, word?)))
            .collect()
    }

    /// What of a rule's policy they are; its lists are something else.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let mut conditions = 0;
        if self.connections == Connections::Established {
            conditions |= Policy::REPLIES_ONLY;
        }
        if self.per == Some(Per::Source) {
            conditions |= Policy::PER_SOURCE;
        }
        if self.rate.is_some() || self.new_rate.is_some() {
            conditions |= Policy::RATES;
        }
        let limit =
            |rate: Option<Rate>, burst| rate.map(|rate| rate.limit(burst)).unwrap_or_default();
        Policy {
            conditions,
            rate: limit(self.rate, self.burst),
            new_rate: limit(self.new_rate, self.new_burst),
            ..Policy::default()
        }
    }

    /// The terms that a policy comes from, as they can be written.
    #[must_use]
    pub fn of_policy(policy: &Policy) -> Self {
        let parts = |limit| match Rate::of_limit(limit) {
            Some((rate, burst)) => (
                Some(rate),
                Some(burst).filter(|&burst| burst != rate.default_burst()),
            ),
            None => (None, None),
        };
        let (rate, burst) = parts(policy.rate);
        let (new_rate, new_burst) = parts(policy.new_rate);
        Self {
            connections: if policy.is_replies_only() {
                Connections::Established
            } else {
                Connections::All
            },
            rate,
            burst,
            per: policy.is_per_source().then_some(Per::Source),
            new_rate,
            new_burst,
        }
    }

    /// Says whether they make sense.
    pub(super) fn check(&self) -> Result<(), TermsError> {
        for (key, rate, burst, of) in [
            ("burst", self.rate, self.burst, "rate"),
            ("new_burst", self.new_rate, self.new_burst, "new_rate"),
        ] {
            match (rate, burst) {
                (Some(rate), burst) => rate.check(burst)?,
                (None, Some(_)) => return Err(TermsError::NoRate { key, rate: of }),
                (None, None) => {}
            }
        }
        if self.per.is_some() && self.rate.is_none() && self.new_rate.is_none() {
            return Err(TermsError::PerNothing);
        }
        Ok(())
    }
}

impl Word for Connections {
    const ALL: &'static [Self] = &[Self::All, Self::Established];

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Established => "established",
        }
    }
}

impl Word for Role {
    const ALL: &'static [Self] = &[Self::Destination, Self::Source];

    fn name(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Source => "source",
        }
    }
}

impl Word for Per {
    const ALL: &'static [Self] = &[Self::Rule, Self::Source];

    fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Source => "source",
        }
    }
}
