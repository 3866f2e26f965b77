//! A plan as text: a line for each rule and set that differs.

use std::{collections::BTreeSet, fmt, fmt::Write as _};

use super::{Change, Plan, SetChange};
use crate::rules::rule::{Rule, same_members};

impl Plan {
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

/// The parts that differ, as in `443/tcp → 443/tcp 443/udp, local → drop`.
fn difference(old: &Rule, new: &Rule) -> String {
    let to = (old.to != new.to).then(|| format!("{} → {}", old.to, new.to));
    let parts = [
        list_difference("", &old.ports, &new.ports, ""),
        list_difference("", &old.addresses, &new.addresses, "any address"),
        list_difference("from ", &old.from, &new.from, "anyone"),
        list_difference("deny ", &old.deny, &new.deny, "nobody"),
        to,
    ];
    let texts: Vec<_> = parts.into_iter().flatten().collect();
    texts.join(", ")
}

/// How two lists differ, if they do; `none` is what an empty one is called.
fn list_difference<T: Ord + fmt::Display>(
    key: &str,
    old: &[T],
    new: &[T],
    none: &str,
) -> Option<String> {
    if same_members(old, new) {
        return None;
    }
    let text = |items: &[T]| match items {
        [] => none.into(),
        items => joined(items),
    };
    let (before, after) = (text(old), text(new));
    Some(if before == after {
        // They differ in what is not written out.
        format!("{key}{}", exchanged(old, new))
    } else {
        format!("{key}{before} → {key}{after}")
    })
}

/// What only one of two lists holds, as in `- 192.0.2.0/24 + 198.51.100.0/24`.
fn exchanged<T: Ord + fmt::Display>(old: &[T], new: &[T]) -> String {
    fn only_in<T: Ord + fmt::Display>(items: &[T], others: &[T]) -> Option<String> {
        let others: BTreeSet<&T> = others.iter().collect();
        let items: Vec<&T> = items.iter().filter(|item| !others.contains(item)).collect();
        (!items.is_empty()).then(|| joined(&items))
    }
    let gone = only_in(old, new).map(|items| format!("- {items}"));
    let come = only_in(new, old).map(|items| format!("+ {items}"));
    let texts: Vec<_> = gone.into_iter().chain(come).collect();
    texts.join(" ")
}

fn from_text(rule: &Rule) -> Option<String> {
    (!rule.from.is_empty()).then(|| format!("from {}", joined(&rule.from)))
}

fn deny_text(rule: &Rule) -> Option<String> {
    (!rule.deny.is_empty()).then(|| format!("deny {}", joined(&rule.deny)))
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

impl<'p> Shortened<'p> {
    pub(super) const fn new(plan: &'p Plan, limit: usize) -> Self {
        Self { plan, limit }
    }
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
