use super::*;
use crate::policy::Timeouts;

mod states;
mod tables;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// The number with which this host, or the peer, answers a SYN in these tests.
const ANSWER: u32 = u32::MAX;

const TIMEOUTS: Timeouts = Timeouts {
    handshake: 10,
    tcp: 1_000,
    closing: 20,
    one_way: 30,
    udp: 300,
    sctp: 900,
    echo: 40,
};

fn observed(signal: Signal) -> Observed {
    Observed {
        signal,
        sequence: ANSWER,
        acknowledged: 0,
    }
}

/// An acknowledgment of the answer.
const ACK: Observed = Observed {
    signal: Signal::Continue,
    sequence: 1,
    acknowledged: ANSWER.wrapping_add(1),
};

#[test]
fn events_relations_and_stages_have_words_of_their_own() {
    assert_eq!(
        Event::ALL.map(Event::name),
        [
            "begun",
            "begun_here",
            "completed",
            "half_open_evicted",
            "evicted",
            "evicted_here",
            "full"
        ]
    );
    assert_eq!(
        Relation::ALL.map(Relation::name),
        ["new", "established", "reply", "related"]
    );
    assert_eq!(
        State::ALL.map(State::name),
        ["opening", "answered", "established", "closing", "closed"]
    );
    for (index, relation) in (0..).zip(Relation::ALL) {
        assert_eq!(Relation::of(index), relation);
    }
}

#[test]
fn no_hash_makes_the_mark_of_a_slot_that_is_free_or_busy() {
    let mark = crate::bucket::mark;
    let (free, busy) = (crate::bucket::FREE, crate::bucket::BUSY);
    for hash in (0..8).chain([u64::MAX - 2, u64::MAX - 1, u64::MAX]) {
        assert!(![free, busy].contains(&mark(hash)), "{hash:x}");
    }
}
