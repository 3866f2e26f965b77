//! Which processes have a socket open.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, ErrorKind},
};

/// A process that has a socket open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its number, as this process sees it.
    pub pid: u32,
    /// What it is called: at most 15 bytes, of its own choice.
    pub name: String,
    /// The lowest number of a descriptor under which it has the socket.
    pub descriptor: u32,
}

/// The processes that have some sockets open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    by_inode: HashMap<u64, Vec<Holder>>,
    /// Whether all processes could be asked that can be seen.
    pub is_complete: bool,
}

impl Holders {
    /// Asks every process that can be seen for sockets of these inode numbers.
    ///
    /// A descriptor may have come from another network namespace; the numbers are the same in all.
    #[must_use]
    pub fn find(inodes: &HashSet<u64>) -> Self {
        let mut found = Self {
            is_complete: true,
            ..Self::default()
        };
        if inodes.is_empty() {
            return found;
        }
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for pid in processes {
            match open_in(pid) {
                Ok(open) => found.add(pid, open, inodes),
                Err(error) if has_gone(&error) => {}
                Err(_) => found.is_complete = false,
            }
        }
        for holders in found.by_inode.values_mut() {
            // Whoever started it all stands last: it holds sockets for others.
            holders.sort_by_key(|holder| (holder.pid == 1, holder.pid));
        }
        found
    }

    /// Whether every process has the sockets among these still that it was found with.
    #[must_use]
    pub fn still_hold(&self, inodes: &HashSet<u64>) -> bool {
        let mut held = self
            .by_inode
            .iter()
            .filter(|(inode, _)| inodes.contains(inode));
        held.all(|(number, holders)| {
            holders.iter().all(
                |Holder {
                     pid, descriptor, ..
                 }| {
                    let target = fs::read_link(format!("/proc/{pid}/fd/{descriptor}"));
                    let target = target.ok();
                    let target = target.as_ref().and_then(|target| target.to_str());
                    target.and_then(inode) == Some(*number)
                },
            )
        })
    }

    fn add(&mut self, pid: u32, open: Vec<(u32, u64)>, inodes: &HashSet<u64>) {
        let mut name = None;
        for (descriptor, inode) in open {
            if !inodes.contains(&inode) {
                continue;
            }
            let holders = self.by_inode.entry(inode).or_default();
            match holders.last_mut().filter(|last| last.pid == pid) {
                Some(last) => last.descriptor = last.descriptor.min(descriptor),
                None => holders.push(Holder {
                    pid,
                    name: name.get_or_insert_with(|| comm(pid)).clone(),
                    descriptor,
                }),
            }
        }
    }

    /// The processes that have a socket open, the lowest number first and number 1 last.
    #[must_use]
    pub fn of(&self, inode: u64) -> &[Holder] {
        self.by_inode.get(&inode).map_or(&[], Vec::as_slice)
    }
}

/// The numbers of the descriptors of a process that are sockets, and the sockets' inode numbers.
///
/// # Errors
///
/// It has ended or cannot be asked.
pub(crate) fn open_in(pid: u32) -> io::Result<Vec<(u32, u64)>> {
    let mut sockets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // Whether the descriptors may be listed and whether they may be read are two questions.
        let target = match fs::read_link(entry.path()) {
            Err(error) if has_gone(&error) => continue,
            target => target?,
        };
        let inode = target.to_str().and_then(inode);
        let number = entry.file_name().to_str().and_then(|n| n.parse().ok());
        sockets.extend(number.zip(inode));
    }
    Ok(sockets)
}

/// Whether what was asked about is not there: a process that has ended, or a descriptor that was closed.
pub(crate) fn has_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn inode(target: &str) -> Option<u64> {
    let number = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

fn comm(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        os::{
            fd::{AsFd, AsRawFd as _},
            unix::fs::MetadataExt as _,
        },
    };

    use super::*;

    fn inode_of(socket: &impl AsFd) -> u64 {
        let descriptor = socket.as_fd().as_raw_fd();
        let metadata = fs::metadata(format!("/proc/self/fd/{descriptor}"));
        metadata.unwrap().ino()
    }

    #[test]
    fn a_socket_that_is_open_twice_is_found_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let again = listener.try_clone().unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let wanted = HashSet::from([inode_of(&listener)]);
        let holders = Holders::find(&wanted);
        let descriptor = listener.as_fd().as_raw_fd().min(again.as_fd().as_raw_fd());
        let [holder] = holders.of(inode_of(&again)) else {
            panic!("{holders:?}");
        };
        assert_eq!(holder.pid, std::process::id());
        assert_eq!(i32::try_from(holder.descriptor), Ok(descriptor));
        assert!(holder.name.len() <= 15 && !holder.name.is_empty());
        // Nobody asked for this one.
        assert!(holders.of(inode_of(&other)).is_empty());
    }

    #[test]
    fn only_sockets_are_sockets() {
        assert_eq!(inode("socket:[4711]"), Some(4711));
        for target in [
            "pipe:[4711]",
            "/socket:[4711]",
            "socket:[]",
            "anon_inode:[eventfd]",
        ] {
            assert_eq!(inode(target), None, "{target}");
        }
    }
}
