//! What rules and sets can be called, and what is wrong with a name or an address.

use std::net::IpAddr;

use portdemux_common::capacity::RULE_NAME_LENGTH;

/// How many bytes of UTF-8 a rule's name can have.
pub const MAX_NAME: usize = RULE_NAME_LENGTH;

/// What is wrong with a rule's name or with one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The name is empty.
    #[error("an empty name")]
    EmptyName,
    /// The name is longer than [`MAX_NAME`] bytes.
    #[error("a name of {0} bytes is too long")]
    LongName(usize),
    /// A space, a control character or the like stands in the name.
    #[error("the name `{}` holds {bad:?}", .name.escape_debug())]
    BadName {
        /// The name.
        name: String,
        /// The first character that cannot stand in one.
        bad: char,
    },
    /// What was written is no address.
    #[error("`{0}` is not an IP address")]
    NotAnAddress(String),
    /// What was written is a prefix or a range of addresses.
    #[error("`{0}` is more than one address")]
    Prefix(String),
    /// An IPv4 address was written inside an IPv6 one.
    #[error("no packet is ever sent to {0}")]
    Mapped(IpAddr),
}

impl RuleError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::EmptyName => "give it a name, or leave `name` out".into(),
            Self::LongName(_) => format!("names have at most {MAX_NAME} bytes"),
            Self::BadName { .. } => {
                "names have no spaces and no invisible characters, as in web-8080".into()
            }
            Self::NotAnAddress(_) => "write it as in 203.0.113.10 or 2001:db8::10".into(),
            Self::Prefix(_) => {
                "list the addresses one by one, or leave `address` out for any".into()
            }
            Self::Mapped(address) => format!("write it as IPv4: {}", address.to_canonical()),
        }
    }
}

/// Says whether a rule can have this name: 1 to [`MAX_NAME`] bytes, its characters all of them visible, none a
/// space.
pub fn check_name(name: &str) -> Result<(), RuleError> {
    if name.bytes().all(|byte| byte.is_ascii_graphic()) && (1..=MAX_NAME).contains(&name.len()) {
        return Ok(());
    }
    if name.is_empty() {
        return Err(RuleError::EmptyName);
    }
    if let Some(bad) = name.chars().find(|&character| !is_visible(character)) {
        return Err(RuleError::BadName {
            name: name.into(),
            bad,
        });
    }
    match name.len() {
        1..=MAX_NAME => Ok(()),
        bytes => Err(RuleError::LongName(bytes)),
    }
}

/// `char::escape_debug` escapes what a reader could not see.
fn is_visible(character: char) -> bool {
    !character.is_whitespace()
        && (matches!(character, '\'' | '"' | '\\') || character.escape_debug().count() == 1)
}
