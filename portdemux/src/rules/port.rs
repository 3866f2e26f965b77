//! Ports as they are written: `443/tcp`, `8000-8999/tcp`.

use std::{fmt, str::FromStr};

use portdemux_common::wire::Transport;

/// A port, or neighbouring ports, of one protocol.
///
/// Ordered by protocol, then by the first port, then by the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The protocol.
    pub transport: Transport,
    /// The first port.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

/// What is wrong with a port as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Nothing was written.
    #[error("an empty port")]
    Empty,
    /// There is no protocol.
    #[error("`{0}` names no protocol")]
    NoProtocol(String),
    /// The protocol is none whose ports are dispatched on.
    #[error("`{spec}` names the unknown protocol `{protocol}`")]
    UnknownProtocol {
        /// What was written.
        spec: String,
        /// The part after the slash.
        protocol: String,
    },
    /// A port is not a decimal number.
    #[error("`{spec}`: `{port}` is not a port number")]
    NotANumber {
        /// What was written.
        spec: String,
        /// The part that should be a number.
        port: String,
    },
    /// A port is above 65535.
    #[error("`{spec}`: port {port} is out of range")]
    OutOfRange {
        /// What was written.
        spec: String,
        /// The number.
        port: String,
    },
    /// The range's first port is above its last.
    #[error("`{spec}` is a reversed range")]
    Reversed {
        /// What was written.
        spec: String,
        /// The same range the right way round.
        range: PortRange,
    },
}

impl PortError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Empty => "write PORT/PROTOCOL or FIRST-LAST/PROTOCOL, as in 443/tcp".into(),
            Self::NoProtocol(spec) if looks_like_ports(spec) => {
                format!("write {spec}/tcp, {spec}/udp or {spec}/sctp")
            }
            Self::NoProtocol(_) => {
                "write PORT/PROTOCOL or FIRST-LAST/PROTOCOL, as in 443/tcp".into()
            }
            Self::UnknownProtocol { .. } => "the protocols are tcp, udp and sctp".into(),
            Self::NotANumber { .. } => {
                "ports are decimal numbers, as in 443/tcp or 8000-8999/tcp".into()
            }
            Self::OutOfRange { .. } => "ports go from 0 to 65535".into(),
            Self::Reversed { range, .. } => format!("write the lower port first: {range}"),
        }
    }
}

fn looks_like_ports(spec: &str) -> bool {
    let mut parts = spec.splitn(2, '-');
    parts.all(|part| part.parse::<u16>().is_ok())
}

impl PortRange {
    /// One port.
    #[must_use]
    pub const fn single(transport: Transport, port: u16) -> Self {
        Self {
            transport,
            first: port,
            last: port,
        }
    }

    /// Whether a port is one of these.
    #[must_use]
    pub const fn holds(self, transport: Transport, port: u16) -> bool {
        self.transport as u8 == transport as u8 && self.first <= port && port <= self.last
    }

    /// Whether every port of `other` is one of these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.transport as u8 == other.transport as u8
            && self.first <= other.first
            && other.last <= self.last
    }

    /// The ports that are also `other`'s.
    #[must_use]
    pub fn overlap(self, other: Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (self.transport == other.transport && first <= last).then_some(Self {
            transport: self.transport,
            first,
            last,
        })
    }

    /// Whether some port is also `other`'s.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.overlap(other).is_some()
    }

    /// How many ports these are: 1 to 65,536.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a range holds at least one port"
    )]
    pub const fn len(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            transport,
            first,
            last,
        } = self;
        if first == last {
            write!(f, "{first}/{}", transport.name())
        } else {
            write!(f, "{first}-{last}/{}", transport.name())
        }
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    fn from_str(spec: &str) -> Result<Self, PortError> {
        if spec.is_empty() {
            return Err(PortError::Empty);
        }
        let Some((ports, protocol)) = spec.split_once('/') else {
            return Err(PortError::NoProtocol(spec.into()));
        };
        let Some(transport) = Transport::ALL
            .into_iter()
            .find(|known| known.name() == protocol)
        else {
            return Err(PortError::UnknownProtocol {
                spec: spec.into(),
                protocol: protocol.into(),
            });
        };
        let (first, last) = match ports.split_once('-') {
            None => {
                let port = number(spec, ports)?;
                (port, port)
            }
            Some((first, last)) => (number(spec, first)?, number(spec, last)?),
        };
        if first > last {
            let range = Self {
                transport,
                first: last,
                last: first,
            };
            return Err(PortError::Reversed {
                spec: spec.into(),
                range,
            });
        }
        Ok(Self {
            transport,
            first,
            last,
        })
    }
}

