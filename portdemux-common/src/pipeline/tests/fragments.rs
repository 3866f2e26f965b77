//! Where fragments go that come behind the first one of their packet.

use super::{
    frames::{MORE, SCTP, SYN, TCP, UDP, fragment, sctp, tcp, udp},
    *,
};
use crate::{policy::Fragments, wire::Port};

/// A bed where fragments are tracked and 80 is open.
fn tracking(inbound: Action) -> Bed {
    let mut bed = Bed::new();
    let defaults = &mut bed.image.header.defaults;
    defaults.fragments = Fragments::Track as u32;
    (defaults.inbound, defaults.portless_open) = (inbound as u32, 1);
    for transport in Transport::ALL {
        bed.claim(transport, 80, Entry::new(1, Action::Local));
    }
    bed
}

/// A later fragment that begins at a multiple of 8 bytes.
fn later(protocol: u8, begin: u16) -> Vec<u8> {
    fragment([PEER, HERE], protocol, MORE | begin, &[0; 16])
}

#[test]
fn a_later_fragment_may_begin_where_the_first_one_ends_and_no_earlier() {
    // The length of the first one in bytes, and where the next may begin in units of 8 bytes.
    for (length, end) in [(24, 3), (32, 4), (25, 4), (31, 4), (1_480, 185)] {
        let mut payload = tcp([5_000, 80], SYN);
        payload.resize(length, 0);
        let first = fragment([PEER, HERE], TCP, MORE, &payload);
        let bed = tracking(Action::Drop);
        assert_eq!(bed.receive(&first), passed(Reason::RuleLocal));
        let behind = bed.receive(&later(TCP, end));
        assert_eq!(behind, passed(Reason::RuleLocal), "{length}");
        let covers = bed.receive(&later(TCP, end - 1));
        assert_eq!(covers, dropped(Reason::FragmentOverlap), "{length}");
        let rest = bed.receive(&later(TCP, end));
        assert_eq!(rest, dropped(Reason::FragmentOverlap), "{length}");
    }
}

#[test]
fn without_its_first_one_a_fragment_may_not_begin_in_a_transport_header() {
    let unknown = passed(Reason::FragmentUnknown);
    let overlap = dropped(Reason::FragmentOverlap);
    let rows = [
        (TCP, 1, overlap),
        (TCP, 2, overlap),
        (TCP, 3, unknown),
        (SCTP, 1, overlap),
        (SCTP, 2, unknown),
        (UDP, 1, unknown),
    ];
    for (protocol, begin, said) in rows {
        let bed = tracking(Action::Local);
        assert_eq!(
            bed.receive(&later(protocol, begin)),
            said,
            "{protocol}, {begin}"
        );
        let strict = tracking(Action::Drop).receive(&later(protocol, begin));
        assert_eq!(strict, dropped(said.1), "{protocol}, {begin}");
    }
}

#[test]
fn later_fragments_are_counted_for_the_port_and_the_rule_of_the_first_one() {
    let mut payloads = [
        tcp([5_000, 80], SYN),
        udp([5_000, 80]),
        sctp([5_000, 80], 1),
    ];
    for (payload, (protocol, transport)) in payloads.iter_mut().zip([
        (TCP, Transport::Tcp),
        (UDP, Transport::Udp),
        (SCTP, Transport::Sctp),
    ]) {
        payload.resize(32, 0);
        let bed = tracking(Action::Drop);
        bed.receive(&fragment([PEER, HERE], protocol, MORE, payload));
        let frame = later(protocol, 4);
        let (bytes, port, decision) = bed.see(&frame).counted.get().expect("it is counted");
        let expected = Port::new(80).index(transport);
        assert_eq!((bytes, port), (frame.len() as u64, Some(expected)));
        assert_eq!(decision.rule(), Some(1));
    }
}

#[test]
fn a_later_fragment_of_what_was_rejected_is_dropped_and_nobody_is_told() {
    let mut bed = tracking(Action::Drop);
    bed.claim(Transport::Udp, 80, Entry::new(1, Action::Reject));
    let mut payload = udp([5_000, 80]);
    payload.resize(32, 0);
    let first = fragment([PEER, HERE], UDP, MORE, &payload);
    assert_eq!(bed.receive(&first), (Verdict::Reject, Reason::RuleReject));
    assert_eq!(bed.receive(&later(UDP, 4)), dropped(Reason::RuleReject));
}

#[test]
fn where_fragments_are_not_tracked_later_ones_meet_the_setting_alone() {
    for (setting, verdict) in [
        (Fragments::Pass, Verdict::Pass),
        (Fragments::Drop, Verdict::Drop),
    ] {
        let mut bed = tracking(Action::Drop);
        bed.image.header.defaults.fragments = setting as u32;
        let mut payload = udp([5_000, 80]);
        payload.resize(32, 0);
        let first = fragment([PEER, HERE], UDP, MORE, &payload);
        assert_eq!(bed.receive(&first), passed(Reason::RuleLocal));
        for begin in [1, 4] {
            let said = bed.receive(&later(UDP, begin));
            assert_eq!(said, (verdict, Reason::LaterFragment), "{setting:?}");
        }
    }
}
