//! What a packet makes of its flow.

use super::{
    bed::TIMEOUTS,
    frames::{
        ACK, FIN, ICMP, MORE, RST, SYN, TCP, UDP, fragment, icmp, ipv4, received, sent, tcp,
        tcp_ack, udp,
    },
    *,
};
use crate::{
    policy::{Icmp, Policy, Rate},
    wire::Port,
};

/// A connection that the peer has made to port 80.
fn connect(bed: &Bed) {
    bed.receive(&received(TCP, &tcp([5_000, 80], SYN)));
    bed.send(&sent(TCP, &tcp([80, 5_000], SYN | ACK)));
    bed.receive(&received(TCP, &tcp_ack([5_000, 80], 1)));
}

#[test]
fn a_closed_flow_that_begins_again_is_a_new_one() {
    let closed: [(_, fn(&Bed)); 3] = [
        ("reset by the peer", |bed| {
            bed.receive(&received(TCP, &tcp([5_000, 80], RST)));
        }),
        ("reset by this host", |bed| {
            bed.send(&sent(TCP, &tcp([80, 5_000], RST)));
        }),
        ("closing", |bed| {
            bed.receive(&received(TCP, &tcp([5_000, 80], FIN | ACK)));
        }),
    ];
    for (name, close) in closed {
        let mut bed = Bed::tracking(Action::Drop);
        let once = Policy {
            conditions: Policy::RATES,
            new_rate: Rate {
                interval: u64::MAX >> 1,
                tolerance: 0,
            },
            ..Policy::default()
        };
        let entry = bed.on_terms(1, Action::Local, once);
        bed.claim(Transport::Tcp, 80, entry);
        connect(&bed);
        let (open, go_on) = (
            received(TCP, &tcp([5_000, 80], SYN)),
            received(TCP, &tcp_ack([5_000, 80], 1)),
        );
        assert_eq!(bed.receive(&open), passed(Reason::RuleLocal), "{name}");
        close(&bed);
        // What goes on is of the flow that was; what begins is counted as a beginning.
        assert_eq!(bed.receive(&go_on), passed(Reason::RuleLocal), "{name}");
        assert_eq!(bed.receive(&open), dropped(Reason::RateLimited), "{name}");
        bed.claim(Transport::Tcp, 80, Entry::new(1, Action::Local));
        assert_eq!(bed.receive(&open), passed(Reason::RuleLocal), "{name}");
        assert_eq!(bed.left(), TIMEOUTS.handshake, "{name}");
        bed.send(&sent(TCP, &tcp([80, 5_000], SYN | ACK)));
        bed.receive(&go_on);
        assert_eq!(bed.relation(&go_on), Some(Relation::Established), "{name}");
        assert_eq!(bed.left(), TIMEOUTS.tcp, "{name}");
    }
}

#[test]
fn the_other_side_cannot_begin_a_closed_flow_anew() {
    let bed = Bed::tracking(Action::Drop);
    bed.send(&sent(TCP, &tcp([5_000, 80], SYN)));
    bed.receive(&received(TCP, &tcp([80, 5_000], RST | ACK)));
    let open = received(TCP, &tcp([80, 5_000], SYN));
    assert_eq!(bed.receive(&open), passed(Reason::Reply));
    assert_eq!(bed.left(), TIMEOUTS.closing);
}

#[test]
fn a_packet_that_is_dropped_prolongs_no_flow_and_brings_it_no_further() {
    let mut bed = Bed::tracking(Action::Drop);
    bed.claim(Transport::Tcp, 80, Entry::new(1, Action::Local));
    connect(&bed);
    let go_on = received(TCP, &tcp_ack([5_000, 80], 1));
    bed.wait_ticks(100);
    bed.receive(&go_on);
    assert_eq!(bed.left(), TIMEOUTS.tcp);
    bed.wait_ticks(100);
    bed.claim(Transport::Tcp, 80, Entry::new(1, Action::Drop));
    assert_eq!(bed.receive(&go_on), dropped(Reason::RuleDrop));
    let reset = received(TCP, &tcp([5_000, 80], RST));
    assert_eq!(bed.receive(&reset), dropped(Reason::RuleDrop));
    assert_eq!(bed.left(), TIMEOUTS.tcp - 100);
    // What is rejected does not pass either.
    bed.claim(Transport::Tcp, 80, Entry::new(1, Action::Reject));
    assert_eq!(bed.receive(&go_on), (Verdict::Reject, Reason::RuleReject));
    assert_eq!(bed.left(), TIMEOUTS.tcp - 100);
    // What this host sends does.
    bed.send(&sent(TCP, &tcp([80, 5_000], ACK)));
    assert_eq!(bed.left(), TIMEOUTS.tcp);
}

#[test]
fn a_packet_that_is_dropped_begins_no_flow() {
    let bed = Bed::tracking(Action::Drop);
    let question = received(UDP, &udp([5_000, 53]));
    for _ in 0..2 {
        assert_eq!(bed.receive(&question), dropped(Reason::Unclaimed));
        assert_eq!(bed.relation(&question), Some(Relation::New));
    }
    bed.send(&sent(UDP, &udp([53, 5_000])));
    // Nobody was heard before, so that this host began it.
    assert_eq!(bed.receive(&question), passed(Reason::Reply));
}

