//! Who may use a rule's ports.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

use super::{
    name::{MAX_NAME, RuleError, check_name},
    until::Until,
};

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
    /// Until when, of those who are not in it for good. Whose time is over is not in it any more.
    pub until: HashMap<IpNet, Until>,
    /// The line of the file it begins in, from 1; 0 if it stands in no file.
    pub line: usize,
}

/// Who is in a set, and until when of those who are not for good.
pub type Members = (Vec<IpNet>, HashMap<IpNet, Until>);

impl Set {
    /// Makes those of some changes that are its own: of a prefix the last one counts.
    pub(super) fn change(&mut self, changes: &[MemberChange], now: u64) {
        let own = changes.iter().filter(|change| change.set == self.name);
        let own: BTreeMap<IpNet, Becomes> =
            own.map(|change| (change.prefix, change.becomes)).collect();
        if own.is_empty() {
            return;
        }
        let until = &mut self.until;
        self.prefixes.retain(|prefix| {
            let is_over = until.get(prefix).is_some_and(|until| until.unix <= now);
            !is_over && !own.contains_key(prefix)
        });
        until.retain(|prefix, until| until.unix > now && !own.contains_key(prefix));
        for (prefix, becomes) in own {
            match becomes {
                Becomes::Member(Some(time)) if time.unix > now => {
                    until.insert(prefix, time);
                }
                Becomes::Member(None) => {}
                Becomes::Member(Some(_)) | Becomes::NonMember => continue,
            }
            self.prefixes.push(prefix);
        }
    }

    /// Who is in it at a time in milliseconds since 1970, and until when.
    pub fn members(&self, now: u64) -> impl Iterator<Item = (&IpNet, Option<Until>)> {
        let members = self
            .prefixes
            .iter()
            .map(|prefix| (prefix, self.until.get(prefix).copied()));
        members.filter(move |(_, until)| until.is_none_or(|until| until.unix > now))
    }
}

/// What a prefix is to become in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// A member, until a time or for good.
    Member(Option<Until>),
    /// Not a member.
    NonMember,
}

/// A change of who is in a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// The set's name.
    pub set: String,
    /// Who.
    pub prefix: IpNet,
    /// What becomes of them.
    pub becomes: Becomes,
}

/// What is wrong with a source as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing was written.
    #[error("an empty source")]
    Empty,
    /// It is nothing that can be a source.
    #[error("`{}` is not a prefix, an address or a set", .0.escape_debug())]
    NotASource(String),
    /// It is nothing that can be in a set.
    #[error("`{}` is not a prefix or an address", .0.escape_debug())]
    NotAPrefix(String),
    /// It is a set, which cannot be in another.
    #[error("`{}` is a set", .0.escape_debug())]
    SetInSet(String),
    /// There is no name behind the `@`.
    #[error("`@` names no set")]
    Unnamed,
    /// A set is called by what is not a name.
    #[error("{0}")]
    Name(RuleError),
    /// The name of a set begins with `@`.
    #[error("the name `{}` begins with @", .0.escape_debug())]
    NameWithAt(String),
    /// The name of a set holds a comma.
    #[error("the name `{}` holds ','", .0.escape_debug())]
    NameWithComma(String),
    /// The prefix is longer than an address.
    #[error("`{spec}`: length {length} is out of range")]
    Length {
        /// What was written.
        spec: String,
        /// The part behind the slash.
        length: String,
        /// The longest that it can be.
        most: u8,
    },
    /// A netmask stands where the length should.
    #[error("`{spec}` has a netmask, not a length")]
    Netmask {
        /// What was written.
        spec: String,
        /// The same with a length.
        prefix: IpNet,
    },
    /// Bits are set behind the prefix.
    #[error("`{spec}` has bits set behind its first {}", .prefix.prefix_len())]
    HostBits {
        /// What was written.
        spec: String,
        /// The prefix without them.
        prefix: IpNet,
    },
    /// IPv4 addresses were written inside IPv6 ones.
    #[error("no packet ever comes from {}", Source::Prefix(*.0))]
    Mapped(IpNet),
}

