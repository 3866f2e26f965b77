use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

use super::*;

const SECOND: u64 = 1_000_000_000;
/// Ten in a second, three of them at once.
const RATE: Rate = Rate {
    interval: SECOND / 10,
    tolerance: 2 * SECOND / 10,
};

struct Kept {
    now: Cell<u64>,
    rules: [[AtomicU64; 2]; 2],
    /// One bucket, whatever the hash says.
    sources: RateBucket<AtomicU64>,
}

impl Kept {
    fn new() -> Self {
        Self {
            now: Cell::new(1_000 * SECOND),
            rules: Default::default(),
            sources: RateBucket::of(|_| AtomicU64::new(0)),
        }
    }

    fn wait(&self, time: u64) {
        self.now.set(self.now.get() + time);
    }
}

impl Memory for Kept {
    type Word = AtomicU64;
}

impl Limits for Kept {
    fn instant(&self) -> u64 {
        self.now.get()
    }

    fn of_rule(&self, rule: RuleId, kind: RateKind) -> Option<&AtomicU64> {
        self.rules.get(rule as usize)?.get(kind as usize)
    }

    fn bucket(&self, _at: u32) -> Option<&RateBucket<AtomicU64>> {
        Some(&self.sources)
    }
}

fn key(source: [u64; 2]) -> RateKey {
    RateKey {
        rule: 1,
        kind: RateKind::Packets,
        source,
        version: Version::V6,
        seed: 7,
    }
}

/// How many of `count` packets may come at once.
fn count(kept: &Kept, key: &RateKey, rate: &Rate, is_per_source: bool, count: usize) -> usize {
    (0..count)
        .filter(|_| key.may(kept, rate, is_per_source))
        .count()
}

#[test]
fn a_burst_may_come_at_once_and_then_one_in_each_interval() {
    let kept = Kept::new();
    let key = key([0, 0]);
    assert_eq!(count(&kept, &key, &RATE, false, 10), 3);
    kept.wait(RATE.interval - 1);
    assert_eq!(count(&kept, &key, &RATE, false, 10), 0);
    kept.wait(1);
    assert_eq!(count(&kept, &key, &RATE, false, 10), 1);
    kept.wait(2 * RATE.interval);
    assert_eq!(count(&kept, &key, &RATE, false, 10), 2);
    kept.wait(1_000 * SECOND);
    assert_eq!(count(&kept, &key, &RATE, false, 10), 3);
}

#[test]
fn in_the_long_run_as_many_come_as_the_rate_says() {
    let kept = Kept::new();
    let key = key([0, 0]);
    let mut came = 0;
    // A packet each millisecond for a minute: a hundred times too many.
    for _ in 0..60_000 {
        came += count(&kept, &key, &RATE, false, 1);
        kept.wait(SECOND / 1_000);
    }
    assert_eq!(came, 2 + 600);
}

#[test]
fn no_rate_limits_nothing_and_touches_no_word() {
    let kept = Kept::new();
    let key = key([0, 0]);
    assert_eq!(count(&kept, &key, &Rate::default(), false, 100), 100);
    assert_eq!(kept.rules[1][0].load(Ordering::Relaxed), 0);
}

#[test]
fn rules_and_kinds_have_words_of_their_own() {
    let kept = Kept::new();
    let one = key([0, 0]);
    let other_rule = RateKey { rule: 0, ..one };
    let other_kind = RateKey {
        kind: RateKind::Flows,
        ..one
    };
    for key in [one, other_rule, other_kind] {
        assert_eq!(count(&kept, &key, &RATE, false, 10), 3);
        assert_eq!(count(&kept, &key, &RATE, true, 10), 3);
    }
}

#[test]
fn each_source_has_its_own_and_one_network_of_ipv6_is_one_source() {
    let kept = Kept::new();
    assert_eq!(count(&kept, &key([1, 1]), &RATE, true, 10), 3);
    assert_eq!(count(&kept, &key([2, 1]), &RATE, true, 10), 3);
    assert_eq!(count(&kept, &key([1, 2]), &RATE, true, 10), 0);
}

#[test]
fn a_full_bucket_forgets_who_has_most_left() {
    let kept = Kept::new();
    for source in 0..8 {
        assert_eq!(count(&kept, &key([source, 0]), &RATE, true, 3), 3);
        kept.wait(1);
    }
    // The first has been waiting longest, by nanoseconds.
    assert_eq!(count(&kept, &key([8, 0]), &RATE, true, 10), 3);
    assert_eq!(count(&kept, &key([7, 0]), &RATE, true, 10), 0);
    assert_eq!(count(&kept, &key([0, 0]), &RATE, true, 10), 3);
}

#[test]
fn what_is_left_of_a_slower_rate_does_not_outlive_it() {
    let kept = Kept::new();
    let key = key([0, 0]);
    let slow = Rate {
        interval: 3_600 * SECOND,
        tolerance: 0,
    };
    assert_eq!(count(&kept, &key, &slow, false, 10), 1);
    assert_eq!(count(&kept, &key, &RATE, false, 10), 3);
}

#[test]
fn times_beyond_all_bounds_do_not_overflow() {
    let kept = Kept::new();
    let key = key([0, 0]);
    let absurd = Rate {
        interval: u64::MAX / 4,
        tolerance: u64::MAX / 2,
    };
    assert_eq!(count(&kept, &key, &absurd, false, 10), 3);
}

#[test]
fn cpus_that_come_at_once_share_one_rate() {
    struct Still(AtomicU64);
    impl Memory for Still {
        type Word = AtomicU64;
    }
    impl Limits for Still {
        fn instant(&self) -> u64 {
            SECOND
        }
        fn of_rule(&self, _: RuleId, _: RateKind) -> Option<&AtomicU64> {
            Some(&self.0)
        }
        fn bucket(&self, _: u32) -> Option<&RateBucket<AtomicU64>> {
            None
        }
    }
    let rate = Rate {
        interval: 1,
        tolerance: 999_999,
    };
    let kept = Still(AtomicU64::new(0));
    let came: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let kept = &kept;
                scope.spawn(move || {
                    let key = key([0, 0]);
                    (0..300_000).filter(|_| key.may(kept, &rate, false)).count()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    // Of a million, a few may come unpaid whose words others changed four times in a row.
    assert!((1_000_000..1_010_000).contains(&came), "{came}");
}

#[test]
fn as_many_packets_are_let_in_as_are_left() {
    let rate = Rate {
        interval: 10,
        tolerance: 45,
    };
    let word = AtomicU64::new(0);
    for now in [1_000, 1_001, 1_030, 1_049, 1_100, 5_000] {
        let expected = Word::load(&word);
        let left = left(expected, &rate, now);
        let let_in = (0..20).filter(|_| take(&word, &rate, now)).count();
        assert_eq!(let_in as u64, left, "at {now}");
        // Take back all but two.
        Word::store(&word, expected.max(now) + 20);
    }
    let full = now_full(&rate);
    assert_eq!(left(full, &rate, 1_000), 0);
}

/// A word that says that nothing is left at 1,000.
const fn now_full(rate: &Rate) -> u64 {
    1_000 + rate.tolerance + 1
}

#[test]
fn every_source_has_its_slot_in_the_table_and_a_tag() {
    for hash in [0, 1, u64::MAX, 0x1234_5678_9abc_def0, 1 << 63] {
        let (at, tag) = slot(hash);
        assert!((at as usize) < BUCKETS && tag != 0, "{hash:x}");
    }
    let slots: std::collections::HashSet<_> = (0..64_u64).map(|n| slot(n << 40).0).collect();
    assert_eq!(slots.len(), 64);
}
