//! Where the packets of a rule go.

mod cpus;
mod delivery;
mod error;
mod listen;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use portdemux_common::{capacity::NAME_LENGTH, entry::Action};

pub use self::{
    cpus::{Cpus, MAX_CPU, MAX_CPUS},
    delivery::{DEFAULT_QUEUE, Delivery, Fallback, MAX_QUEUE, Mac, check_queue},
    error::{DestinationError, MacError},
    listen::ListenAddress,
};

/// How many bytes the name of a socket or of an AF_XDP program can have.
pub const MAX_DESTINATION_NAME: usize = 32;

/// The words that are a destination by themselves.
const WORDS: [&str; 3] = ["local", "drop", "reject"];

/// Where the packets of a rule go.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// To the host's own stack.
    #[default]
    Local,
    /// Nowhere.
    Drop,
    /// Nowhere, and their senders are told.
    Reject,
    /// New connections and datagrams to a socket.
    Socket(SocketName),
    /// Out of the interface of this name: 1 to 15 bytes, as Linux takes it.
    Interface(String),
    /// To CPUs, and there to the host's own stack.
    Cpus(Cpus),
    /// To the program that takes raw frames under this name: 1 to [`MAX_DESTINATION_NAME`] letters,
    /// digits, `-` and `_`.
    Xsk(String),
}

/// Which socket is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketName {
    /// What listens there.
    Address(ListenAddress),
    /// Those that are registered under this name: 1 to [`MAX_DESTINATION_NAME`] letters, digits, `-` and
    /// `_`, not all of them digits.
    Name(String),
}

impl Destination {
    /// What a packet's decision says of it.
    #[must_use]
    pub const fn action(&self) -> Action {
        match self {
            Self::Local => Action::Local,
            Self::Drop => Action::Drop,
            Self::Reject => Action::Reject,
            Self::Socket(_) => Action::Socket,
            Self::Interface(_) => Action::Interface,
            Self::Cpus(_) => Action::Cpu,
            Self::Xsk(_) => Action::Xsk,
        }
    }

    /// Whether no packet gets in.
    #[must_use]
    pub const fn is_nowhere(&self) -> bool {
        matches!(self, Self::Drop | Self::Reject)
    }

    /// What happens to packets while it is missing unless that is said; nothing if it cannot be missing.
    ///
    /// What was meant for another does not get to this host's own stack unless that is asked for: its
    /// resets would end the connections of a program that takes raw frames. Who looks for a socket hears
    /// what a closed port says.
    #[must_use]
    pub const fn usual_fallback(&self) -> Option<Fallback> {
        match self {
            Self::Local | Self::Drop | Self::Reject | Self::Cpus(_) => None,
            Self::Socket(_) => Some(Fallback::Reject),
            Self::Interface(_) | Self::Xsk(_) => Some(Fallback::Drop),
        }
    }

    /// The CPUs, if it is a list of them.
    #[must_use]
    pub const fn cpus(&self) -> Option<&Cpus> {
        if let Self::Cpus(cpus) = self {
            Some(cpus)
        } else {
            None
        }
    }

    /// Whether it has a slot in the maps of targets, which it keeps as long as some rule names it.
    #[must_use]
    pub const fn has_slot(&self) -> bool {
        matches!(self, Self::Socket(_) | Self::Interface(_) | Self::Xsk(_))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.pad("local"),
            Self::Drop => f.pad("drop"),
            Self::Reject => f.pad("reject"),
            Self::Socket(socket) => write!(f, "socket:{socket}"),
            Self::Interface(name) => write!(f, "interface:{name}"),
            Self::Cpus(cpus) => write!(f, "cpu:{cpus}"),
            Self::Xsk(name) => write!(f, "xsk:{name}"),
        }
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        match text {
            "local" => return Ok(Self::Local),
            "drop" => return Ok(Self::Drop),
            "reject" => return Ok(Self::Reject),
            _ => {}
        }
        let Some((kind, name)) = text.split_once(':') else {
            return Err(DestinationError::Unknown(text.into()));
        };
        match kind {
            "socket" => Ok(Self::Socket(name.parse()?)),
            "interface" => {
                check_interface(name)?;
                Ok(Self::Interface(name.into()))
            }
            "cpu" => Ok(Self::Cpus(name.parse()?)),
            "xsk" => {
                check_name(name)?;
                Ok(Self::Xsk(name.into()))
            }
            _ => Err(DestinationError::Unknown(text.into())),
        }
    }
}

impl FromStr for SocketName {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let is_address = text.contains([':', '[', '.']);
        if !is_address {
            if text.len() <= 5 && text.parse::<u16>().is_ok() {
                return Err(DestinationError::PortAlone(text.into()));
            }
            if text == listen::LOCALHOST {
                return Err(DestinationError::NotASocket(text.into()));
            }
            check_name(text)?;
            return Ok(Self::Name(text.into()));
        }
        Ok(Self::Address(text.parse()?))
    }
}

/// Says whether an interface can have this name (Linux `net/core/dev.c`, `dev_valid_name`).
pub(super) fn check_interface(name: &str) -> Result<(), DestinationError> {
    if name.is_empty() {
        return Err(DestinationError::NoName("interface"));
    }
    if name.len() >= NAME_LENGTH {
        return Err(DestinationError::LongInterface(name.into()));
    }
    let is_bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name == "." || name == ".." || name.contains(is_bad) {
        return Err(DestinationError::BadInterface(name.into()));
    }
    Ok(())
}

/// Says whether a socket or an AF_XDP program can have this name, which is also a name in bpffs.
fn check_name(name: &str) -> Result<(), DestinationError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() {
        Err(DestinationError::NoName("xsk"))
    } else if name.len() > MAX_DESTINATION_NAME || !name.chars().all(is_plain) {
        Err(DestinationError::BadName(name.into()))
    } else {
        Ok(())
    }
}
