//! Answers as the kernel gives them.

use netlink_packet_core::DefaultNla;
use netlink_packet_sock_diag::inet::{InetResponseHeader, nlas::MemInfo};

use super::*;

/// An answer about a socket of IPv4 or IPv6, with attributes behind it.
fn answer_about(state: SocketState, address: &str, attributes: Vec<Nla>) -> InetResponse {
    let source_address: IpAddr = address.parse().unwrap();
    let family = if source_address.is_ipv4() {
        AF_INET
    } else {
        AF_INET6
    };
    let any = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    InetResponse {
        header: InetResponseHeader {
            family,
            state: state as u8,
            timer: None,
            socket_id: SocketId {
                source_port: 3868,
                source_address,
                cookie: bytemuck::cast([0x5566_7788_u32, 0x1122_3344]),
                ..any
            },
            recv_queue: 3,
            send_queue: 128,
            uid: 1000,
            inode: 77,
        },
        nlas: attributes.into(),
    }
}

/// `struct sockaddr_in` and `sockaddr_in6` in the room that each has in `INET_DIAG_LOCALS`.
fn locals(addresses: &[&str]) -> Nla {
    let port = 3868_u16.to_be_bytes();
    let local = |address: &&str| {
        let mut bytes = match address.parse().unwrap() {
            IpAddr::V4(address) => {
                let family = u16::from(AF_INET).to_ne_bytes();
                [&family[..], &port, &address.octets()].concat()
            }
            IpAddr::V6(address) => {
                let family = u16::from(AF_INET6).to_ne_bytes();
                [&family[..], &port, &[0; 4], &address.octets()].concat()
            }
        };
        bytes.resize(ADDRESS_ROOM, 0);
        bytes
    };
    let bytes: Vec<u8> = addresses.iter().flat_map(local).collect();
    Nla::Other(DefaultNla::new(INET_DIAG_LOCALS, bytes))
}

const fn memory(receive_queue_max: u32, drops: u32) -> Nla {
    Nla::MemInfo(MemInfo {
        receive_queue: 1,
        receive_queue_max,
        send_queue: 2,
        send_queue_max: 3,
        bottom_send_queues: 4,
        cache: 5,
        options: 6,
        backlog_queue_length: 7,
        drops,
    })
}

/// As `sctp_ep_dump` answers (Linux `net/sctp/diag.c`): the shutdown state, whether IPv6 only, the memory,
/// and every address that it is bound to.
#[test]
fn an_sctp_endpoint_has_all_its_addresses() {
    let attributes = vec![
        Nla::Shutdown(0),
        Nla::SkV6Only(false),
        memory(0, 0),
        locals(&["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.2"]),
    ];
    let answer = answer_about(SocketState::Listening, "::", attributes);
    let addresses = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
    assert_eq!(
        socket(&answer, Transport::Sctp),
        Some(Socket {
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
        })
    );
}

#[test]
fn an_sctp_endpoint_of_every_address_is_for_both_versions() {
    let found = |is_only| {
        let attributes = vec![Nla::SkV6Only(is_only), locals(&["::"])];
        let answer = answer_about(SocketState::Listening, "::", attributes);
        socket(&answer, Transport::Sctp).unwrap()
    };
    assert!(found(false).is_wildcard() && found(false).is_dual);
    assert!(found(true).is_wildcard() && !found(true).is_dual);
}

#[test]
fn memory_is_told_of_sockets_that_do_not_listen() {
    let answer = answer_about(SocketState::Bound, "192.0.2.1", vec![memory(101, 108)]);
    let found = socket(&answer, Transport::Udp).unwrap();
    let queue = Queue {
        waiting: 3,
        room: Some(101),
        dropped: Some(108),
    };
    assert_eq!(found.queue, queue);
    assert_eq!(found.addresses, [IpAddr::from([192, 0, 2, 1])]);
}

#[test]
fn addresses_that_end_early_are_none() {
    let whole = [&10_u16.to_ne_bytes()[..], &[1; 26]].concat();
    for length in 0..8 + 16 {
        assert_eq!(socket_address(&whole[..length]), None);
    }
    assert!(socket_address(&whole).is_some());
}

#[test]
fn a_protocol_that_is_not_there_is_no_error() {
    for errno in [Errno::NOENT, Errno::OPNOTSUPP, Errno::AFNOSUPPORT] {
        assert!(is_unsupported(&errno.into()));
    }
    assert!(!is_unsupported(&Errno::PERM.into()));
    assert!(!is_unsupported(&io::Error::other("an answer that is none")));
}
