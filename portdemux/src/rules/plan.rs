//! What applying a ruleset would change.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    fmt::Write as _,
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::{
    port::PortRange,
    rule::Rule,
    ruleset::Ruleset,
    source::{Set, Source},
};

/// The difference between two rulesets. Rules are the same rule if they have the same name.
#[derive(Debug)]
pub struct Plan {
    old: Ruleset,
    new: Ruleset,
    /// The places of rules that only the new ruleset has, in its order.
    added: Vec<usize>,
    /// The places in the old and in the new ruleset of rules that say something else, in the order
    /// of the new one.
    changed: Vec<(usize, usize)>,
    /// The places of rules that only the old ruleset has, in its order.
    removed: Vec<usize>,
    /// How many rules say the same in both.
    unchanged: usize,
    /// Sets that differ.
    sets: Vec<SetChange>,
}

/// A set that differs: how many prefixes it has, if it exists.
#[derive(Debug, Serialize)]
struct SetChange {
    name: String,
    old: Option<usize>,
    new: Option<usize>,
}

/// A plan as it is serialized.
#[derive(Serialize)]
#[serde(rename = "Plan")]
struct Written<'p> {
    added: Vec<RuleSummary<'p>>,
    changed: Vec<RuleChange<'p>>,
    removed: Vec<RuleSummary<'p>>,
    unchanged: usize,
    /// What happens to malformed packets, if that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed: Option<Change<&'static str>>,
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
    to: &'static str,
}

/// A rule that says something else.
#[derive(Serialize)]
struct RuleChange<'p> {
    name: &'p str,
    old: RuleSummary<'p>,
    new: RuleSummary<'p>,
}

/// A value that differs.
#[derive(Clone, Copy, Serialize)]
struct Change<T> {
    old: T,
    new: T,
}

impl<'p> RuleSummary<'p> {
    fn of(rule: &'p Rule) -> Self {
        Self {
            name: &rule.name,
            ports: &rule.ports,
            addresses: &rule.addresses,
            from: &rule.from,
            deny: &rule.deny,
            to: rule.to.name(),
        }
    }
}

impl Plan {
    /// What it takes to get from one ruleset to another.
    #[must_use]
    pub fn between(old: Ruleset, new: Ruleset) -> Self {
        let (mut added, mut changed, mut unchanged) = (Vec::new(), Vec::new(), 0);
        let mut stays = vec![false; old.rules().len()];
        // Most rules follow the one that they followed before; only where one does not the others
        // are searched.
        let mut next = 0;
        let mut places_by_name: Option<HashMap<&str, usize>> = None;
        let mut find = |name: &str| {
            if old.rules().get(next).is_none_or(|rule| rule.name != name) {
                let places = places_by_name.get_or_insert_with(|| {
                    let names = old.rules().iter().map(|rule| &*rule.name);
                    names.zip(0..).collect()
                });
                next = *places.get(name)?;
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
        let removed = (0..stays.len()).filter(|&place| !stays[place]).collect();
        let sets = changed_sets(old.sets(), new.sets());
        Self {
            old,
            new,
            added,
            changed,
            removed,
            unchanged,
            sets,
        }
    }

    /// The ruleset that it leads to.
    #[must_use]
    pub const fn new_ruleset(&self) -> &Ruleset {
        &self.new
    }

    fn malformed(&self) -> Option<Change<&'static str>> {
        let (old, new) = (self.old.defaults().malformed, self.new.defaults().malformed);
        (old != new).then(|| Change {
            old: old.name(),
            new: new.name(),
        })
    }

    /// Whether both rulesets say the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines() == 0
    }

