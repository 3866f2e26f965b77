//! Whose a packet is, and what its rule asks.

use super::{
    bed::SECOND,
    frames::{SYN, TCP, UDP, ipv4, received, sent, tcp, udp},
    *,
};
use crate::policy::{Policy, Rate};

/// Two at once, then one in a second.
const RATE: Rate = Rate {
    interval: SECOND,
    tolerance: SECOND,
};

#[test]
fn replies_and_nothing_else_come_in_where_unclaimed_packets_are_dropped() {
    for (inbound, refused) in [
        (Action::Drop, Verdict::Drop),
        (Action::Reject, Verdict::Reject),
    ] {
        let bed = Bed::tracking(inbound);
        let reply = received(UDP, &udp([53, 5_000]));
        assert_eq!(bed.receive(&reply), (refused, Reason::Unclaimed));
        bed.send(&sent(UDP, &udp([5_000, 53])));
        assert_eq!(bed.receive(&reply), passed(Reason::Reply));
        // Neither from another port, nor from another peer, nor to another port.
        for other in [
            received(UDP, &udp([54, 5_000])),
            ipv4([3, HERE], UDP, &udp([53, 5_000])),
            received(UDP, &udp([53, 5_001])),
        ] {
            assert_eq!(bed.receive(&other), (refused, Reason::Unclaimed));
        }
    }
}

#[test]
fn a_flow_that_a_peer_began_is_no_reason_to_let_unclaimed_packets_in() {
    let mut bed = Bed::tracking(Action::Local);
    let (question, answer) = (
        received(UDP, &udp([5_000, 53])),
        sent(UDP, &udp([53, 5_000])),
    );
    bed.receive(&question);
    bed.send(&answer);
    bed.receive(&question);
    assert_eq!(bed.relation(&question), Some(Relation::Established));
    bed.image.header.defaults.inbound = Action::Drop as u32;
    assert_eq!(bed.receive(&question), dropped(Reason::Unclaimed));
}

#[test]
fn where_unclaimed_packets_pass_a_reply_is_told_from_them() {
    let bed = Bed::tracking(Action::Local);
    let reply = received(UDP, &udp([53, 5_000]));
    assert_eq!(bed.receive(&reply), passed(Reason::Unclaimed));
    let other = received(UDP, &udp([54, 5_000]));
    bed.send(&sent(UDP, &udp([5_000, 54])));
    assert_eq!(bed.receive(&other), passed(Reason::Reply));
}

#[test]
fn a_rule_for_replies_only_lets_no_flow_in_that_a_peer_began() {
    let mut bed = Bed::tracking(Action::Drop);
    bed.claim(Transport::Udp, 53, Entry::new(1, Action::Local));
    let (question, answer) = (
        received(UDP, &udp([5_000, 53])),
        sent(UDP, &udp([53, 5_000])),
    );
    bed.receive(&question);
    bed.send(&answer);
    bed.receive(&question);
    assert_eq!(bed.relation(&question), Some(Relation::Established));
    let policy = Policy {
        conditions: Policy::REPLIES_ONLY,
        ..Policy::default()
    };
    let replies = bed.on_terms(1, Action::Local, policy);
    bed.claim(Transport::Udp, 53, replies);
    assert_eq!(bed.receive(&question), dropped(Reason::NotEstablished));
    // What this host began with the same port comes in.
    bed.send(&sent(UDP, &udp([53, 6_000])));
    let reply = received(UDP, &udp([6_000, 53]));
    assert_eq!(bed.receive(&reply), passed(Reason::RuleLocal));
}

#[test]
fn a_shadow_at_the_exact_address_is_cast_and_not_the_one_at_any() {
    let mut bed = Bed::new();
    let (claim, here, any) = (
        Entry::new(1, Action::Local),
        Entry::new(2, Action::Drop),
        Entry::new(3, Action::Reject),
    );
    bed.claim(Transport::Tcp, 80, claim);
    let shadow = |bed: &Bed, to| {
        let seen = bed.see(&ipv4([PEER, to], TCP, &tcp([5_000, 80], SYN)));
        let (_, _, decision) = seen.counted.get().expect("it is counted");
        // The rule has it, whatever is tried.
        assert_eq!(
            (decision.rule(), decision.verdict),
            (Some(1), Verdict::Pass)
        );
        seen.shadow.get().map(|would| (would.entry, would.verdict))
    };
    assert_eq!(shadow(&bed, HERE), None);
    bed.claim_here(Transport::Tcp, 80, [Entry::UNCLAIMED, here]);
    assert_eq!(shadow(&bed, HERE), Some((here, Verdict::Drop)));
    assert_eq!(shadow(&bed, 3), None);
    bed.cast_shadow(Transport::Tcp, 80, any);
    assert_eq!(shadow(&bed, HERE), Some((here, Verdict::Drop)));
    assert_eq!(shadow(&bed, 3), Some((any, Verdict::Reject)));
    // A rule at the address without a shadow there leaves the one at any.
    bed.claim_here(Transport::Tcp, 80, [claim, Entry::UNCLAIMED]);
    assert_eq!(shadow(&bed, HERE), Some((any, Verdict::Reject)));
}

