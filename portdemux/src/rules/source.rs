//! Who may use a rule's ports.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::rule::{MAX_NAME, RuleError, check_name};

/// An entry of `from` or `deny`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Everyone in a set, by its name.
    Set(String),
    /// Everyone whose address begins like this; the rest of its bits is zero.
    Prefix(IpNet),
}

/// Prefixes with a name, for rules to share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What it is called: as a rule is.
    pub name: String,
    /// Who is in it, in the order they were written.
    pub prefixes: Vec<IpNet>,
    /// The line of the file it begins in, from 1; 0 if it stands in no file.
    pub line: usize,
}

/// What is wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// What was written is no prefix.
    #[error("`{}` is not a prefix of addresses", .0.escape_debug())]
    NotAPrefix(String),
    /// The prefix is longer than an address.
    #[error("`{text}` is longer than an address of {most} bits")]
    TooLong {
        /// What was written.
        text: String,
        /// The bits of an address.
        most: u8,
    },
    /// Bits behind the prefix are not zero.
    #[error("`{text}` has bits behind its first {}", .prefix.prefix_len())]
    HostBits {
        /// What was written.
        text: String,
        /// The prefix without them.
        prefix: IpNet,
    },
    /// An IPv4 prefix was written inside an IPv6 one.
    #[error("no packet ever comes from {0}")]
    Mapped(IpNet),
    /// The name of a set is none.
    #[error("`@{}` names no set: {error}", .name.escape_debug())]
    BadName {
        /// What follows the `@`.
        name: String,
        /// What is wrong with it.
        error: RuleError,
    },
    /// A set stands where only prefixes can.
    #[error("a set cannot hold the set `{0}`")]
    SetInSet(String),
}

impl SourceError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NotAPrefix(_) => {
                "write it as in 192.0.2.0/24 or 2001:db8::/32, or a set as in @office".into()
            }
            Self::TooLong { most, .. } => format!("a prefix has at most {most} bits"),
            Self::HostBits { text, prefix } => {
                let address = text.split('/').next().unwrap_or_default();
                format!("write {prefix}, or {address} for the one address")
            }
            Self::Mapped(_) => "write it as IPv4".into(),
            Self::BadName { .. } => format!("names have 1 to {MAX_NAME} visible characters"),
            Self::SetInSet(_) => "list its prefixes, or both sets in the rule".into(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(name) => write!(f, "@{name}"),
            Self::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                prefix.addr().fmt(f)
            }
            Self::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if let Some(name) = text.strip_prefix('@') {
            return match check_set_name(name) {
                Ok(()) => Ok(Self::Set(name.into())),
                Err(error) => Err(SourceError::BadName {
                    name: name.into(),
                    error,
                }),
            };
        }
        parse_prefix(text).map(Self::Prefix)
    }
}

/// Says whether a set can have this name.
pub fn check_set_name(name: &str) -> Result<(), RuleError> {
    check_name(name)?;
    match name
        .chars()
        .find(|&character| matches!(character, '@' | ','))
    {
        Some(bad) => Err(RuleError::BadName {
            name: name.into(),
            bad,
        }),
        None => Ok(()),
    }
}

/// Reads a prefix, or an address as the prefix of all its bits.
pub fn parse_prefix(text: &str) -> Result<IpNet, SourceError> {
    let prefix = if let Ok(address) = text.parse::<IpAddr>() {
        IpNet::from(address)
    } else if let Ok(prefix) = text.parse::<IpNet>() {
        prefix
    } else {
        return Err(no_prefix(text));
    };
    if prefix != prefix.trunc() {
        return Err(SourceError::HostBits {
            text: text.into(),
            prefix: prefix.trunc(),
        });
    }
    match prefix {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            Err(SourceError::Mapped(prefix))
        }
        IpNet::V6(_) | IpNet::V4(_) => Ok(prefix),
    }
}

fn no_prefix(text: &str) -> SourceError {
    let long = text.split_once('/').and_then(|(address, bits)| {
        let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        match address.parse() {
            Ok(IpAddr::V4(_)) if is_number => Some(32),
            Ok(IpAddr::V6(_)) if is_number => Some(128),
            Ok(_) | Err(_) => None,
        }
    });
    match long {
        Some(most) => SourceError::TooLong {
            text: text.into(),
            most,
        },
        None if text.starts_with('@') => SourceError::SetInSet(text.into()),
        None => SourceError::NotAPrefix(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_written_as_it_was_read() {
        for text in [
            "@office",
            "192.0.2.0/24",
            "198.51.100.7",
            "2001:db8::/48",
            "::1",
            "0.0.0.0/0",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!(
            "192.0.2.1/32".parse::<Source>().unwrap().to_string(),
            "192.0.2.1"
        );
    }

    #[test]
    fn what_is_no_source_is_refused_with_a_way_out() {
        for (text, message, help) in [
            (
                "192.0.2.1/24",
                "`192.0.2.1/24` has bits behind its first 24",
                "write 192.0.2.0/24, or 192.0.2.1 for the one address",
            ),
            (
                "192.0.2.0/33",
                "`192.0.2.0/33` is longer than an address of 32 bits",
                "a prefix has at most 32 bits",
            ),
            (
                "::/129",
                "`::/129` is longer than an address of 128 bits",
                "a prefix has at most 128 bits",
            ),
            (
                "office",
                "`office` is not a prefix of addresses",
                "write it as in 192.0.2.0/24 or 2001:db8::/32, or a set as in @office",
            ),
            (
                "192.0.2.0/",
                "`192.0.2.0/` is not a prefix of addresses",
                "write it as in 192.0.2.0/24 or 2001:db8::/32, or a set as in @office",
            ),
            (
                "::ffff:192.0.2.0/120",
                "no packet ever comes from ::ffff:192.0.2.0/120",
                "write it as IPv4",
            ),
            (
                "@",
                "`@` names no set: an empty name",
                "names have 1 to 64 visible characters",
            ),
            (
                "@a@b",
                "`@a@b` names no set: the name `a@b` holds '@'",
                "names have 1 to 64 visible characters",
            ),
        ] {
            let error = text.parse::<Source>().unwrap_err();
            assert_eq!(
                (error.to_string().as_str(), error.help().as_str()),
                (message, help)
            );
        }
        let error = parse_prefix("@office").unwrap_err();
        assert_eq!(error.to_string(), "a set cannot hold the set `@office`");
    }
}