fn number(spec: &str, port: &str) -> Result<u16, PortError> {
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PortError::NotANumber {
            spec: spec.into(),
            port: port.into(),
        });
    }
    port.parse().map_err(|_| PortError::OutOfRange {
        spec: spec.into(),
        port: port.into(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn transports() -> impl Strategy<Value = Transport> {
        (0..Transport::COUNT).prop_map(|index| Transport::ALL[index])
    }

    #[test]
    fn ports_read_as_they_are_written() {
        let rows = [
            ("443/tcp", Transport::Tcp, 443, 443),
            ("8000-8999/tcp", Transport::Tcp, 8000, 8999),
            ("53/udp", Transport::Udp, 53, 53),
            ("0/sctp", Transport::Sctp, 0, 0),
            ("0-65535/udp", Transport::Udp, 0, 65535),
            ("7-7/tcp", Transport::Tcp, 7, 7),
            ("0080/tcp", Transport::Tcp, 80, 80),
        ];
        for (spec, transport, first, last) in rows {
            assert_eq!(
                spec.parse(),
                Ok(PortRange {
                    transport,
                    first,
                    last
                }),
                "{spec}"
            );
        }
    }

    #[test]
    fn every_mistake_is_named_and_has_a_way_out() {
        let rows = [
            ("", "an empty port", "as in 443/tcp"),
            (
                "443",
                "`443` names no protocol",
                "write 443/tcp, 443/udp or 443/sctp",
            ),
            ("80-90", "`80-90` names no protocol", "write 80-90/tcp"),
            ("https", "`https` names no protocol", "write PORT/PROTOCOL"),
            (
                "443/tpc",
                "`443/tpc` names the unknown protocol `tpc`",
                "tcp, udp and sctp",
            ),
            (
                "443/TCP",
                "`443/TCP` names the unknown protocol `TCP`",
                "tcp, udp and sctp",
            ),
            (
                "443/",
                "`443/` names the unknown protocol ``",
                "tcp, udp and sctp",
            ),
            (
                "https/tcp",
                "`https/tcp`: `https` is not a port number",
                "decimal",
            ),
            ("/tcp", "`/tcp`: `` is not a port number", "decimal"),
            ("1-/tcp", "`1-/tcp`: `` is not a port number", "decimal"),
            ("-1/tcp", "`-1/tcp`: `` is not a port number", "decimal"),
            (
                "1-2-3/tcp",
                "`1-2-3/tcp`: `2-3` is not a port number",
                "decimal",
            ),
            ("+1/tcp", "`+1/tcp`: `+1` is not a port number", "decimal"),
            (" 1/tcp", "` 1/tcp`: ` 1` is not a port number", "decimal"),
            (
                "65536/tcp",
                "`65536/tcp`: port 65536 is out of range",
                "0 to 65535",
            ),
            (
                "1-99999999999999999999/udp",
                "port 99999999999999999999 is out",
                "0 to 65535",
            ),
            ("90-80/tcp", "`90-80/tcp` is a reversed range", "80-90/tcp"),
        ];
        for (spec, message, help) in rows {
            let error = spec.parse::<PortRange>().unwrap_err();
            assert!(error.to_string().contains(message), "{spec}: {error}");
            assert!(error.help().contains(help), "{spec}: {}", error.help());
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_reads_back(transport in transports(), a: u16, b: u16) {
            let range = PortRange { transport, first: a.min(b), last: a.max(b) };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn anything_written_reads_or_is_refused(spec in ".*") {
            let _ = spec.parse::<PortRange>();
        }

        #[test]
        fn overlap_is_what_both_hold(a in 0u16..50, b in 0u16..50, c in 0u16..50, d in 0u16..50) {
            let left =
                PortRange { transport: Transport::Tcp, first: a.min(b), last: a.max(b) };
            let right =
                PortRange { transport: Transport::Tcp, first: c.min(d), last: c.max(d) };
            let overlap = left.overlap(right);
            for port in 0..50 {
                let both = left.holds(Transport::Tcp, port) && right.holds(Transport::Tcp, port);
                prop_assert_eq!(overlap.is_some_and(|o| o.holds(Transport::Tcp, port)), both);
            }
            prop_assert_eq!(left.contains(right), overlap == Some(right));
            prop_assert_eq!(left.len() as usize, (left.first..=left.last).count());
            let other = PortRange { transport: Transport::Udp, ..right };
            prop_assert!(!left.overlaps(other) && !left.contains(other));
        }
    }
}
