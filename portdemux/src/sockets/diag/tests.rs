//! Answers as the kernel lays them out.

use super::*;
use crate::netlink::{Head, aligned};

/// A message of a kind around a body.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let head = Head {
        length: (size_of::<Head>() + body.len()).try_into().unwrap(),
        kind,
        flags: 2,
        sequence: 0,
        sender: 4711,
    };
    let mut message = [bytemuck::bytes_of(&head), body].concat();
    message.resize(aligned(message.len()), 0);
    message
}

/// An attribute, with what fills its last word.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut attribute = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    attribute.resize(aligned(attribute.len()), 0);
    attribute
}

/// An answer about a socket of IPv4 or IPv6, with attributes behind it.
fn answer_about(family: u8, state: SocketState, address: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut padded = [0; 16];
    padded[..address.len()].copy_from_slice(address);
    let answer = Answer {
        family,
        state: state as u8,
        ends: Ends {
            port: 3868_u16.to_be_bytes(),
            address: padded,
            cookie: [0x5566_7788, 0x1122_3344],
            ..Ends::default()
        },
        receive_queue: 3,
        send_queue: 128,
        owner: 1000,
        inode: 77,
        ..Answer::default()
    };
    [bytemuck::bytes_of(&answer), &attributes.concat()].concat()
}

/// `struct sockaddr_in` and `sockaddr_in6` in the room that each has in `INET_DIAG_LOCALS`.
fn local(address: &str) -> Vec<u8> {
    let port = 3868_u16.to_be_bytes();
    let mut bytes = match address.parse().unwrap() {
        IpAddr::V4(address) => {
            let family = u16::from(IPV4).to_ne_bytes();
            [&family[..], &port, &address.octets()].concat()
        }
        IpAddr::V6(address) => {
            let family = u16::from(IPV6).to_ne_bytes();
            [&family[..], &port, &[0; 4], &address.octets()].concat()
        }
    };
    bytes.resize(ADDRESS_ROOM, 0);
    bytes
}

fn sockets(messages: &[u8], transport: Transport) -> (Vec<Socket>, Option<Ended>) {
    let mut sockets = Vec::new();
    let ended = read(messages, transport, &mut sockets).unwrap();
    (sockets, ended)
}

/// As `sctp_ep_dump` answers (Linux `net/sctp/diag.c`): the shutdown state, whether IPv6 only, the memory,
/// and every address that it is bound to.
#[test]
fn an_sctp_endpoint_has_all_its_addresses() {
    let locals = [
        local("192.0.2.1"),
        local("2001:db8::1"),
        local("::ffff:192.0.2.2"),
    ]
    .concat();
    let attributes = [
        attribute(8, &[0]),
        attribute(ONLY_V6, &[0]),
        attribute(MEMORY, &[0; 36]),
        attribute(LOCALS, &locals),
    ];
    let body = answer_about(IPV6, SocketState::Listening, &[0; 16], &attributes);
    let messages = [message(BY_FAMILY, &body), message(DONE, &[0; 4])].concat();
    let (sockets, ended) = sockets(&messages, Transport::Sctp);
    assert_eq!(ended, Some(Ended::Complete));
    let addresses = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
    assert_eq!(
        sockets,
        [Socket {
            transport: Transport::Sctp,
            addresses: addresses.into(),
            // It is not bound to every address.
            is_dual: false,
            port: 3868,
            peer: "[::]:0".parse().unwrap(),
            device: None,
            state: SocketState::Listening,
            queue: Queue {
                waiting: 3,
                room: Some(128),
                dropped: None,
            },
            owner: 1000,
            inode: 77,
            cookie: Some(0x1122_3344_5566_7788),
        }]
    );
}

#[test]
fn an_sctp_endpoint_of_every_address_is_for_both_versions() {
    let attributes = [attribute(ONLY_V6, &[0]), attribute(LOCALS, &local("::"))];
    let body = answer_about(IPV6, SocketState::Listening, &[0; 16], &attributes);
    let (found, ended) = sockets(&message(BY_FAMILY, &body), Transport::Sctp);
    assert_eq!(ended, None);
    assert!(found[0].is_wildcard() && found[0].is_dual);
    let only = [attribute(ONLY_V6, &[1]), attribute(LOCALS, &local("::"))];
    let body = answer_about(IPV6, SocketState::Listening, &[0; 16], &only);
    let (found, _) = sockets(&message(BY_FAMILY, &body), Transport::Sctp);
    assert!(found[0].is_wildcard() && !found[0].is_dual);
}

#[test]
fn memory_is_told_of_sockets_that_do_not_listen() {
    let words: Vec<u8> = (100_u32..109).flat_map(u32::to_ne_bytes).collect();
    let attributes = [attribute(MEMORY, &words)];
    let body = answer_about(IPV4, SocketState::Bound, &[192, 0, 2, 1], &attributes);
    let (found, _) = sockets(&message(BY_FAMILY, &body), Transport::Udp);
    let queue = Queue {
        waiting: 3,
        room: Some(101),
        dropped: Some(108),
    };
    assert_eq!(found[0].queue, queue);
    assert_eq!(found[0].addresses, [IpAddr::from([192, 0, 2, 1])]);
}

#[test]
fn a_protocol_that_is_not_there_is_no_error() {
    // Linux says so in the end of the dump, or instead of one.
    for kind in [DONE, ERROR] {
        let messages = message(kind, &(-2_i32).to_ne_bytes());
        let (found, ended) = sockets(&messages, Transport::Sctp);
        assert_eq!((found.len(), ended), (0, Some(Ended::Unsupported)));
    }
    let refused = message(ERROR, &(-1_i32).to_ne_bytes());
    let error = read(&refused, Transport::Tcp, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("not permitted"), "{error}");
}

#[test]
fn an_answer_that_ends_early_is_an_error_and_never_a_panic() {
    let attributes = [attribute(ONLY_V6, &[0]), attribute(LOCALS, &local("::"))];
    let body = answer_about(IPV6, SocketState::Listening, &[0; 16], &attributes);
    let whole = message(BY_FAMILY, &body);
    for length in 1..whole.len() {
        assert!(read(&whole[..length], Transport::Sctp, &mut Vec::new()).is_err());
    }
    // The same inside a message that is whole: what is there counts.
    for length in 0..body.len() {
        let _ = sockets(&message(BY_FAMILY, &body[..length]), Transport::Sctp);
    }
    // A message that is shorter than its head goes on for ever unless that is seen.
    let mut short = message(BY_FAMILY, &[]);
    short[..4].copy_from_slice(&0_u32.to_ne_bytes());
    assert!(read(&short, Transport::Tcp, &mut Vec::new()).is_err());
}