    /// The plan as text of at most about `limit` lines; of a longer one the middle is left out.
    #[must_use]
    pub const fn shortened(&self, limit: usize) -> Shortened<'_> {
        Shortened { plan: self, limit }
    }

    fn lines(&self) -> usize {
        let rules = self.added.len() + self.changed.len() + self.removed.len();
        rules + self.sets.len() + usize::from(self.malformed().is_some())
    }

    /// The line at a place, as its sign, the rule's name, its ports and the rest.
    fn line(&self, place: usize) -> Option<[String; 4]> {
        let malformed = self.malformed();
        let Some(place) = place.checked_sub(usize::from(malformed.is_some())) else {
            let Change { old, new } = malformed?;
            let name = "[default]".into();
            return Some([
                "~".into(),
                name,
                format!("malformed {old} → {new}"),
                String::new(),
            ]);
        };
        if let Some(set) = self.sets.get(place) {
            return Some(set.line());
        }
        let place = place - self.sets.len();
        if let Some(&place) = self.added.get(place) {
            let rule = &self.new.rules()[place];
            let mut rest = format!("{} → {}", addresses_text(rule), rule.to);
            for text in [from_text(rule), deny_text(rule)].into_iter().flatten() {
                let _ = write!(rest, ", {text}");
            }
            return Some(["+".into(), rule.name.clone(), joined(&rule.ports), rest]);
        }
        let place = place - self.added.len();
        if let Some(&(old, new)) = self.changed.get(place) {
            let (old, new) = (&self.old.rules()[old], &self.new.rules()[new]);
            let name = new.name.clone();
            return Some(["~".into(), name, difference(old, new), String::new()]);
        }
        let place = *self.removed.get(place - self.changed.len())?;
        let rule = &self.old.rules()[place];
        Some([
            "-".into(),
            rule.name.clone(),
            joined(&rule.ports),
            String::new(),
        ])
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (old, new) = (self.old.rules(), self.new.rules());
        Written {
            added: self
                .added
                .iter()
                .map(|&place| RuleSummary::of(&new[place]))
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
                .map(|&place| RuleSummary::of(&old[place]))
                .collect(),
            unchanged: self.unchanged,
            malformed: self.malformed(),
            sets: &self.sets,
        }
        .serialize(serializer)
    }
}

/// The parts that differ, as in `443/tcp → 443/tcp 443/udp, local → drop`.
fn difference(old: &Rule, new: &Rule) -> String {
    let parts = [
        (joined(&old.ports), joined(&new.ports)),
        (addresses_text(old), addresses_text(new)),
        or(from_text(old), from_text(new), "from anyone"),
        or(deny_text(old), deny_text(new), "deny nobody"),
        (old.to.to_string(), new.to.to_string()),
    ];
    let differing = parts.iter().filter(|(old, new)| old != new);
    let texts: Vec<_> = differing
        .map(|(old, new)| format!("{old} → {new}"))
        .collect();
    texts.join(", ")
}

fn or(old: Option<String>, new: Option<String>, nothing: &str) -> (String, String) {
    let text = |text: Option<String>| text.unwrap_or_else(|| nothing.into());
    (text(old), text(new))
}

fn from_text(rule: &Rule) -> Option<String> {
    (!rule.from.is_empty()).then(|| format!("from {}", joined(&rule.from)))
}

fn deny_text(rule: &Rule) -> Option<String> {
    (!rule.deny.is_empty()).then(|| format!("deny {}", joined(&rule.deny)))
}

impl SetChange {
    /// Its line of a plan, as [`Plan::line`] gives it.
    fn line(&self) -> [String; 4] {
        let count = |count: usize| match count {
            1 => "1 prefix".into(),
            count => format!("{count} prefixes"),
        };
        let (sign, says) = match (self.old, self.new) {
            (Some(old), Some(new)) if old == new => ("~", format!("{} → {new} others", count(old))),
            (Some(old), Some(new)) => ("~", format!("{} → {}", count(old), count(new))),
            (None, Some(new)) => ("+", count(new)),
            (Some(_) | None, None) => ("-", String::new()),
        };
        [sign.into(), format!("@{}", self.name), says, String::new()]
    }
}

