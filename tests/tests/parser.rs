//! The parser says about every frame what the packet semantics say.

use std::collections::{HashMap, HashSet};

use portdemux_common::reason::Reason;
use portdemux_tests::{
    answer::{Answer, Class, Fragment},
    generate::{self, Generator},
    reference, rows,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

#[test]
fn every_row_is_answered_as_it_says() {
    let mut wrong = Vec::new();
    for row in rows::all() {
        let (said, said_quoted) = (Answer::of(&row.frame), Answer::of_quoted(&row.frame));
        if said != row.expected {
            wrong.push(format!(
                "{}:\n  expected {:?}\n  said     {said:?}",
                row.name, row.expected
            ));
        }
        if said_quoted != row.quoted {
            wrong.push(format!(
                "{} (quoted):\n  expected {:?}\n  said     {said_quoted:?}",
                row.name, row.quoted
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} rows\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_reference_answers_every_row_as_it_says() {
    for row in rows::all() {
        assert_eq!(reference::answer(&row.frame), row.expected, "{}", row.name);
        assert_eq!(
            reference::quoted(&row.frame),
            row.quoted,
            "{} (quoted)",
            row.name
        );
    }
}

#[test]
fn rows_have_names_of_their_own() {
    let mut names = HashSet::new();
    for row in rows::all() {
        assert!(
            names.insert(row.name.clone()),
            "two rows are named {}",
            row.name
        );
    }
}

#[test]
fn every_reason_has_a_row() {
    let seen: HashSet<_> = rows::all()
        .iter()
        .filter_map(|row| row.expected.reason)
        .collect();
    for reason in Reason::ALL {
        assert_eq!(
            seen.contains(reason.name()),
            reason.is_malformed(),
            "{}",
            reason.name()
        );
    }
}

/// How many generated frames a test looks at.
const FRAMES: u64 = 200_000;

#[test]
fn generated_frames_are_of_every_kind() {
    let mut classes = HashMap::<_, u64>::new();
    let mut reasons = HashMap::<_, u64>::new();
    for seed in 0..FRAMES {
        let answer = reference::answer(&generate::frame(seed));
        *classes.entry((answer.class, answer.fragment)).or_default() += 1;
        if let Some(reason) = answer.reason {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    let common = [Class::Ports, Class::NoPorts, Class::NonIp, Class::Malformed];
    for class in common {
        let count = classes
            .get(&(class, Fragment::None))
            .copied()
            .unwrap_or_default();
        assert!(count > FRAMES / 100, "{class:?}: {count} of {FRAMES}");
    }
    for class in [
        (Class::Ports, Fragment::First),
        (Class::NoPorts, Fragment::Later),
    ] {
        let count = classes.get(&class).copied().unwrap_or_default();
        assert!(count > FRAMES / 100, "{class:?}: {count} of {FRAMES}");
    }
    for reason in Reason::ALL.iter().filter(|reason| reason.is_malformed()) {
        let count = reasons.get(reason.name()).copied().unwrap_or_default();
        assert!(
            count > FRAMES / 10_000,
            "{}: {count} of {FRAMES}",
            reason.name()
        );
    }
}

#[test]
fn the_parser_and_the_reference_agree_on_generated_frames() {
    for seed in 0..FRAMES {
        let frame = generate::frame(seed);
        assert_eq!(
            Answer::of(&frame),
            reference::answer(&frame),
            "seed {seed}: {frame:02x?}"
        );
        assert_eq!(
            Answer::of_quoted(&frame),
            reference::quoted(&frame),
            "seed {seed}, quoted: {frame:02x?}"
        );
    }
}

#[test]
fn a_sound_frame_cut_off_anywhere_never_has_other_ports() {
    let sound = Generator {
        breaks: false,
        ..Generator::default()
    };
    for row in rows::all() {
        cut_off_anywhere(&row.frame, &row.name);
    }
    for seed in 0..FRAMES / 50 {
        cut_off_anywhere(&sound.frame(seed), &format!("seed {seed}"));
    }
}

/// A frame that is cut off says the same as the whole, or is malformed; where it ends inside a tag
/// that announces no IP it is not IP.
fn cut_off_anywhere(frame: &[u8], name: &str) {
    let whole = Answer::of(frame);
    for length in 0..frame.len() {
        let cut = Answer::of(&frame[..length]);
        assert!(
            cut.class == Class::Malformed || cut == whole,
            "{name}, cut after {length} bytes\n  whole {whole:?}\n  cut   {cut:?}"
        );
        assert!(
            cut.ports.is_none() || cut.ports == whole.ports,
            "{name}, {length} bytes"
        );
    }
}

#[test]
fn padding_after_a_sound_frame_never_changes_the_answer() {
    let baits: [&[u8]; 4] = [&[0; 46], &[0xff; 64], &[6; 100], &[0x45; 200]];
    let frames = rows::all().into_iter().map(|row| row.frame);
    for frame in frames.chain((0..FRAMES / 10).map(generate::frame)) {
        let whole = Answer::of(&frame);
        if whole.class == Class::Malformed {
            continue;
        }
        for bait in baits {
            let padded = [&frame, bait].concat();
            assert_eq!(Answer::of(&padded), whole, "{frame:02x?}");
            assert_eq!(
                Answer::of_quoted(&padded),
                Answer::of_quoted(&frame),
                "{frame:02x?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_parser_and_the_reference_agree_on_any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(Answer::of(&bytes), reference::answer(&bytes));
        prop_assert_eq!(Answer::of_quoted(&bytes), reference::quoted(&bytes));
    }

    #[test]
    fn the_parser_and_the_reference_agree_on_any_seed(seed in any::<u64>()) {
        let frame = generate::frame(seed);
        prop_assert_eq!(Answer::of(&frame), reference::answer(&frame));
        prop_assert_eq!(Answer::of_quoted(&frame), reference::quoted(&frame));
    }

    #[test]
    fn a_damaged_row_is_read_as_the_reference_reads_it(
        row in select(rows::all()),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        length in any::<Index>(),
    ) {
        let mut frame = row.frame;
        frame.truncate(length.index(frame.len() + 1));
        for (position, byte) in damage {
            if !frame.is_empty() {
                let position = position.index(frame.len().min(100));
                frame[position] = byte;
            }
        }
        prop_assert_eq!(Answer::of(&frame), reference::answer(&frame));
        prop_assert_eq!(Answer::of_quoted(&frame), reference::quoted(&frame));
    }
}
