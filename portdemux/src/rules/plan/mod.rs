//! What applying a ruleset would change.

mod json;
#[cfg(test)]
mod tests;
mod text;

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;
use serde::Serialize;

pub use self::text::Shortened;
use super::{ruleset::Ruleset, source::Set, until::Until};

/// The difference between two rulesets. Rules are the same rule if they have the same name.
#[derive(Debug)]
pub struct Plan {
    old: Ruleset,
    new: Ruleset,
    /// The indices of rules that only the new ruleset has, in its order.
    added: Vec<usize>,
    /// The indices in the old and in the new ruleset of rules that say something else, in the order
    /// of the new one.
    changed: Vec<(usize, usize)>,
    /// The indices of rules that only the old ruleset has, in its order.
    removed: Vec<usize>,
    /// How many rules say the same in both.
    unchanged: usize,
    /// Sets that differ.
    sets: Vec<SetChange>,
    /// Keys of `[attach]`, `[default]` and `[flows]` that say something else.
    settings: Vec<SettingChange>,
}

/// A key of `[attach]`, `[default]` or `[flows]` that says something else.
#[derive(Debug, Serialize)]
struct SettingChange {
    table: &'static str,
    key: &'static str,
    old: String,
    new: String,
}

/// A set that differs: how many prefixes it has, if it exists.
#[derive(Debug, Serialize)]
struct SetChange {
    name: String,
    old: Option<usize>,
    new: Option<usize>,
}

impl Plan {
    /// What it takes to get from one ruleset to another at a time in milliseconds since 1970: members of sets whose
    /// time is past are members no more.
    #[must_use]
    pub fn between(old: Ruleset, new: Ruleset, now: u64) -> Self {
        let (mut added, mut changed, mut unchanged) = (Vec::new(), Vec::new(), 0);
        let mut stays = vec![false; old.rules().len()];
        // Most rules follow the one that they followed before; only where one does not the others
        // are searched.
        let mut next = 0;
        let mut slots_by_name: Option<HashMap<&str, usize>> = None;
        let mut find = |name: &str| {
            if old.rules().get(next).is_none_or(|rule| rule.name != name) {
                let indices = slots_by_name.get_or_insert_with(|| {
                    let names = old.rules().iter().map(|rule| &*rule.name);
                    names.zip(0..).collect()
                });
                next = *indices.get(name)?;
            }
            next += 1;
            Some(next - 1)
        };
        for (after, rule) in new.rules().iter().enumerate() {
            let Some(before) = find(&rule.name) else {
                added.push(after);
                continue;
            };
            stays[before] = true;
            if old.rules()[before].says_the_same(rule) {
                unchanged += 1;
            } else {
                changed.push((before, after));
            }
        }
        let removed = (0..stays.len()).filter(|&index| !stays[index]).collect();
        let sets = changed_sets(old.sets(), new.sets(), now);
        let settings = changed_settings(&old, &new);
        Self {
            old,
            new,
            added,
            changed,
            removed,
            unchanged,
            sets,
            settings,
        }
    }

    /// The ruleset that it leads to.
    #[must_use]
    pub const fn new_ruleset(&self) -> &Ruleset {
        &self.new
    }

    /// Whether both rulesets say the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines() == 0
    }

    /// The plan as text of at most about `limit` lines; of a longer one the middle is left out. Lists are
    /// shortened where a line would be longer than `width`.
    #[must_use]
    pub const fn shortened(&self, limit: usize, width: usize) -> Shortened<'_> {
        Shortened::new(self, limit, width)
    }

    fn lines(&self) -> usize {
        let rules = self.added.len() + self.changed.len() + self.removed.len();
        rules + self.sets.len() + self.settings.len()
    }
}

/// What a ruleset says in the tables of which there is one: where it is attached, whether flows are
/// tracked, whatever the reason, and how; and what happens to traffic that no rule claims.
fn settings(ruleset: &Ruleset) -> Vec<(&'static str, &'static str, String)> {
    let attach = ruleset.attach().words();
    let attach = attach.map(|(key, word)| ("attach", key, word));
    let defaults = ruleset.defaults().words();
    let defaults = defaults.map(|(key, word)| ("default", key, word.to_owned()));
    let track = ruleset.flows().is_some().to_string();
    let flows = ruleset.flow_settings().words();
    let flows = flows.into_iter().map(|(key, word)| ("flows", key, word));
    attach
        .into_iter()
        .chain(defaults)
        .chain([("flows", "track", track)])
        .chain(flows)
        .collect()
}

fn changed_settings(old: &Ruleset, new: &Ruleset) -> Vec<SettingChange> {
    let both = settings(old).into_iter().zip(settings(new));
    both.filter(|(old, new)| old != new)
        .map(|((table, key, old), (_, _, new))| SettingChange {
            table,
            key,
            old,
            new,
        })
        .collect()
}

/// The sets of which one side has none of the name, or other members; those of the new side first.
fn changed_sets(old: &[Set], new: &[Set], now: u64) -> Vec<SetChange> {
    let find = |sets: &'_ [Set], name: &str| sets.iter().position(|set| set.name == name);
    let members = |set: &Set| -> BTreeSet<(IpNet, Option<Until>)> {
        let members = set.members(now);
        members.map(|(prefix, until)| (*prefix, until)).collect()
    };
    let count = |set: &Set| set.members(now).count();
    let mut changes = Vec::new();
    for set in new {
        let before = find(old, &set.name).map(|index| &old[index]);
        if before.is_none_or(|before| members(before) != members(set)) {
            changes.push(SetChange {
                name: set.name.clone(),
                old: before.map(count),
                new: Some(count(set)),
            });
        }
    }
    let gone = old.iter().filter(|set| find(new, &set.name).is_none());
    changes.extend(gone.map(|set| SetChange {
        name: set.name.clone(),
        old: Some(count(set)),
        new: None,
    }));
    changes
}
