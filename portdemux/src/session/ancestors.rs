//! The processes that this one descends from, as `/proc` shows them.

use std::{fs, io, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result};

use crate::sockets::has_gone;

/// More than any chain of processes that a person starts a command through.
const MAX_DEPTH: usize = 64;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ancestor {
    pub(super) id: u32,
    /// The name of its program, at most 15 bytes of it.
    pub(super) name: String,
    parent: u32,
}

/// This process and those it descends from, nearest first.
///
/// # Errors
///
/// `/proc` cannot be read. One that has ended meanwhile ends the line.
pub(super) fn line() -> Result<Vec<Ancestor>> {
    let own = std::process::id();
    let own = Ancestor::read(own)?.with_context(|| format!("/proc does not show process {own}"))?;
    let mut line = vec![own];
    while let Some(last) = line.last()
        && last.parent != 0
        && line.len() < MAX_DEPTH
        && let Some(parent) = Ancestor::read(last.parent)?
    {
        line.push(parent);
    }
    Ok(line)
}

/// What was read of a process; nothing if it has ended.
pub(super) fn unless_ended<T>(read: io::Result<T>, what: &str) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if has_gone(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {what}")),
    }
}

/// What was read of a process; nothing if it has ended, or this one may not look into it.
fn unless_hidden<T>(read: io::Result<T>, what: &str) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        read => unless_ended(read, what),
    }
}

impl Ancestor {
    fn read(id: u32) -> Result<Option<Self>> {
        let path = format!("/proc/{id}/stat");
        let stat = unless_ended(fs::read_to_string(&path), &path)?;
        Ok(stat.and_then(|stat| Self::parse(id, &stat)))
    }

    /// Reads `/proc/PID/stat`. The name stands in parentheses and can itself hold some.
    fn parse(id: u32, stat: &str) -> Option<Self> {
        let (before, after) = stat.rsplit_once(") ")?;
        let (_, name) = before.split_once('(')?;
        Some(Self {
            id,
            name: name.into(),
            parent: after.split(' ').nth(1)?.parse().ok()?,
        })
    }

    /// A variable of the environment that it was started with. That of a process that this one may not look into says
    /// nothing.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn variable(&self, name: &str) -> Result<Option<String>> {
        let path = format!("/proc/{}/environ", self.id);
        let environment = unless_hidden(fs::read(&path), &path)?.unwrap_or_default();
        Ok(environment.split(|&byte| byte == 0).find_map(|entry| {
            let entry = std::str::from_utf8(entry).ok()?;
            let (key, value) = entry.split_once('=')?;
            (key == name).then(|| value.to_owned())
        }))
    }

    /// The inode number of its network namespace; nothing if this one may not look into it.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn namespace(&self) -> Result<Option<u64>> {
        let path = format!("/proc/{}/ns/net", self.id);
        let file = unless_hidden(fs::metadata(&path), &path)?;
        Ok(file.map(|file| file.ino()))
    }

    /// Whether it is a server that lets people in, with a process of its own for each of them.
    pub(super) fn lets_in(&self) -> bool {
        let names = ["sshd", "dropbear", "tinysshd"];
        names.iter().any(|name| self.name.starts_with(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        let process = Ancestor::parse(7, "7 (a) b (c)) S 4711 7 7 0 -1").unwrap();
        assert_eq!((process.name.as_str(), process.parent), ("a) b (c)", 4711));
        assert_eq!(Ancestor::parse(7, "7 sshd S 1"), None);
    }

    #[test]
    fn the_line_begins_here_and_ends() {
        let line = line().unwrap();
        assert_eq!(line[0].id, std::process::id());
        assert!(line.len() < MAX_DEPTH);
    }
}