#[test]
fn a_claim_of_the_destination_port_comes_before_one_of_the_source_port() {
    let mut bed = Bed::new();
    let [any, here, source] = [1, 2, 3].map(|rule| Entry::new(rule, Action::Drop));
    let rule = |bed: &Bed| {
        let seen = bed.see(&received(TCP, &tcp([443, 5_000], SYN)));
        seen.counted
            .get()
            .and_then(|(_, _, decision)| decision.rule())
    };
    bed.claim(Transport::Tcp, 5_000, Entry::UNCLAIMED);
    assert_eq!(rule(&bed), None);
    bed.claim_source(Transport::Tcp, 443, source);
    assert_eq!(rule(&bed), Some(3));
    bed.claim(Transport::Tcp, 5_000, any);
    assert_eq!(rule(&bed), Some(1));
    bed.claim_here(Transport::Tcp, 5_000, [here, Entry::UNCLAIMED]);
    assert_eq!(rule(&bed), Some(2));
    bed.claim(Transport::Tcp, 5_000, Entry::UNCLAIMED);
    assert_eq!(rule(&bed), Some(2));
    // The other protocol's port of that number is another one.
    bed.claim(Transport::Udp, 5_001, Entry::UNCLAIMED);
    let datagram = bed.receive(&received(UDP, &udp([443, 5_001])));
    assert_eq!(datagram, passed(Reason::Unclaimed));
}

#[test]
fn new_rate_is_not_asked_of_a_packet_whose_flow_is_known() {
    let mut bed = Bed::tracking(Action::Drop);
    let policy = Policy {
        conditions: Policy::RATES,
        new_rate: RATE,
        ..Policy::default()
    };
    let entry = bed.on_terms(1, Action::Local, policy);
    bed.claim(Transport::Tcp, 80, entry);
    let open = |port| received(TCP, &tcp([port, 80], SYN));
    assert_eq!(bed.receive(&open(1)), passed(Reason::RuleLocal));
    // A beginning that comes again counts once, as long as its flow is known.
    for _ in 0..10 {
        assert_eq!(bed.receive(&open(1)), passed(Reason::RuleLocal));
    }
    assert_eq!(bed.receive(&open(2)), passed(Reason::RuleLocal));
    assert_eq!(bed.receive(&open(3)), dropped(Reason::RateLimited));
    assert_eq!(bed.receive(&open(2)), passed(Reason::RuleLocal));
    bed.wait(SECOND);
    assert_eq!(bed.receive(&open(3)), passed(Reason::RuleLocal));
}

#[test]
fn rates_are_asked_where_the_bit_says_so_and_nowhere_else() {
    for (rate, new_rate) in [(RATE, Rate::default()), (Rate::default(), RATE)] {
        for (conditions, third) in [
            (0, passed(Reason::RuleLocal)),
            (Policy::PER_SOURCE, passed(Reason::RuleLocal)),
            (Policy::RATES, dropped(Reason::RateLimited)),
            (
                Policy::RATES | Policy::PER_SOURCE,
                dropped(Reason::RateLimited),
            ),
        ] {
            let mut bed = Bed::new();
            let policy = Policy {
                conditions,
                rate,
                new_rate,
                ..Policy::default()
            };
            let entry = bed.on_terms(1, Action::Local, policy);
            bed.claim(Transport::Udp, 53, entry);
            let question = received(UDP, &udp([5_000, 53]));
            for said in [passed(Reason::RuleLocal), passed(Reason::RuleLocal), third] {
                assert_eq!(bed.receive(&question), said, "{policy:?}");
            }
            // Another source's is another matter only if each has its own.
            let other = ipv4([3, HERE], UDP, &udp([5_000, 53]));
            let expected = if conditions & Policy::PER_SOURCE != 0 {
                passed(Reason::RuleLocal)
            } else {
                third
            };
            assert_eq!(bed.receive(&other), expected, "{policy:?}");
        }
    }
}
