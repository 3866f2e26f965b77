//! One rule: which entry points it claims and where their packets go.

use std::{collections::HashSet, hash::Hash, net::IpAddr};

pub use super::name::{MAX_NAME, RuleError, check_name};
use super::{
    destination::{Delivery, Destination},
    error::Diagnostic,
    join::join_ranges,
    port::PortRange,
    source::Source,
    terms::{Connections, Role, Terms},
    word::Word,
};

/// A claim to entry points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What it is called: 1 to [`MAX_NAME`] bytes of visible characters without spaces. Empty if it was given no
    /// name; [`super::Ruleset`] then calls it by its [`Rule::derived_name`].
    pub name: String,
    /// The ports it claims, in the order they were written.
    pub ports: Vec<PortRange>,
    /// The destination addresses it claims them at, in the order they were written; none for any.
    pub addresses: Vec<IpAddr>,
    /// Who may use them, in the order they were written; none for anyone.
    pub from: Vec<Source>,
    /// Who may not, whatever `from` says, in the order they were written.
    pub deny: Vec<Source>,
    /// Where the packets go.
    pub to: Destination,
    /// What it says about the way there.
    pub delivery: Delivery,
    /// Whose ports they are.
    pub role: Role,
    /// What else it asks of packets.
    pub terms: Terms,
    /// Whether it only counts what it would do.
    pub shadow: bool,
    /// The line of the file it begins in, from 1; 0 if it stands in no file.
    pub line: usize,
}

/// The claims that a rule's are compared with: only those of the same kind meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Rules that claim this host's ports.
    Destination,
    /// Rules that claim the ports of peers.
    Source,
    /// Shadows, which decide nothing.
    Shadow,
}

impl Layer {
    /// Every layer.
    pub const ALL: [Self; 3] = [Self::Destination, Self::Source, Self::Shadow];
}

impl Rule {
    /// The name of a rule that was given none: its first ports, with its first address if it claims
    /// any, as in `443/tcp` or `443/tcp@203.0.113.10`; those of peers as in `source:443/tcp`.
    ///
    /// A shadow is called as the rule that it can become.
    #[must_use]
    pub fn derived_name(&self) -> String {
        match (self.ports.first(), self.addresses.first(), self.role) {
            (Some(ports), _, Role::Source) => format!("source:{ports}"),
            (Some(ports), Some(address), Role::Destination) => format!("{ports}@{address}"),
            (Some(ports), None, Role::Destination) => ports.to_string(),
            (None, ..) => String::new(),
        }
    }

    /// Which claims its own meet.
    #[must_use]
    pub const fn layer(&self) -> Layer {
        match (self.shadow, self.role) {
            (true, _) => Layer::Shadow,
            (false, Role::Source) => Layer::Source,
            (false, Role::Destination) => Layer::Destination,
        }
    }

    /// Its ports as they are written, with spaces between them.
    #[must_use]
    pub fn ports_text(&self) -> String {
        joined(&self.ports)
    }

    /// Its addresses with spaces between them, or `any address`.
    #[must_use]
    pub fn addresses_text(&self) -> String {
        if self.addresses.is_empty() {
            "any address".into()
        } else {
            joined(&self.addresses)
        }
    }

