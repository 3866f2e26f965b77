//! Packets that follow one another are decided on the host as the reference model does.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use portdemux_common::{bucket::SLOTS, conntrack::Shape, policy::TICK_SHIFT};
use portdemux_tests::{
    generate::{Random, traffic::Packets},
    sequence::{self, Names, Rules, Sequence, rulesets::RULESETS},
};

/// How many packets meet a ruleset before the next one is put in force.
const ROUND: u64 = 64;
/// For how many packets a sequence goes on at most.
const LENGTH: u64 = 512;

thread_local! {
    static RULES: RefCell<(Vec<Rules>, Names)> =
        RefCell::new(sequence::read(&RULESETS).expect("they are rulesets"));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    // The first bit says how much room there is, the others which ruleset comes first.
    let (mask, room, least) = if first & 1 == 0 {
        ((1 << 12) - 1, usize::MAX, 0)
    } else {
        (0, SLOTS, 2 << TICK_SHIFT)
    };
    let shape = Shape {
        known: mask,
        half_open: mask,
        seed: 7,
    };
    let mut sequence = Sequence::new(shape, room);
    let mut traffic = Packets::new(Random::of_bytes(bytes), least);
    RULES.with_borrow_mut(|(rules, names)| {
        for number in 0..LENGTH {
            if traffic.is_used_up() || sequence.model.is_open() {
                break;
            }
            let Some(step) = traffic.next() else {
                break;
            };
            let changes = u64::from(first >> 1) + number / ROUND;
            let index = changes as usize % rules.len();
            let held = sequence.hold(&step, &mut rules[index], names, changes);
            if let Err(err) = held {
                panic!("packet {number}: {step:02x?}: {err:?}");
            }
        }
    });
});
