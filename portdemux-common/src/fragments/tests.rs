use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::{
    decision::Outcome,
    entry::{Action, Entry},
    reason::Verdict,
};

const UDP: u8 = 17;
/// The slot of a port in tables of ports.
const PORT: u32 = 0x1_0035;
const NO_PORT: u32 = (1 << 18) - 1;
const GENERATION: Generation = Generation(7);

/// A table on the host.
struct Host(Vec<FragmentBucket<AtomicU64>>);

impl Host {
    fn new() -> Self {
        Self(
            (0..BUCKETS)
                .map(|_| FragmentBucket::of(|_| AtomicU64::new(0)))
                .collect(),
        )
    }

    /// The first fragment of a packet comes, 1,480 bytes long.
    fn first(&self, packet: Tuple, decision: Decision, now: u32) {
        self.first_of(packet, decision, 185, now);
    }

    fn first_of(&self, packet: Tuple, decision: Decision, reach: u16, now: u32) {
        let piece = Piece::new(packet, decision.outcome(), GENERATION, reach, PORT);
        note(self, &piece, now);
    }

    /// What comes of a later fragment, and for which port it counts.
    fn later(&self, packet: Tuple, begin: u16, now: u32) -> (Decision, u32) {
        self.later_under(GENERATION, packet, begin, now)
    }

    fn later_under(
        &self,
        generation: Generation,
        packet: Tuple,
        begin: u16,
        now: u32,
    ) -> (Decision, u32) {
        let mut piece = Piece::new(packet, UNKNOWN.outcome(), generation, begin, u32::MAX);
        follow(self, &mut piece, now);
        (Outcome(piece.outcome).decision(), piece.port)
    }

    /// How many slots have an owner.
    fn taken(&self) -> usize {
        let owners = self.0.iter().flat_map(|bucket| &bucket.owners);
        owners.filter(|owner| owner.load() != bucket::FREE).count()
    }
}

impl Memory for Host {
    type Word = AtomicU64;
}

impl FragmentTable for Host {
    fn seed(&self) -> u64 {
        0x1234_5678_9abc_def1
    }

    fn bucket(&self, at: u32) -> Option<&FragmentBucket<AtomicU64>> {
        self.0.get(at as usize)
    }
}

const fn decision(verdict: Verdict, reason: Reason, entry: Entry) -> Decision {
    Decision {
        verdict,
        reason,
        entry,
    }
}

const CLAIM: Entry = Entry::new(3, Action::Local);
const PASSED: Decision = decision(Verdict::Pass, Reason::RuleLocal, CLAIM);
const DROPPED: Decision = decision(Verdict::Drop, Reason::SourceDenied, CLAIM);
const OVERLAP: Decision = decision(Verdict::Drop, Reason::FragmentOverlap, CLAIM);
const UNKNOWN: Decision = decision(Verdict::Drop, Reason::FragmentUnknown, Entry::UNCLAIMED);

fn packet(identification: u16) -> Tuple {
    let [a, b] = identification.to_be_bytes();
    Tuple::new(([2, 0], [a, b]), ([1, 0], [0, 0]), UDP, 4)
}

#[test]
fn later_fragments_go_where_the_first_one_went_and_count_for_its_port() {
    let host = Host::new();
    let rejected = decision(Verdict::Reject, Reason::RuleReject, CLAIM);
    for (id, first) in (0..).zip([PASSED, DROPPED, rejected]) {
        host.first(packet(id), first, 0);
        for begin in [185, 370, 8191] {
            assert_eq!(host.later(packet(id), begin, 1), (first, PORT));
        }
    }
    assert_eq!(host.later(packet(9), 185, 1), (UNKNOWN, u32::MAX));
}

#[test]
fn a_first_fragment_without_a_port_is_remembered_without_one() {
    let host = Host::new();
    let echo = decision(Verdict::Pass, Reason::NoPorts, Entry::UNCLAIMED);
    let piece = Piece::new(packet(1), echo.outcome(), GENERATION, 185, u32::MAX);
    note(&host, &piece, 0);
    assert_eq!(host.later(packet(1), 185, 0), (echo, NO_PORT));
    assert!(NO_PORT as usize >= crate::capacity::PORT_COUNT);
}

#[test]
fn a_packet_is_told_from_others_by_all_that_it_is_known_by() {
    let host = Host::new();
    let key = |to: [u64; 2], from: [u64; 2], id: [u8; 4], protocol, version| {
        let [a, b, c, d] = id;
        Tuple::new((to, [a, b]), (from, [c, d]), protocol, version)
    };
    let known = key([1, 2], [3, 4], [5, 6, 7, 8], 0, 6);
    host.first(known, PASSED, 0);
    for other in [
        key([9, 2], [3, 4], [5, 6, 7, 8], 0, 6),
        key([1, 9], [3, 4], [5, 6, 7, 8], 0, 6),
        key([1, 2], [9, 4], [5, 6, 7, 8], 0, 6),
        key([1, 2], [3, 9], [5, 6, 7, 8], 0, 6),
        key([1, 2], [3, 4], [9, 6, 7, 8], 0, 6),
        key([1, 2], [3, 4], [5, 6, 7, 9], 0, 6),
        key([1, 2], [3, 4], [5, 6, 7, 8], 6, 6),
        key([1, 2], [3, 4], [5, 6, 7, 8], 0, 4),
        key([3, 4], [1, 2], [5, 6, 7, 8], 0, 6),
    ] {
        assert_eq!(host.later(other, 185, 0).0, UNKNOWN, "{other:?}");
    }
    assert_eq!(host.later(known, 185, 0).0, PASSED);
}

