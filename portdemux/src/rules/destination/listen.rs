//! Where sockets listen that rules hand packets to.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::DestinationError;

/// The word for both loopback addresses.
pub(super) const LOCALHOST: &str = "localhost";

/// Where a socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddress {
    /// At this address.
    One(SocketAddr),
    /// On this port of 127.0.0.1 and `::1`, each for packets of its version.
    Localhost(u16),
}

impl ListenAddress {
    /// The addresses: one, or one of each version.
    pub fn each(self) -> impl Iterator<Item = SocketAddr> {
        let (first, second) = match self {
            Self::One(address) => (address, None),
            Self::Localhost(port) => (
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
                Some(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port)),
            ),
        };
        [Some(first), second].into_iter().flatten()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(address) => address.fmt(f),
            Self::Localhost(port) => write!(f, "{LOCALHOST}:{port}"),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let local = text.strip_prefix(LOCALHOST);
        if let Some(port) = local.and_then(|rest| rest.strip_prefix(':')) {
            return match port.parse() {
                Ok(0) => Err(DestinationError::PortZero(text.into())),
                Ok(port) => Ok(Self::Localhost(port)),
                Err(_) => Err(DestinationError::NotASocket(text.into())),
            };
        }
        let Ok(address) = text.parse::<SocketAddr>() else {
            let without_port = text.trim_start_matches('[').trim_end_matches(']');
            return Err(match without_port.parse::<IpAddr>() {
                Ok(address) => DestinationError::NoPort(address),
                Err(_) => DestinationError::NotASocket(text.into()),
            });
        };
        if address.port() == 0 {
            return Err(DestinationError::PortZero(text.into()));
        }
        match address.ip() {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                Err(DestinationError::MappedSocket(address))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Ok(Self::One(address)),
        }
    }
}