/// Where the IP header ends that is behind the Ethernet header: what an error quotes begins at the one and has 8 bytes
/// more than the other.
const QUOTED: std::ops::Range<usize> = 14..14 + 20 + 8;

#[test]
fn an_error_about_a_packet_of_a_flow_comes_in_and_changes_nothing() {
    let mut bed = Bed::tracking(Action::Drop);
    bed.image.header.defaults.icmp = Icmp::Drop as u32;
    let question = sent(UDP, &udp([5_000, 53]));
    let error = |from, about: &[u8]| ipv4([from, HERE], ICMP, &icmp(3, 0, &about[QUOTED]));
    let (ours, other) = (error(9, &question), error(9, &sent(UDP, &udp([5_001, 53]))));
    assert_eq!(bed.receive(&ours), dropped(Reason::IcmpPolicy));
    bed.send(&question);
    bed.wait_ticks(10);
    assert_eq!(bed.receive(&ours), passed(Reason::Related));
    let port = Some((Port::new(5_000).index(Transport::Udp), Relation::Related));
    assert_eq!(bed.see(&ours).relation.get(), port);
    assert_eq!(bed.left(), TIMEOUTS.one_way - 10);
    // One about another packet is about none of this host's, and counted for no port.
    assert_eq!(bed.receive(&other), dropped(Reason::IcmpPolicy));
    assert_eq!(bed.see(&other).relation.get(), None);
    // What the peer sent is no packet of this host.
    let mirrored = error(9, &received(UDP, &udp([53, 5_000])));
    assert_eq!(bed.receive(&mirrored), dropped(Reason::IcmpPolicy));
    // Nor is it an error that comes in pieces.
    let piece = fragment([9, HERE], ICMP, MORE, &icmp(3, 0, &question[QUOTED]));
    assert_eq!(bed.receive(&piece), dropped(Reason::IcmpPolicy));
}

#[test]
fn padding_behind_an_error_is_no_part_of_what_it_quotes() {
    let bed = Bed::tracking(Action::Drop);
    let question = sent(UDP, &udp([5_000, 53]));
    bed.send(&question);
    let quoted = &question[QUOTED];
    for length in 0..quoted.len() {
        let (there, rest) = quoted.split_at(length);
        let mut frame = ipv4([9, HERE], ICMP, &icmp(3, 0, there));
        frame.extend(rest);
        assert_eq!(bed.receive(&frame), passed(Reason::NoPorts), "{length}");
        assert_eq!(bed.see(&frame).relation.get(), None, "{length}");
    }
}

#[test]
fn a_message_without_an_identifier_is_of_no_ping() {
    let bed = Bed::tracking(Action::Drop);
    bed.send(&sent(ICMP, &icmp(8, 0, &[])));
    let answer = icmp(0, 0, &[]);
    assert_eq!(bed.receive(&received(ICMP, &answer)), passed(Reason::Reply));
    for length in 0..6 {
        let short = received(ICMP, &answer[..length]);
        assert_eq!(bed.receive(&short), passed(Reason::NoPorts), "{length}");
        let about = sent(ICMP, &answer[..length]);
        let error = received(ICMP, &icmp(3, 0, &about[14..]));
        assert_eq!(bed.receive(&error), passed(Reason::NoPorts), "{length}");
    }
}

#[test]
fn the_answer_to_a_ping_of_this_host_comes_in_and_a_ping_of_a_peer_does_not() {
    let mut bed = Bed::tracking(Action::Drop);
    bed.image.header.defaults.icmp = Icmp::ErrorsOnly as u32;
    let (request, answer) = (icmp(8, 7, &[]), icmp(0, 7, &[]));
    assert_eq!(
        bed.receive(&received(ICMP, &answer)),
        dropped(Reason::IcmpPolicy)
    );
    bed.send(&sent(ICMP, &request));
    assert_eq!(bed.receive(&received(ICMP, &answer)), passed(Reason::Reply));
    assert_eq!(bed.left(), TIMEOUTS.echo);
    let other = icmp(0, 8, &[]);
    assert_eq!(
        bed.receive(&received(ICMP, &other)),
        dropped(Reason::IcmpPolicy)
    );
    let ping = ipv4([3, HERE], ICMP, &request);
    assert_eq!(bed.receive(&ping), dropped(Reason::IcmpPolicy));
    // An answer begins nothing, sent or received.
    bed.image.header.defaults.icmp = Icmp::Pass as u32;
    bed.send(&ipv4([HERE, 3], ICMP, &answer));
    assert_eq!(
        bed.relation(&ipv4([3, HERE], ICMP, &answer)),
        Some(Relation::New)
    );
    assert_eq!(
        bed.relation(&ipv4([3, HERE], ICMP, &answer)),
        Some(Relation::New)
    );
}

#[test]
fn what_goes_out_is_counted_for_its_port_with_the_headers_of_each_packet() {
    let bed = Bed::tracking(Action::Drop);
    let mut segment = tcp([80, 5_000], ACK);
    segment.resize(20 + 300, 0);
    let frame = sent(TCP, &segment);
    let port = Port::new(80).index(Transport::Tcp);
    let whole = frame.len() as u64;
    for (segments, packets, bytes) in [
        (0, 1, whole),
        (1, 1, whole),
        (3, 3, whole + 2 * (14 + 20 + 20)),
    ] {
        let seen = bed.send_as(&frame, segments);
        assert_eq!(seen.sent.get(), Some((port, packets, bytes)), "{segments}");
    }
}