#[test]
fn a_first_fragment_that_comes_again_changes_nothing() {
    let host = Host::new();
    for now in 0..3 {
        host.first(packet(1), PASSED, now);
        assert_eq!(host.later(packet(1), 185, now), (PASSED, PORT));
    }
    assert_eq!(host.taken(), 1);
}

#[test]
fn of_several_first_fragments_of_a_packet_the_worst_verdict_stands() {
    for order in [[PASSED, DROPPED], [DROPPED, PASSED]] {
        let host = Host::new();
        for first in order {
            host.first(packet(1), first, 0);
        }
        assert_eq!(host.later(packet(1), 185, 0), (DROPPED, PORT), "{order:?}");
    }
    let other = decision(Verdict::Pass, Reason::Unclaimed, Entry::UNCLAIMED);
    let host = Host::new();
    for first in [PASSED, other] {
        host.first(packet(1), first, 0);
        assert_eq!(host.later(packet(1), 185, 0).0, first, "of equals the last");
    }
}

#[test]
fn a_first_fragment_is_remembered_for_thirty_seconds_and_no_longer() {
    assert_eq!(u64::from(LIFETIME), 30_000_000_000 >> TICK_SHIFT);
    // The clock wraps around.
    for begin in [0, u32::MAX - 5] {
        let at = |ticks| begin.wrapping_add(ticks);
        let host = Host::new();
        host.first(packet(1), PASSED, begin);
        assert_eq!(host.later(packet(1), 185, at(LIFETIME - 1)).0, PASSED);
        assert_eq!(host.later(packet(1), 185, at(LIFETIME)).0, UNKNOWN);
        host.first(packet(1), DROPPED, at(LIFETIME));
        assert_eq!(host.later(packet(1), 185, at(LIFETIME)).0, DROPPED);
        // What was dropped is not prolonged by what would pass.
        host.first(packet(1), PASSED, at(LIFETIME + 5));
        assert_eq!(host.later(packet(1), 185, at(2 * LIFETIME)).0, UNKNOWN);
        assert_eq!(host.taken(), 1);
    }
}

#[test]
fn what_covers_bytes_of_the_first_fragment_is_dropped_with_all_that_follows() {
    let host = Host::new();
    host.first(packet(1), PASSED, 0);
    assert_eq!(host.later(packet(1), 185, 0), (PASSED, PORT));
    assert_eq!(host.later(packet(1), 184, 0), (OVERLAP, PORT));
    assert_eq!(host.later(packet(1), 185, 0), (OVERLAP, PORT));
    // Nor does another first fragment help.
    host.first(packet(1), PASSED, 0);
    assert_eq!(host.later(packet(1), 185, 0), (OVERLAP, PORT));
}

#[test]
fn of_several_first_fragments_the_longest_counts() {
    for order in [[3, 185], [185, 3]] {
        let host = Host::new();
        for reach in order {
            host.first_of(packet(1), PASSED, reach, 0);
        }
        assert_eq!(host.later(packet(1), 185, 0).0, PASSED, "{order:?}");
        assert_eq!(host.later(packet(1), 3, 0).0, OVERLAP, "{order:?}");
    }
    // A sender whose packets have become shorter is not kept out for longer than that.
    let host = Host::new();
    host.first_of(packet(1), PASSED, 185, 0);
    host.first_of(packet(1), PASSED, 172, 100);
    assert_eq!(host.later(packet(1), 185, 0).0, PASSED);
    host.first_of(packet(1), PASSED, 172, LIFETIME);
    assert_eq!(host.later(packet(1), 172, LIFETIME).0, PASSED);
    // Whatever reach it has, its port is that of the verdict.
    let piece = Piece::new(packet(1), DROPPED.outcome(), GENERATION, 3, PORT + 1);
    note(&host, &piece, LIFETIME);
    assert_eq!(host.later(packet(1), 172, LIFETIME), (DROPPED, PORT + 1));
}

#[test]
fn another_ruleset_knows_no_first_fragment_of_the_one_before() {
    let host = Host::new();
    host.first(packet(1), PASSED, 0);
    let later = |generation| host.later_under(generation, packet(1), 185, 0).0;
    for generation in [
        GENERATION.next(),
        Generation(0),
        Generation(GENERATION.0 + (1 << 13)),
    ] {
        assert_eq!(later(generation), UNKNOWN, "{generation:?}");
    }
    assert_eq!(later(GENERATION), PASSED);
    let piece = Piece::new(packet(1), DROPPED.outcome(), GENERATION.next(), 185, PORT);
    note(&host, &piece, 0);
    assert_eq!(later(GENERATION.next()), DROPPED);
    assert_eq!(later(GENERATION), UNKNOWN);
    assert_eq!(host.taken(), 1);
}

