//! What is appended to a text is there, and what is removed is gone; all else stays as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portdemux::rules::{
    Rule, Ruleset,
    edit::{self, NewRule},
    file,
};

/// With more rules than this a text tells nothing new.
const MOST: usize = 16;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(before) = file::parse("rules", text) else {
        // What cannot be read is not edited.
        assert!(edit::remove("rules", "portdemux", text, &["22/tcp"]).is_err());
        return;
    };
    if before.rules().len() > MOST {
        return;
    }
    for (index, rule) in before.rules().iter().enumerate() {
        append_alone(&before, rule);
        remove(&before, text, index);
    }
});

/// A rule that is written anew says the same.
fn append_alone(before: &Ruleset, rule: &Rule) {
    let new = NewRule {
        name: Some(rule.name.clone()),
        ports: rule.ports.clone(),
        addresses: rule.addresses.clone(),
        from: rule.from.clone(),
        deny: rule.deny.clone(),
        to: Some(rule.to.clone()),
        delivery: rule.delivery,
        role: rule.role,
        terms: rule.terms,
        shadow: rule.shadow,
    };
    let sets = before
        .sets()
        .iter()
        .map(|set| format!("{:?} = []\n", set.name));
    let text = format!("[sets]\n{}", sets.collect::<String>());
    let written = edit::append(&text, &new);
    let again = file::parse("rules", &written).expect(&written);
    let [one] = again.rules() else {
        panic!("one rule was written: {written}");
    };
    assert!(
        one.name == rule.name && one.says_the_same(rule),
        "{written}"
    );
}

/// A rule that is removed by its name is gone, and the others say what they said.
fn remove(before: &Ruleset, text: &str, index: usize) {
    let name = &before.rules()[index].name;
    // A name that looks like a port can mean one.
    if name.contains('/') {
        let _ = edit::remove("rules", "portdemux", text, &[name]);
        return;
    }
    let removed = edit::remove("rules", "portdemux", text, &[name]);
    let removed = removed.unwrap_or_else(|err| panic!("{name}: {err}"));
    // A text without rules may be refused: it lacks what says that everything passes.
    let Ok(after) = file::parse("rules", &removed) else {
        assert_eq!(before.rules().len(), 1, "{removed}");
        return;
    };
    let mut left: Vec<&Rule> = before.rules().iter().collect();
    left.remove(index);
    assert_eq!(after.rules().len(), left.len(), "{removed}");
    for (one, other) in after.rules().iter().zip(left) {
        assert!(
            one.name == other.name && one.says_the_same(other),
            "{removed}"
        );
    }
}