impl SourceError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Empty => {
                "write a prefix, an address or a set, as in 192.0.2.0/24 or @office".into()
            }
            Self::NotASource(spec) if matches!(&**spec, "any" | "anyone" | "all" | "*") => {
                "leave `from` out for anyone; all addresses are 0.0.0.0/0 and ::/0".into()
            }
            Self::NotASource(spec) if check_set_name(spec).is_ok() && is_a_word(spec) => {
                format!("a set is written @{spec}, a prefix as in 192.0.2.0/24")
            }
            Self::NotASource(_) => {
                "write it as in 192.0.2.0/24, 2001:db8:1::/48, 198.51.100.7 or @office".into()
            }
            Self::NotAPrefix(_) => {
                "write it as in 192.0.2.0/24, 2001:db8:1::/48 or 198.51.100.7".into()
            }
            Self::SetInSet(_) => "a set holds prefixes and addresses; list those".into(),
            Self::Unnamed => "write the set's name behind it, as in @office".into(),
            Self::Name(RuleError::LongName(_)) => format!("names have at most {MAX_NAME} bytes"),
            Self::Name(_) => {
                "a set's name has no spaces and no invisible characters, as in office".into()
            }
            Self::NameWithAt(_) => "a set that is called office is written @office in rules".into(),
            Self::NameWithComma(_) => {
                "on the command line a comma ends the name; use another character".into()
            }
            Self::Length { most: 32, .. } => "IPv4 prefixes have lengths from 0 to 32".into(),
            Self::Length { most, .. } => format!("IPv6 prefixes have lengths from 0 to {most}"),
            Self::Netmask { prefix, .. } => format!("write {prefix}"),
            Self::HostBits { spec, prefix } => {
                let address = spec.split('/').next().unwrap_or_default();
                format!("write {prefix}, or {address} for the one address")
            }
            Self::Mapped(prefix) => match unmapped(*prefix) {
                Some(v4) => format!("write it as IPv4: {}", Source::Prefix(v4)),
                None => "write it as IPv4".into(),
            },
        }
    }
}

/// Whether no part of it looks like one of an address.
fn is_a_word(spec: &str) -> bool {
    !spec.contains(['.', ':', '/'])
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

    fn from_str(spec: &str) -> Result<Self, SourceError> {
        let Some(name) = spec.strip_prefix('@') else {
            return match parse_prefix(spec) {
                Ok(prefix) => Ok(Self::Prefix(prefix)),
                Err(SourceError::NotAPrefix(spec)) => Err(SourceError::NotASource(spec)),
                Err(error) => Err(error),
            };
        };
        if name.is_empty() {
            return Err(SourceError::Unnamed);
        }
        check_set_name(name)?;
        Ok(Self::Set(name.into()))
    }
}

/// Reads a prefix; an address is one of its full length.
pub fn parse_prefix(spec: &str) -> Result<IpNet, SourceError> {
    if spec.is_empty() {
        return Err(SourceError::Empty);
    }
    if spec.starts_with('@') {
        return Err(SourceError::SetInSet(spec.into()));
    }
    let not_a_prefix = || SourceError::NotAPrefix(spec.into());
    let (address, length) = match spec.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (spec, None),
    };
    let address: IpAddr = address.parse().map_err(|_| not_a_prefix())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match length {
        None => IpNet::from(address),
        Some(length) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let prefix = length.parse().ok();
            let prefix = prefix.and_then(|length| IpNet::new(address, length).ok());
            prefix.ok_or_else(|| SourceError::Length {
                spec: spec.into(),
                length: length.into(),
                most,
            })?
        }
        Some(mask) => {
            let mask = mask.parse().map_err(|_| not_a_prefix())?;
            let prefix = IpNet::with_netmask(address, mask).map_err(|_| not_a_prefix())?;
            return Err(SourceError::Netmask {
                spec: spec.into(),
                prefix: prefix.trunc(),
            });
        }
    };
    if unmapped(prefix).is_some() {
        return Err(SourceError::Mapped(prefix));
    }
    if prefix.addr() != prefix.network() {
        return Err(SourceError::HostBits {
            spec: spec.into(),
            prefix: prefix.trunc(),
        });
    }
    Ok(prefix)
}

/// The IPv4 prefix inside one of IPv4-mapped addresses, which programs use and packets do not (RFC
/// 4291 §2.5.5.2).
fn unmapped(prefix: IpNet) -> Option<IpNet> {
    let IpNet::V6(prefix) = prefix else {
        return None;
    };
    let length = prefix.prefix_len().checked_sub(96)?;
    let v4 = Ipv4Net::new(prefix.addr().to_ipv4_mapped()?, length).ok()?;
    Some(v4.trunc().into())
}

