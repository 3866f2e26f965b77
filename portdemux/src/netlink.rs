//! Messages of netlink (`netlink(7)`, Linux `include/uapi/linux/netlink.h`) that no crate has the types for.
//! Numbers are in host byte order.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail};
use bytemuck::{Pod, Zeroable};
use rustix::net::{RecvFlags, recv};

/// The head of each message (`struct nlmsghdr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Head {
    pub(crate) length: u32,
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) sender: u32,
}

const _: () = assert!(size_of::<Head>() == 16);

/// `NLMSG_ERROR` and `NLMSG_DONE`; in both an error number follows, negative.
pub(crate) const ERROR: u16 = 2;
/// See [`ERROR`].
pub(crate) const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x301;
/// `NLM_F_REQUEST | NLM_F_ACK`.
pub(crate) const ACKNOWLEDGED: u16 = 5;

/// A message around a body.
pub(crate) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let head = Head {
        length: u32::try_from(size_of::<Head>() + body.len()).unwrap_or(u32::MAX),
        kind,
        flags,
        sequence: 0,
        sender: 0,
    };
    [bytemuck::bytes_of(&head), body].concat()
}

/// Reads answers until `read` has a word for how they ended.
///
/// # Errors
///
/// The kernel does not answer, `read` fails, or an answer is longer than any (Linux `net/netlink/af_netlink.c`,
/// `netlink_dump`).
pub(crate) fn receive<T>(
    socket: &OwnedFd,
    mut read: impl FnMut(&[u8]) -> Result<Option<T>>,
) -> Result<T> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let (length, _) = recv(socket, &mut *buffer, RecvFlags::TRUNC)?;
        let Some(messages) = buffer.get(..length) else {
            bail!("an answer of {length} bytes is too long");
        };
        if let Some(ended) = read(messages)? {
            return Ok(ended);
        }
    }
}

/// Takes the first of some messages off: its kind and its body; nothing if there is none.
///
/// # Errors
///
/// It is cut off.
pub(crate) fn next<'m>(messages: &mut &'m [u8]) -> Result<Option<(u16, &'m [u8])>> {
    if messages.is_empty() {
        return Ok(None);
    }
    let head: Head = first(messages).context("an answer ends inside a head")?;
    let length = head.length as usize;
    let body = messages
        .get(size_of::<Head>()..length)
        .context("an answer ends inside a message")?;
    *messages = messages.get(aligned(length)..).unwrap_or_default();
    Ok(Some((head.kind, body)))
}

/// Attributes (`struct nlattr`): a length that counts itself, a kind, the value, and up to three bytes
/// that fill the word.
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [length, kind]: [u16; 2] = first(self.0)?;
        let length = usize::from(length);
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// What some bytes begin with, if they are enough.
pub(crate) fn first<T: Pod>(bytes: &[u8]) -> Option<T> {
    Some(bytemuck::pod_read_unaligned(bytes.get(..size_of::<T>())?))
}

/// Where what follows so many bytes begins.
pub(crate) const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}