/// The sets of which one side has none of the name, or other prefixes; those of the new side first.
fn changed_sets(old: &[Set], new: &[Set]) -> Vec<SetChange> {
    let find = |sets: &'_ [Set], name: &str| sets.iter().position(|set| set.name == name);
    let members = |set: &Set| -> BTreeSet<IpNet> { set.prefixes.iter().copied().collect() };
    let mut changes = Vec::new();
    for set in new {
        let before = find(old, &set.name).map(|place| &old[place]);
        if before.is_none_or(|before| members(before) != members(set)) {
            changes.push(SetChange {
                name: set.name.clone(),
                old: before.map(|set| set.prefixes.len()),
                new: Some(set.prefixes.len()),
            });
        }
    }
    let gone = old.iter().filter(|set| find(new, &set.name).is_none());
    changes.extend(gone.map(|set| SetChange {
        name: set.name.clone(),
        old: Some(set.prefixes.len()),
        new: None,
    }));
    changes
}

fn addresses_text(rule: &Rule) -> String {
    if rule.addresses.is_empty() {
        "any address".into()
    } else {
        joined(&rule.addresses)
    }
}

/// A [`Plan`] as text; see [`Plan::shortened`].
#[derive(Clone, Copy, Debug)]
pub struct Shortened<'p> {
    plan: &'p Plan,
    limit: usize,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shortened(usize::MAX).fmt(f)
    }
}

impl fmt::Display for Shortened<'_> {
    /// One line for each rule that is not the same, then the number of those that are; no line break
    /// at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.plan.lines();
        let (head, tail) = if all <= self.limit.max(2) {
            (all, 0)
        } else {
            (self.limit.max(2).div_ceil(2), self.limit.max(2) / 2)
        };
        let left_out = all - head - tail;
        let lines: Vec<_> = (0..head)
            .chain(all - tail..all)
            .filter_map(|place| self.plan.line(place))
            .collect();
        let width = |column: usize, has_width: fn(&[String; 4]) -> bool| {
            let lines = lines.iter().filter(|line| has_width(line));
            lines
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or_default()
        };
        let name_width = width(1, |_| true);
        let ports_width = width(2, |[.., rest]| !rest.is_empty()).min(40);
        for (place, [sign, name, ports, rest]) in lines.iter().enumerate() {
            if place == head && left_out > 0 {
                writeln!(f, "… {left_out} more")?;
            }
            let mut line = format!("{sign} {name:name_width$}  {ports}");
            if !rest.is_empty() {
                let missing = ports_width.saturating_sub(ports.chars().count());
                write!(line, "{:missing$}  {rest}", "")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "= {} unchanged", self.plan.unchanged)
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    /// How many items of a list are written out.
    const SHOWN: usize = 6;
    let mut texts: Vec<String> = items.iter().take(SHOWN).map(T::to_string).collect();
    if items.len() > SHOWN {
        texts.push(format!("… {} more", items.len() - SHOWN));
    }
    texts.join(" ")
}