    /// What it asks of packets besides ports, addresses and sources, and whether it is a shadow: the keys
    /// that say something and what they say, as it is written but for the quotes.
    #[must_use]
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let mut words = self.delivery.words(&self.to);
        words.extend(self.terms.words());
        if self.role != Role::Destination {
            words.insert(0, ("role", self.role.name().into()));
        }
        if self.shadow {
            words.push(("shadow", "true".into()));
        }
        words
    }

    /// What it says besides, for people: `rate 1000/s burst 50`, `shadow`.
    #[must_use]
    pub fn phrases(&self) -> Vec<(&'static str, String)> {
        let mut phrases: Vec<(&'static str, String)> = Vec::new();
        for (key, word) in self.words() {
            match (key, phrases.last_mut()) {
                ("burst" | "new_burst", Some((_, rate))) => {
                    rate.push_str(" burst ");
                    rate.push_str(&word);
                }
                ("shadow", _) => phrases.push((key, key.into())),
                _ => phrases.push((key, format!("{key} {word}"))),
            }
        }
        phrases
    }

    /// Whether it says the same as another rule, whatever they are called, wherever they stand and
    /// in whatever order they list it.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.to == other.to
            && self.delivery.target(&self.to) == other.delivery.target(&other.to)
            && self.layer() == other.layer()
            && self.terms.says_the_same(&other.terms)
            && same_members(&self.ports, &other.ports)
            && same_members(&self.addresses, &other.addresses)
            && same_members(&self.from, &other.from)
            && same_members(&self.deny, &other.deny)
    }

    /// Brings ports and addresses into the form that [`super::Ruleset`] holds: none twice, and ranges
    /// that overlap in part joined to one. A range within another stays: it is more specific.
    pub(super) fn normalize(&mut self) {
        if self.ports.len() > 1 {
            join_ranges(&mut self.ports);
        }
        drop_repeated(&mut self.addresses);
        drop_repeated(&mut self.from);
        drop_repeated(&mut self.deny);
    }

    /// What is wrong with it alone.
    pub(super) fn mistake(&self) -> Option<Diagnostic> {
        if self.ports.is_empty() {
            let mistake =
                Diagnostic::new("a rule without ports").at(self.line, [self.name.clone()]);
            return Some(mistake.help("say which ports it claims, as in 443/tcp"));
        }
        let name = if self.name.is_empty() {
            Ok(())
        } else {
            check_name(&self.name)
        };
        let mut addresses = self.addresses.iter();
        let error = name
            .err()
            .or_else(|| addresses.find_map(|&ip| check_address(ip).err()));
        let (message, help) = match error {
            Some(error) => (error.to_string(), error.help()),
            None => self.contradiction()?,
        };
        let name = if self.name.is_empty() {
            self.derived_name()
        } else {
            self.name.escape_debug().to_string()
        };
        let evidence = [name, self.ports_text()];
        Some(Diagnostic::new(message).at(self.line, evidence).help(help))
    }

    /// What of it does not go together, and what to do about that.
    fn contradiction(&self) -> Option<(String, String)> {
        if let Err(error) = self.terms.check() {
            return Some((error.to_string(), error.help()));
        }
        if let Err(error) = self.delivery.check(&self.to) {
            return Some((error.to_string(), error.help(str::to_owned)));
        }
        if self.terms.connections == Connections::Established && self.to.is_nowhere() {
            return Some((
                format!(
                    "`connections = \"established\"` says what comes in, `to = \"{}\"` that \
                     nothing does",
                    self.to
                ),
                "leave one of them out".into(),
            ));
        }
        let takes_new_ones_only = matches!(self.to, Destination::Socket(_));
        if self.terms.connections == Connections::Established && takes_new_ones_only {
            return Some((
                format!(
                    "`connections = \"established\"` lets no new connection in, `to = \"{}\"` is for \
                     new ones",
                    self.to
                ),
                "leave one of them out".into(),
            ));
        }
        if self.role == Role::Source && !self.addresses.is_empty() {
            return Some((
                "`role = \"source\"` with `address`".into(),
                "leave `address` out: the ports of peers are claimed for all addresses of this \
                 host"
                    .into(),
            ));
        }
        if self.role == Role::Source && self.shadow {
            return Some((
                "`role = \"source\"` with `shadow = true`".into(),
                "leave one of them out: only claims of this host's ports can be shadows".into(),
            ));
        }
        None
    }
}

/// Reads a destination address.
pub fn parse_address(text: &str) -> Result<IpAddr, RuleError> {
    let Ok(address) = text.parse() else {
        let network = text
            .split_once('/')
            .is_some_and(|(net, _)| net.parse::<IpAddr>().is_ok());
        let range = text
            .split_once('-')
            .is_some_and(|(low, _)| low.parse::<IpAddr>().is_ok());
        return Err(if network || range {
            RuleError::Prefix(text.into())
        } else {
            RuleError::NotAnAddress(text.into())
        });
    };
    check_address(address)?;
    Ok(address)
}

/// Says whether packets can be sent to an address: an IPv4-mapped IPv6 address stands for an IPv4
/// one inside programs, never on the wire (RFC 4291 §2.5.5.2).
fn check_address(address: IpAddr) -> Result<(), RuleError> {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(RuleError::Mapped(address)),
        IpAddr::V6(_) | IpAddr::V4(_) => Ok(()),
    }
}

fn drop_repeated<T: Clone + Eq + Hash>(items: &mut Vec<T>) {
    if items.len() > 1 {
        let mut seen = HashSet::with_capacity(items.len());
        items.retain(|item| seen.insert(item.clone()));
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    texts.join(" ")
}

/// Whether two lists hold the same, in whatever order.
pub(super) fn same_members<T: Ord>(left: &[T], right: &[T]) -> bool {
    fn sorted<T: Ord>(items: &[T]) -> Vec<&T> {
        let mut items: Vec<&T> = items.iter().collect();
        items.sort_unstable();
        items
    }
    left == right || (left.len() == right.len() && sorted(left) == sorted(right))
}
