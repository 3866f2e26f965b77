//! The parser says about every frame what the packet semantics say.

use std::collections::HashSet;

use portdemux_tests::{answer::Answer, reference, rows};

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
    for reason in portdemux_common::reason::Reason::ALL {
        assert_eq!(
            seen.contains(reason.name()),
            reason.is_malformed(),
            "{}",
            reason.name()
        );
    }
}
