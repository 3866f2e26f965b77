//! Packets of which versions of IP a socket takes.

use std::fmt;

use portdemux_common::parse::Version;

/// Packets of which versions a socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Of IPv4.
    V4,
    /// Of IPv6.
    V6,
    /// Of both.
    Both,
}

impl Family {
    /// Whether a socket takes packets of a version.
    #[must_use]
    pub const fn takes(self, version: Version) -> bool {
        matches!(
            (self, version),
            (Self::Both, _) | (Self::V4, Version::V4) | (Self::V6, Version::V6)
        )
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
            Self::Both => "IPv4 and IPv6",
        })
    }
}