fn as_text<T: ToString, S: Serializer>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items.iter().map(T::to_string))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rules::file::parse;

    fn between(old: &str, new: &str) -> Plan {
        Plan::between(parse("old", old).unwrap(), parse("new", new).unwrap())
    }

    const OLD: &str = "[[rule]]\nname = \"telnet\"\nport = \"23/tcp\"\n[[rule]]\nname = \
                       \"https\"\nport = \"443/tcp\"\n[[rule]]\nname = \"same\"\nport = [\"1/tcp\", \
                       \"2/tcp\"]\n";
    const NEW: &str = "[default]\nmalformed = \"pass\"\n[[rule]]\nname = \"same\"\nport = \
                       [\"2/tcp\", \"1/tcp\"]\nto = \"local\"\n[[rule]]\nname = \"https\"\nport = \
                       [\"443/tcp\", \"443/udp\"]\nto = \"drop\"\n[[rule]]\nname = \"dns\"\nport = \
                       [\"53/udp\", \"53/tcp\"]\n[[rule]]\nport = \"22/tcp\"\naddress = \
                       \"203.0.113.10\"\n";

    #[test]
    fn a_plan_has_a_line_for_each_rule_that_differs() {
        assert_eq!(
            between(OLD, NEW).to_string(),
            "~ [default]            malformed drop → pass\n\
             + dns                  53/udp 53/tcp  any address → local\n\
             + 22/tcp@203.0.113.10  22/tcp         203.0.113.10 → local\n\
             ~ https                443/tcp → 443/tcp 443/udp, local → drop\n\
             - telnet               23/tcp\n\
             = 1 unchanged"
        );
    }

    #[test]
    fn order_and_place_are_no_difference() {
        let reversed = "[[rule]]\nname = \"b\"\nport = \"2/tcp\"\n\n[[rule]]\nname = \"a\"\nport = \
                        \"1/tcp\"\n";
        let plan = between(
            "[[rule]]\nname = \"a\"\nport = \"1/tcp\"\n[[rule]]\nname = \"b\"\nport = \"2/tcp\"\n",
            reversed,
        );
        assert!(plan.is_empty());
        assert_eq!(plan.to_string(), "= 2 unchanged");
    }

    #[test]
    fn rules_are_found_wherever_they_went() {
        let text = |ports: &[u16]| -> String {
            let rules = ports.iter().map(|port| {
                let to = if port % 2 == 0 { "drop" } else { "local" };
                format!(
                    "[[rule]]\nname = \"r{}\"\nport = \"{port}/tcp\"\nto = \"{to}\"\n",
                    port / 2
                )
            });
            rules.collect()
        };
        let old = text(&[10, 20, 30, 40, 50]);
        for (new, lines) in [
            (&[20, 30, 40, 50][..], "- r5  10/tcp\n= 4 unchanged"),
            (&[10, 30, 50], "- r10  20/tcp\n- r20  40/tcp\n= 3 unchanged"),
            (&[50, 40, 30, 20, 10], "= 5 unchanged"),
            (&[40, 50, 10, 20, 30], "= 5 unchanged"),
            (
                &[10, 60, 20, 31, 40, 70, 50],
                "+ r30  60/tcp  any address → drop\n+ r35  70/tcp  any address → drop\n\
                 ~ r15  30/tcp → 31/tcp, drop → local\n= 4 unchanged",
            ),
        ] {
            assert_eq!(between(&old, &text(new)).to_string(), lines, "{new:?}");
        }
    }

    #[test]
    fn a_long_plan_keeps_its_beginning_and_its_end() {
        let many: Vec<_> = (1..=300)
            .map(|port| format!("[[rule]]\nport = \"{port}/tcp\"\n"))
            .collect();
        let many = many.concat();
        let text = between(OLD, &many).shortened(6).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 8, "{text}");
        assert_eq!(lines[0], "+ 1/tcp   1/tcp  any address → local");
        assert_eq!(lines[3], "… 297 more");
        assert_eq!(lines[5], "- https   443/tcp");
        assert_eq!(lines[7], "= 0 unchanged");
    }

    #[test]
    fn a_plan_serializes_with_plain_values() {
        let https = |ports: &[&str], to| json!({"name": "https", "ports": ports, "addresses": [], "to": to});
        assert_eq!(
            serde_json::to_value(between(OLD, NEW)).unwrap(),
            json!({
                "added": [
                    {"name": "dns", "ports": ["53/udp", "53/tcp"], "addresses": [], "to": "local"},
                    {
                        "name": "22/tcp@203.0.113.10",
                        "ports": ["22/tcp"],
                        "addresses": ["203.0.113.10"],
                        "to": "local",
                    },
                ],
                "changed": [{
                    "name": "https",
                    "old": https(&["443/tcp"], "local"),
                    "new": https(&["443/tcp", "443/udp"], "drop"),
                }],
                "removed": [
                    {"name": "telnet", "ports": ["23/tcp"], "addresses": [], "to": "local"},
                ],
                "unchanged": 1,
                "malformed": {"old": "drop", "new": "pass"},
            })
        );
    }
}
