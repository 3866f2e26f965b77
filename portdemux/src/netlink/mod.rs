//! Conversations with the kernel by netlink (`netlink(7)`).

pub(crate) mod generic;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;

/// How much of the kernel's answers is read at once; it sends no more than 32 KiB of a dump (Linux
/// `net/netlink/af_netlink.c`, `netlink_dump`).
const AT_ONCE: usize = 64 << 10;
/// `MSG_TRUNC`: how long a datagram is, whatever part of it was read.
const WHOLE_LENGTH: i32 = rustix::net::RecvFlags::TRUNC.bits().cast_signed();

/// The first type of message that is not netlink's own (`NLMSG_MIN_TYPE`).
const FIRST_OF_FAMILIES: u16 = 0x10;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// One thing.
    One,
    /// All there is.
    All,
}

/// Asks the kernel's side of a protocol, as in [`netlink_sys::protocols::NETLINK_ROUTE`], and returns its answers.
///
/// # Errors
///
/// What the kernel says instead of an answer, as an error of the system; an answer that ends early or is none.
pub(crate) fn ask<M>(protocol: isize, asked: Asked, question: M) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let socket = Socket::new(protocol)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST
        | match asked {
            Asked::One => NLM_F_ACK,
            Asked::All => NLM_F_DUMP,
        };
    let mut question = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    let mut buffer = Vec::with_capacity(AT_ONCE);
    loop {
        buffer.clear();
        let length = socket.recv(&mut buffer, WHOLE_LENGTH)?;
        if length > buffer.len() {
            return Err(io::Error::other(format!(
                "an answer of {length} bytes is too long"
            )));
        }
        if read(&buffer, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// Reads messages; returns whether the answer ends with them. One that is whole and says what the crate does not
/// understand is left out: a newer kernel may say more.
fn read<M: NetlinkDeserializable>(mut messages: &[u8], answers: &mut Vec<M>) -> io::Result<bool> {
    while !messages.is_empty() {
        let head = NetlinkBuffer::new_checked(messages).map_err(io::Error::other)?;
        let payload = NetlinkMessage::<M>::deserialize(messages).map(|message| message.payload);
        let code = match payload {
            Ok(NetlinkPayload::InnerMessage(answer)) => {
                answers.push(answer);
                None
            }
            Ok(NetlinkPayload::Done(done)) => Some(done.code),
            Ok(NetlinkPayload::Error(error)) => Some(error.raw_code()),
            Err(error) if head.message_type() < FIRST_OF_FAMILIES => {
                return Err(io::Error::other(error));
            }
            Ok(NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _) | Err(_) => None,
        };
        match code {
            Some(0) => return Ok(true),
            Some(code) => return Err(Errno::from_raw_os_error(code.saturating_neg()).into()),
            None => {}
        }
        let next = (head.length() as usize).next_multiple_of(4);
        messages = messages.get(next..).unwrap_or_default();
    }
    Ok(false)
}

/// Whether an error is one of the system, and this one.
pub(crate) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DoneMessage, ErrorMessage};
    use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};

    use super::*;

    fn bytes(payload: NetlinkPayload<RouteNetlinkMessage>) -> Vec<u8> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
        message.serialize(&mut bytes);
        bytes
    }

    fn link() -> Vec<u8> {
        let link = RouteNetlinkMessage::NewLink(LinkMessage::default());
        bytes(NetlinkPayload::InnerMessage(link))
    }

    fn read_all(messages: &[u8]) -> io::Result<(usize, bool)> {
        let mut answers = Vec::<RouteNetlinkMessage>::new();
        let ended = read(messages, &mut answers)?;
        Ok((answers.len(), ended))
    }

    #[test]
    fn an_answer_ends_where_the_kernel_says_so() {
        let done = |code| {
            let mut done = DoneMessage::default();
            done.code = code;
            bytes(NetlinkPayload::Done(done))
        };
        assert_eq!(read_all(&[link(), link()].concat()).unwrap(), (2, false));
        assert_eq!(read_all(&[link(), done(0)].concat()).unwrap(), (1, true));
        let mut acknowledged = ErrorMessage::default();
        acknowledged.header = vec![0; 16];
        let acknowledged = bytes(NetlinkPayload::Error(acknowledged));
        assert_eq!(
            read_all(&[link(), acknowledged].concat()).unwrap(),
            (1, true)
        );
        // Linux tells an error in the end of a dump, or instead of one.
        let error = read_all(&done(-2)).unwrap_err();
        assert!(is(&error, Errno::NOENT), "{error}");
        let mut refused = done(0);
        refused[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        refused[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        refused.resize(36, 0);
        refused[..4].copy_from_slice(&36_u32.to_ne_bytes());
        let error = read_all(&refused).unwrap_err();
        assert!(is(&error, Errno::PERM), "{error}");
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let mut strange = link();
        // A type of message that the crate does not know.
        strange[4..6].copy_from_slice(&0x7777_u16.to_ne_bytes());
        let messages = [link(), strange, link()].concat();
        assert_eq!(read_all(&messages).unwrap(), (2, false));
    }

    #[test]
    fn an_answer_that_ends_early_is_an_error_and_never_a_panic() {
        let whole = link();
        for length in 1..whole.len() {
            read_all(&whole[..length]).unwrap_err();
        }
        // A message that is shorter than its head goes on for ever unless that is seen.
        let mut short = link();
        short[..4].copy_from_slice(&0_u32.to_ne_bytes());
        read_all(&short).unwrap_err();
    }
}
