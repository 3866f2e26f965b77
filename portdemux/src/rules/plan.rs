//! What applying a ruleset would change.

use std::{collections::HashMap, fmt, fmt::Write as _, net::IpAddr};

use serde::{Serialize, Serializer};

use super::{
    port::PortRange,
    rule::{Destination, Rule},
    ruleset::{Malformed, Ruleset},
};

/// The difference between two rulesets. Rules are the same rule if they have the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Rules that only the new ruleset has, in its order.
    pub added: Vec<RuleSummary>,
    /// Rules that say something else in the new ruleset, in its order.
    pub changed: Vec<RuleChange>,
    /// Rules that only the old ruleset has, in its order.
    pub removed: Vec<RuleSummary>,
    /// How many rules say the same in both.
    pub unchanged: usize,
    /// What happens to malformed packets, if that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub malformed: Option<Change<&'static str>>,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleSummary {
    /// What it is called.
    pub name: String,
    /// The ports it claims.
    #[serde(serialize_with = "as_text")]
    pub ports: Vec<PortRange>,
    /// The addresses it claims them at; none for any.
    pub addresses: Vec<IpAddr>,
    /// Where the packets go.
    #[serde(serialize_with = "as_word")]
    pub to: Destination,
}

/// A rule that says something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleChange {
    /// What it is called.
    pub name: String,
    /// What it said.
    pub old: RuleSummary,
    /// What it says.
    pub new: RuleSummary,
}

/// A value that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// What it was.
    pub old: T,
    /// What it is.
    pub new: T,
}

impl RuleSummary {
    fn of(rule: &Rule) -> Self {
        Self {
            name: rule.name.clone(),
            ports: rule.ports.clone(),
            addresses: rule.addresses.clone(),
            to: rule.to,
        }
    }

    fn ports_text(&self) -> String {
        joined(&self.ports)
    }

    fn addresses_text(&self) -> String {
        if self.addresses.is_empty() {
            "any address".into()
        } else {
            joined(&self.addresses)
        }
    }
}

impl RuleChange {
    /// The parts that differ, as in `443/tcp → 443/tcp 443/udp, local → drop`.
    fn difference(&self) -> String {
        let Self { old, new, .. } = self;
        let parts = [
            (old.ports_text(), new.ports_text()),
            (old.addresses_text(), new.addresses_text()),
            (old.to.to_string(), new.to.to_string()),
        ];
        let differing = parts.iter().filter(|(old, new)| old != new);
        let texts: Vec<_> = differing
            .map(|(old, new)| format!("{old} → {new}"))
            .collect();
        texts.join(", ")
    }
}

impl Plan {
    /// What it takes to get from one ruleset to another.
    #[must_use]
    pub fn between(old: &Ruleset, new: &Ruleset) -> Self {
        let mut gone: HashMap<&str, &Rule> =
            old.rules().iter().map(|rule| (&*rule.name, rule)).collect();
        let (mut added, mut changed, mut unchanged) = (Vec::new(), Vec::new(), 0);
        for rule in new.rules() {
            match gone.remove(&*rule.name) {
                None => added.push(RuleSummary::of(rule)),
                Some(before) if before.says_the_same(rule) => unchanged += 1,
                Some(before) => changed.push(RuleChange {
                    name: rule.name.clone(),
                    old: RuleSummary::of(before),
                    new: RuleSummary::of(rule),
                }),
            }
        }
        let removed = old
            .rules()
            .iter()
            .filter(|rule| gone.contains_key(&*rule.name));
        let removed = removed.map(RuleSummary::of).collect();
        let (before, after) = (old.defaults().malformed, new.defaults().malformed);
        let malformed = (before != after).then(|| Change {
            old: Malformed::name(before),
            new: Malformed::name(after),
        });
        Self {
            added,
            changed,
            removed,
            unchanged,
            malformed,
        }
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
        rules + usize::from(self.malformed.is_some())
    }

    /// The line at a place, as its sign, the rule's name, its ports and the rest.
    fn line(&self, place: usize) -> Option<[String; 4]> {
        let Some(place) = place.checked_sub(usize::from(self.malformed.is_some())) else {
            let Change { old, new } = self.malformed?;
            let name = "[default]".into();
            return Some([
                "~".into(),
                name,
                format!("malformed {old} → {new}"),
                String::new(),
            ]);
        };
        if let Some(rule) = self.added.get(place) {
            let rest = format!("{} → {}", rule.addresses_text(), rule.to);
            return Some(["+".into(), rule.name.clone(), rule.ports_text(), rest]);
        }
        let place = place - self.added.len();
        if let Some(change) = self.changed.get(place) {
            let name = change.name.clone();
            return Some(["~".into(), name, change.difference(), String::new()]);
        }
        let rule = self.removed.get(place - self.changed.len())?;
        Some([
            "-".into(),
            rule.name.clone(),
            rule.ports_text(),
            String::new(),
        ])
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
        let width = |column: usize, signs: &str| {
            let of_sign = lines.iter().filter(|line| signs.contains(&*line[0]));
            of_sign
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or_default()
        };
        let (name_width, ports_width) = (width(1, "+~-"), width(2, "+").min(40));
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

fn as_text<S: Serializer>(ports: &[PortRange], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ports.iter().map(PortRange::to_string))
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn as_word<S: Serializer>(to: &Destination, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(to.name())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rules::file::parse;

    fn between(old: &str, new: &str) -> Plan {
        Plan::between(&parse("old", old).unwrap(), &parse("new", new).unwrap())
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