/// Packets whose slots are all in one bucket.
fn neighbours(count: usize) -> Vec<Tuple> {
    let host = Host::new();
    let slot = |packet: &Tuple| bucket::index(packet.hash(host.seed()), MASK);
    let all = (0..=u16::MAX).map(packet);
    all.filter(|packet| slot(packet) == 77)
        .take(count)
        .collect()
}

#[test]
fn a_full_bucket_forgets_what_is_forgotten_first() {
    let host = Host::new();
    let packets = neighbours(SLOTS + 2);
    for (now, &packet) in (0..).zip(&packets[..SLOTS]) {
        host.first(packet, PASSED, now);
    }
    let knows = |now| -> Vec<bool> {
        let known = packets.iter().map(|&packet| host.later(packet, 185, now).0);
        known.map(|decision| decision != UNKNOWN).collect()
    };
    assert_eq!(knows(8), [vec![true; SLOTS], vec![false; 2]].concat());
    host.first(packets[SLOTS], PASSED, 8);
    let mut expected = [vec![false], vec![true; SLOTS], vec![false]].concat();
    assert_eq!(knows(8), expected);
    // One whose time is over gives way, whatever it was worth.
    host.first(packets[SLOTS + 1], PASSED, LIFETIME + 1);
    (expected[1], expected[SLOTS + 1]) = (false, true);
    assert_eq!(knows(LIFETIME + 1), expected);
}

#[test]
fn a_full_bucket_forgets_first_what_was_dropped() {
    let host = Host::new();
    let packets = neighbours(2 * SLOTS);
    for (now, &packet) in (0..).zip(&packets[..SLOTS]) {
        host.first(packet, if now == 5 { DROPPED } else { PASSED }, now);
    }
    for &packet in &packets[SLOTS..] {
        host.first(packet, DROPPED, 9);
    }
    for (slot, &packet) in packets[..SLOTS].iter().enumerate() {
        let expected = if slot == 5 { UNKNOWN } else { PASSED };
        assert_eq!(host.later(packet, 185, 9).0, expected, "{slot}");
    }
    let last = packets[2 * SLOTS - 1];
    assert_eq!(host.later(last, 185, 9).0, DROPPED);
}

#[test]
fn a_slot_that_is_being_written_is_left_alone() {
    let host = Host::new();
    let [one, ..] = neighbours(1)[..] else {
        unreachable!("there is one")
    };
    let bucket = &host.0[77];
    for owner in &bucket.owners {
        owner.store(bucket::BUSY, Ordering::Relaxed);
    }
    host.first(one, PASSED, 0);
    assert_eq!(host.later(one, 185, 0).0, UNKNOWN);
    assert!(
        bucket
            .owners
            .iter()
            .all(|owner| owner.load(Ordering::Relaxed) == bucket::BUSY)
    );
}

#[test]
fn cpus_that_fight_for_slots_leave_each_whole_and_lose_none() {
    let host = Host::new();
    let packets = neighbours(12);
    let outcome = |slot: usize| {
        if slot.is_multiple_of(2) {
            PASSED
        } else {
            DROPPED
        }
    };
    std::thread::scope(|scope| {
        for cpu in 0..3 {
            let (host, packets) = (&host, &packets);
            scope.spawn(move || {
                for round in 0..20_000 {
                    let slot = (round * 5 + cpu) % packets.len();
                    host.first(packets[slot], outcome(slot), 0);
                    // Forgotten or known, or what came of one that took its place this moment.
                    let (said, port) = host.later(packets[slot], 185, 0);
                    assert!([UNKNOWN, PASSED, DROPPED].contains(&said));
                    assert!([u32::MAX, PORT].contains(&port));
                }
            });
        }
    });
    assert_eq!(host.taken(), SLOTS);
    let owners = &host.0[77].owners;
    assert!(
        owners
            .iter()
            .all(|owner| owner.load(Ordering::Relaxed) != bucket::BUSY)
    );
}

#[test]
fn a_first_fragment_as_long_as_the_one_before_prolongs_what_is_remembered() {
    let host = Host::new();
    host.first_of(packet(1), PASSED, 185, 0);
    host.first_of(packet(1), PASSED, 185, 100);
    assert_eq!(host.later(packet(1), 185, LIFETIME + 50).0, PASSED);
    assert_eq!(host.later(packet(1), 185, LIFETIME + 100).0, UNKNOWN);
}

#[test]
fn a_packet_with_an_overlap_keeps_its_reach() {
    let host = Host::new();
    host.first_of(packet(1), PASSED, 185, 0);
    assert_eq!(host.later(packet(1), 3, 0).0, OVERLAP);
    // A shorter one does not prolong it.
    host.first_of(packet(1), DROPPED, 3, 100);
    assert_eq!(host.later(packet(1), 185, 100).0, DROPPED);
    assert_eq!(host.later(packet(1), 185, LIFETIME).0, UNKNOWN);
}
