//! The session that the command is typed in: who is at its other end.
//!
//! sshd says it in `SSH_CONNECTION`. Between sshd and this process, sudo or another program may have
//! taken that out of the environment, but not out of the environments of the processes before it. Where
//! none of them has it, the server's own connection says the same.
//!
//! What tmux and screen keep of an environment can be of a session that has ended.

mod ancestors;
mod sockets;

use std::{
    env,
    fmt::{self, Display},
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;

use crate::interface::{self, Arrival};

/// The variable in which sshd says who came from where.
const CONNECTION: &str = "SSH_CONNECTION";

/// A session from another host, over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The other end.
    pub peer: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// The interface that a link-local address was written with.
    scope: Option<String>,
    /// The network namespace that it ends in, where that is known.
    netns: Option<u64>,
}

/// An interface that a program runs on, or is to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Inode number of its network namespace.
    pub netns: u64,
    /// Its index there.
    pub index: u32,
}

impl Session {
    /// Looks for the session that this process was started from.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub fn find() -> Result<Option<Self>> {
        let mut found: Option<Self> = None;
        for process in ancestors::line()? {
            // Of this process the environment can be read whatever privileges it has.
            let said = if process.id == std::process::id() {
                env::var(CONNECTION).ok()
            } else {
                process.variable(CONNECTION)?
            };
            let session = said.as_deref().and_then(Self::parse);
            found = match (found, session) {
                (None, session) => session,
                (Some(found), session) if session.as_ref() != Some(&found) => {
                    // It was the last one to be told, so this one told it.
                    let netns = if process.lets_in() {
                        process.namespace()?
                    } else {
                        None
                    };
                    return Ok(Some(Self { netns, ..found }));
                }
                (found, _) => found,
            };
            if found.is_none()
                && process.lets_in()
                && let Some((local, peer)) = sockets::connection(process.id)?
            {
                return Ok(Some(Self {
                    peer,
                    local,
                    scope: None,
                    netns: process.namespace()?,
                }));
            }
        }
        Ok(found)
    }

    /// Reads what sshd says: the client's address and port, then the server's.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let mut end = || {
            let (address, port) = (words.next()?, words.next()?);
            let (address, scope) = match address.split_once('%') {
                Some((address, scope)) => (address, Some(scope.to_owned())),
                None => (address, None),
            };
            let address: IpAddr = address.parse().ok()?;
            let end = SocketAddr::new(address.to_canonical(), port.parse().ok()?);
            Some((end, scope))
        };
        let ((peer, there), (local, here)) = (end()?, end()?);
        Some(Self {
            peer,
            local,
            scope: here.or(there),
            netns: None,
        })
    }

    /// Whether its packets may come by one of these; yes if that cannot be said.
    ///
    /// # Errors
    ///
    /// The kernel does not list interfaces, addresses and routes.
    pub fn may_come_by(&self, hooks: &[Hook]) -> Result<bool> {
        if hooks.is_empty() {
            return Ok(false);
        }
        let here = interface::namespace()?;
        let is_there = |netns: u64| hooks.iter().any(|hook| hook.netns == netns);
        if let Some(netns) = self.netns.filter(|&netns| netns != here) {
            return Ok(is_there(netns));
        }
        let arrival = interface::arrival(self.local.ip(), self.peer.ip(), self.scope.as_deref())?;
        Ok(match arrival {
            Arrival::By(found) => {
                let mut hooks = hooks.iter();
                hooks.any(|hook| hook.netns == here && found.contains(&hook.index))
            }
            Arrival::Anyhow => is_there(here),
            // Then it is one that ends in this namespace under another address.
            Arrival::Elsewhere if self.netns.is_some() => is_there(here),
            Arrival::Elsewhere => hooks.iter().any(|hook| hook.netns != here),
        })
    }
}

impl Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}/tcp", self.peer, self.local.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &str) -> Option<(String, String, Option<String>)> {
        let session = Session::parse(text)?;
        Some((
            session.peer.to_string(),
            session.local.to_string(),
            session.scope,
        ))
    }

    #[test]
    fn what_sshd_says_is_read_in_all_its_forms() {
        let v4 = ("198.51.100.7:52341".into(), "203.0.113.10:22".into(), None);
        assert_eq!(ends("198.51.100.7 52341 203.0.113.10 22"), Some(v4.clone()));
        assert_eq!(
            ends("::ffff:198.51.100.7 52341 ::ffff:203.0.113.10 22"),
            Some(v4)
        );
        assert_eq!(
            ends("fe80::1%eth0 52341 fe80::2%eth0 22"),
            Some((
                "[fe80::1]:52341".into(),
                "[fe80::2]:22".into(),
                Some("eth0".into())
            ))
        );
        for text in [
            "",
            "UNKNOWN 65535 UNKNOWN 65535",
            "198.51.100.7 52341 203.0.113.10",
            "198.51.100.7 70000 203.0.113.10 22",
        ] {
            assert_eq!(ends(text), None, "{text}");
        }
    }

    #[test]
    fn it_is_shown_as_rules_are_written() {
        let session = Session::parse("2001:db8::7 52341 2001:db8::10 22").unwrap();
        assert_eq!(session.to_string(), "[2001:db8::7]:52341 → 22/tcp");
    }
}
