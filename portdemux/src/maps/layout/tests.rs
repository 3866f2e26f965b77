use std::sync::atomic::AtomicU64;

use portdemux_common::conntrack::table::FlowBucket;

use super::*;

/// Everything that the layout of this binary has, in one run after the other.
fn parts(runs: &Runs, bytes: u64) -> Vec<runs::RunPart> {
    runs.parts(0, usize_of(bytes)).collect()
}

#[test]
fn what_stands_at_the_same_place_in_both_is_found_there() {
    for (runs, bytes) in [
        (OWN.counters.runs(), OWN.counters.bytes),
        (OWN.flow_counters.runs(), OWN.flow_counters.bytes),
        (OWN.ledger.runs(), OWN.ledger.bytes),
    ] {
        for part in parts(&runs, bytes) {
            assert_eq!(part.from, part.of.start);
        }
    }
}

#[test]
fn a_counter_that_stands_elsewhere_is_found_there() {
    // A layout with half the interfaces, more reasons, and ports before rules.
    let older = CounterMaps {
        bytes: 0,
        interfaces: 4096,
        interface_slots: 32,
        verdict_slots: 3,
        reason_slots: 80,
        rules: 9_000_000,
        rules_dropped: 12_000_000,
        rule_slots: 1 << 16,
        ports: 1_000_000,
        ports_dropped: 5_000_000,
        replied: 0,
        replied_slots: 8,
        lookups: 200_000,
        tallies: 0,
    };
    let runs = older.runs();
    let find = |to: u64| {
        let mut parts = runs.parts(usize_of(to), 8);
        parts.next().map(|part| part.from as u64)
    };
    let own = &OWN.counters;
    let outcome = |verdict: u64, reason: u64, reasons: u64| 16 * (verdict * reasons + reason);
    let own_outcomes = 16 * own.verdict_slots * own.reason_slots;
    assert_eq!(
        find(own.interfaces + 31 * own_outcomes + outcome(2, 7, own.reason_slots)),
        Some(4096 + 31 * 16 * 3 * 80 + outcome(2, 7, 80))
    );
    assert_eq!(find(own.interfaces + 32 * own_outcomes), None);
    assert_eq!(find(own.interfaces + outcome(3, 0, own.reason_slots)), None);
    assert_eq!(
        find(own.lookups + outcome(1, 3, own.reason_slots)),
        Some(200_000 + outcome(1, 3, 80))
    );
    assert_eq!(
        find(own.rules + own.offset(65_535)),
        Some(9_000_000 + 16 * 65_535)
    );
    assert_eq!(find(own.rules + own.offset(65_536)), None);
    assert_eq!(
        find(own.ports_dropped + own.offset(300)),
        Some(5_000_000 + 16 * 300)
    );
    assert_eq!(find(own.replied + 7 * 8), Some(56));
    assert_eq!(find(own.replied + 8 * 8), None);
}

#[test]
fn a_shorter_name_keeps_its_place_in_a_longer_one() {
    let older = LedgerLayout {
        interface_bytes: OWN.ledger.interface_bytes - 8,
        rule_name_bytes: 32,
        rules: 4096,
        ..OWN.ledger
    };
    let runs = older.runs();
    let find = |to: u64| -> Vec<(usize, std::ops::Range<usize>)> {
        let parts = runs.parts(usize_of(to), 64);
        parts.map(|part| (part.from, part.of)).collect()
    };
    assert_eq!(find(OWN.ledger.rules + 5 * 64), [(4096 + 5 * 32, 0..32)]);
}

#[test]
fn maps_that_hold_the_same_are_kept_and_no_others() {
    for (name, _) in KEPT {
        let is_the_same = ![FLOWS, HALF_OPEN].contains(&name);
        assert!(OWN.keeps(name), "{name}");
        assert_eq!(abi5::LAYOUT.keeps(name), is_the_same, "{name}");
    }
    assert!(!OWN.keeps(maps::COUNTERS));
    let mut older = OWN;
    older.kept[1] += 1;
    assert!(!older.keeps(LIMITS) && older.keeps(FRAGMENTS));
    assert!(!MapLayout::zeroed().keeps(FRAGMENTS));
}

#[test]
fn every_word_of_a_bucket_of_flows_stood_somewhere_else_before_abi_9() {
    const WORDS: usize = FlowBucket::<&AtomicU64>::WORDS;
    let older: Vec<usize> = (0..WORDS).map(buckets::word).collect();
    let mut sorted = older.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..WORDS));
    // The owners, the first slot and the second, their counters received and sent.
    assert_eq!(older[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(older[8..18], [8, 9, 10, 11, 12, 13, 14, 15, 20, 21]);
    assert_eq!(older[72..76], [16, 17, 28, 29]);
    assert_eq!(older[88..92], [18, 19, 30, 31]);
}