/// Says whether a set can have this name: one that a rule can have, without a comma and without `@` at
/// its beginning.
pub fn check_set_name(name: &str) -> Result<(), SourceError> {
    if name.starts_with('@') {
        return Err(SourceError::NameWithAt(name.into()));
    }
    if name.contains(',') {
        return Err(SourceError::NameWithComma(name.into()));
    }
    check_name(name).map_err(SourceError::Name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sources_read_as_they_are_displayed() {
        for spec in [
            "@office",
            "@lan-2",
            "@büro",
            "192.0.2.0/24",
            "198.51.100.7",
            "0.0.0.0/0",
            "2001:db8:1::/48",
            "2001:db8::7",
            "::/0",
        ] {
            assert_eq!(spec.parse::<Source>().unwrap().to_string(), spec);
        }
        for (spec, displayed) in [
            ("198.51.100.7/32", "198.51.100.7"),
            ("2001:DB8:0:0::7/128", "2001:db8::7"),
            ("2001:db8:1:0::/48", "2001:db8:1::/48"),
        ] {
            assert_eq!(spec.parse::<Source>().unwrap().to_string(), displayed);
        }
    }

    #[test]
    fn what_is_no_source_is_told_with_a_way_out() {
        let rows = [
            ("", "an empty source", "as in 192.0.2.0/24 or @office"),
            ("@", "`@` names no set", "as in @office"),
            (
                "@@lan",
                "the name `@lan` begins with @",
                "written @office in rules",
            ),
            ("@a,b", "the name `a,b` holds ','", "use another character"),
            ("@a b", "the name `a b` holds ' '", "no spaces"),
            (
                "office",
                "`office` is not a prefix, an address or a set",
                "written @office",
            ),
            (
                "any",
                "`any` is not a prefix",
                "leave `from` out for anyone",
            ),
            (
                "host.example",
                "`host.example` is not a prefix",
                "198.51.100.7 or @office",
            ),
            (
                "192.0.2.1-192.0.2.9",
                "is not a prefix",
                "as in 192.0.2.0/24",
            ),
            ("192.0.2/24", "is not a prefix", "as in 192.0.2.0/24"),
            ("192.0.2.0/", "is not a prefix", "as in 192.0.2.0/24"),
            ("192.0.2.0/+24", "is not a prefix", "as in 192.0.2.0/24"),
            (" 192.0.2.0/24", "is not a prefix", "as in 192.0.2.0/24"),
            ("\u{7}", "`\\u{7}` is not a prefix", "as in 192.0.2.0/24"),
            (
                "192.0.2.0/33",
                "`192.0.2.0/33`: length 33 is out of range",
                "from 0 to 32",
            ),
            (
                "192.0.2.0/999",
                "length 999 is out of range",
                "from 0 to 32",
            ),
            (
                "2001:db8::/129",
                "length 129 is out of range",
                "from 0 to 128",
            ),
            (
                "192.0.2.1/24",
                "`192.0.2.1/24` has bits set behind its first 24",
                "write 192.0.2.0/24, or 192.0.2.1 for the one address",
            ),
            (
                "2001:db8::1/32",
                "behind its first 32",
                "write 2001:db8::/32",
            ),
            (
                "192.0.2.0/255.255.255.0",
                "has a netmask, not a length",
                "write 192.0.2.0/24",
            ),
            (
                "::ffff:192.0.2.1",
                "no packet ever comes from ::ffff:192.0.2.1",
                "IPv4: 192.0.2.1",
            ),
            (
                "::ffff:192.0.2.0/120",
                "no packet ever comes from",
                "IPv4: 192.0.2.0/24",
            ),
        ];
        for (spec, message, help) in rows {
            let error = spec.parse::<Source>().unwrap_err();
            assert!(error.to_string().contains(message), "{spec}: {error}");
            assert!(error.help().contains(help), "{spec}: {}", error.help());
        }
        let error = parse_prefix("@lan").unwrap_err();
        assert_eq!(error.to_string(), "`@lan` is a set");
        let error = parse_prefix("lan").unwrap_err();
        assert_eq!(error.to_string(), "`lan` is not a prefix or an address");
    }

    proptest! {
        #[test]
        fn prefixes_of_every_length_read_back(v4: u32, v6: u128, short in 0..=32_u8, long in 0..=128_u8) {
            let v4 = IpNet::new(IpAddr::V4(v4.into()), short).unwrap().trunc();
            let v6 = IpNet::new(IpAddr::V6(v6.into()), long).unwrap().trunc();
            for prefix in [v4, v6] {
                prop_assert_eq!(parse_prefix(&prefix.to_string()), Ok(prefix));
                let source = Source::Prefix(prefix);
                prop_assert_eq!(source.to_string().parse(), Ok(source));
            }
        }

        #[test]
        fn anything_written_reads_back_or_is_refused_with_help(spec in "[@a-c0-9.:/, é]{0,12}|.*") {
            match spec.parse::<Source>() {
                Ok(source) => prop_assert_eq!(source.to_string().parse(), Ok(source)),
                Err(error) => prop_assert!(!error.help().is_empty()),
            }
        }
    }
}
