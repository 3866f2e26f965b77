//! A plan as it is serialized.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Serialize, Serializer};

use super::{Plan, SetChange, SettingChange};
use crate::rules::{port::PortRange, rule::Rule, source::Source};

/// A plan as it is serialized.
#[derive(Serialize)]
#[serde(rename = "Plan")]
struct PlanReport<'p> {
    added: Vec<RuleSummary<'p>>,
    changed: Vec<RuleChange<'p>>,
    removed: Vec<RuleSummary<'p>>,
    unchanged: usize,
    /// Keys of `[attach]`, `[default]` and `[flows]` that say something else.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    settings: &'p [SettingChange],
    /// The sets that differ, by the numbers of their prefixes.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    sets: &'p [SetChange],
}

/// What a rule says.
#[derive(Serialize)]
struct RuleSummary<'p> {
    name: &'p str,
    #[serde(serialize_with = "as_text")]
    ports: &'p [PortRange],
    addresses: &'p [IpAddr],
    #[serde(serialize_with = "as_text", skip_serializing_if = "<[_]>::is_empty")]
    from: &'p [Source],
    #[serde(serialize_with = "as_text", skip_serializing_if = "<[_]>::is_empty")]
    deny: &'p [Source],
    to: String,
    /// What else it says, as it is written.
    #[serde(flatten)]
    words: BTreeMap<&'static str, String>,
}

/// A rule that says something else.
#[derive(Serialize)]
struct RuleChange<'p> {
    name: &'p str,
    old: RuleSummary<'p>,
    new: RuleSummary<'p>,
}

impl<'p> RuleSummary<'p> {
    fn of(rule: &'p Rule) -> Self {
        Self {
            name: &rule.name,
            ports: &rule.ports,
            addresses: &rule.addresses,
            from: &rule.from,
            deny: &rule.deny,
            to: rule.to.to_string(),
            words: rule.words().into_iter().collect(),
        }
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (old, new) = (self.old.rules(), self.new.rules());
        PlanReport {
            added: self
                .added
                .iter()
                .map(|&index| RuleSummary::of(&new[index]))
                .collect(),
            changed: self
                .changed
                .iter()
                .map(|&(before, after)| RuleChange {
                    name: &new[after].name,
                    old: RuleSummary::of(&old[before]),
                    new: RuleSummary::of(&new[after]),
                })
                .collect(),
            removed: self
                .removed
                .iter()
                .map(|&index| RuleSummary::of(&old[index]))
                .collect(),
            unchanged: self.unchanged,
            settings: &self.settings,
            sets: &self.sets,
        }
        .serialize(serializer)
    }
}

fn as_text<T: ToString, S: Serializer>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().map(T::to_string))
}
