//! The changes of sets since a ruleset was put in force: as they are on record, or as the kernel has them.

use std::collections::HashMap;

use anyhow::Result;
use ipnet::IpNet;
use portdemux_common::ids::Generation;

use crate::{
    clock::Clock,
    maps::Maps,
    records::{Kept, Records},
    rules::{
        Ruleset,
        source::{Becomes, MemberChange, Set},
        until::Until,
    },
};

/// How much later a time can come out of the kernel's tables than it went in, in milliseconds.
const ROUNDING: u64 = 3;

/// The changes of the sets of a ruleset, whose text has none of them, and why their record is lost, if it is.
///
/// A change is on record before the kernel has it, so a record with fewer of them than the kernel counts is not the
/// one that was written.
///
/// # Errors
///
/// The record cannot be read.
pub(super) fn changes(
    records: &Records,
    maps: &Maps,
    generation: Generation,
    ruleset: &Ruleset,
) -> Result<(Vec<MemberChange>, Option<String>)> {
    // First, as more of them may come meanwhile.
    let count = maps.source_changes();
    let lost = match records.changes(generation)? {
        Kept::Whole(changes) if changes.len() as u64 >= count => return Ok((changes, None)),
        Kept::Whole(changes) => format!("{} of {count} changes are on record", changes.len()),
        Kept::Lost(why) => why,
    };
    Ok((by_the_kernel(maps, ruleset), Some(lost)))
}

/// The changes that make of the sets what the kernel has. Who is in a set that no rule names, it does not know.
fn by_the_kernel(maps: &Maps, ruleset: &Ruleset) -> Vec<MemberChange> {
    let image = maps.compiled();
    let clock = Clock::now();
    let mut changes = Vec::new();
    for (slot, set) in ruleset.sets().iter().enumerate() {
        if let Some(atom) = ruleset.lists().atom_of(slot) {
            changes.extend(between(set, &image.members(atom, &clock), clock.unix));
        }
    }
    changes
}

/// The changes that make some members of a set.
fn between(set: &Set, members: &[(IpNet, Option<Until>)], now: u64) -> Vec<MemberChange> {
    let mut before: HashMap<IpNet, Option<Until>> = set
        .members(now)
        .map(|(prefix, until)| (*prefix, until))
        .collect();
    let become_of = |prefix: IpNet, becomes: Becomes| MemberChange {
        set: set.name.clone(),
        prefix,
        becomes,
    };
    let mut come = Vec::new();
    for &(prefix, until) in members {
        let is_known = before
            .remove(&prefix)
            .is_some_and(|was| match (was, until) {
                (None, None) => true,
                (Some(was), Some(until)) => was.unix.abs_diff(until.unix) <= ROUNDING,
                _ => false,
            });
        if !is_known {
            come.push(become_of(prefix, Becomes::Member(until)));
        }
    }
    let gone = before.into_keys();
    gone.map(|prefix| become_of(prefix, Becomes::NonMember))
        .chain(come)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::file;

    #[test]
    fn a_set_becomes_what_the_kernel_has() {
        const NOW: u64 = 4_000_000_000_000;
        let text = "[sets]\nguests = [\"192.0.2.1\", \"192.0.2.3\", { prefix = \"192.0.2.5\", until = \
                    \"2096-10-02T07:06:45Z\" }]\n[[rule]]\nport = \"22/tcp\"\nfrom = \"@guests\"\n";
        let ruleset = file::parse("", text).unwrap();
        let set = &ruleset.sets()[0];
        let until = |unix| Some(Until { unix });
        let net = |last: u8| format!("192.0.2.{last}/32").parse::<IpNet>().unwrap();
        let later = set.until[&net(5)].unix;
        let same = [(net(1), None), (net(3), None), (net(5), until(later + 2))];
        assert_eq!(between(set, &same, NOW), []);
        let members = [
            (net(1), until(later)),
            (net(5), until(later + 100)),
            (net(7), None),
        ];
        let mut changed = ruleset.clone();
        changed.change_members(&between(set, &members, NOW), NOW);
        let mut found: Vec<_> = changed.sets()[0]
            .members(NOW)
            .map(|(prefix, until)| (*prefix, until))
            .collect();
        found.sort_unstable_by_key(|(prefix, _)| *prefix);
        assert_eq!(found, members);
    }
}
