//! A plan as text: a line for each setting, set and rule that differs.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use super::{Plan, SetChange, SettingChange};
use crate::{
    figures::{cut, padded, width},
    rules::rule::{Rule, same_members},
};

/// How many items of a list are written out, and of how many fewer where a line has no room.
const SHOWN: [usize; 4] = [6, 3, 2, 1];

/// A line: its sign, the rule's name, its ports and the rest.
type PlanRow = [String; 4];

impl Plan {
    /// The line at an index, with this many items of each list.
    fn line(&self, index: usize, shown: usize) -> Option<PlanRow> {
        if let Some(setting) = self.settings.get(index) {
            return Some(setting.line());
        }
        let index = index - self.settings.len();
        if let Some(set) = self.sets.get(index) {
            return Some(set.line());
        }
        let index = index - self.sets.len();
        let ports = |rule: &Rule| joined(&rule.ports, shown);
        if let Some(&index) = self.added.get(index) {
            let rule = &self.new.rules()[index];
            let rest = description(rule, shown);
            return Some(["+".into(), rule.name.clone(), ports(rule), rest]);
        }
        let index = index - self.added.len();
        if let Some(&(old, new)) = self.changed.get(index) {
            let (old, new) = (&self.old.rules()[old], &self.new.rules()[new]);
            let says = difference(old, new, shown);
            return Some(["~".into(), new.name.clone(), says, String::new()]);
        }
        let index = *self.removed.get(index - self.changed.len())?;
        let rule = &self.old.rules()[index];
        Some(["-".into(), rule.name.clone(), ports(rule), String::new()])
    }
}

impl SettingChange {
    fn line(&self) -> PlanRow {
        let Self {
            table,
            key,
            old,
            new,
        } = self;
        let says = format!("{key} {old} → {new}");
        ["~".into(), format!("[{table}]"), says, String::new()]
    }
}

impl SetChange {
    fn line(&self) -> PlanRow {
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

/// What a rule says besides its name and ports, as in `any address → local, from @lan, rate 10/m`.
fn description(rule: &Rule, shown: usize) -> String {
    let mut text = format!("{} → {}", addresses_text(rule, shown), rule.to);
    for (key, sources) in [("from", &rule.from), ("deny", &rule.deny)] {
        if !sources.is_empty() {
            let _ = write!(text, ", {key} {}", joined(sources, shown));
        }
    }
    for (_, phrase) in rule.phrases() {
        let _ = write!(text, ", {phrase}");
    }
    text
}

fn addresses_text(rule: &Rule, shown: usize) -> String {
    if rule.addresses.is_empty() {
        "any address".into()
    } else {
        joined(&rule.addresses, shown)
    }
}

/// The parts that differ, as in `443/tcp → 443/tcp 443/udp, local → drop`.
fn difference(old: &Rule, new: &Rule, shown: usize) -> String {
    let to = (old.to != new.to).then(|| format!("{} → {}", old.to, new.to));
    let parts = [
        list_difference("", &old.ports, &new.ports, "", shown),
        list_difference("", &old.addresses, &new.addresses, "any address", shown),
        list_difference("from ", &old.from, &new.from, "from anyone", shown),
        list_difference("deny ", &old.deny, &new.deny, "no deny", shown),
        to,
    ];
    let mut texts: Vec<_> = parts.into_iter().flatten().collect();
    texts.extend(phrase_differences(old, new));
    texts.join(", ")
}

/// The other keys that differ; one that says nothing says what it would say if it were written out.
fn phrase_differences(old: &Rule, new: &Rule) -> Vec<String> {
    /// The keys in their order, and what each comes to if it says nothing.
    const KEYS: [(&str, &str); 9] = [
        ("mac", "no mac"),
        ("queue", "usual queue"),
        ("fallback", "usual fallback"),
        ("role", "role destination"),
        ("connections", "connections all"),
        ("rate", "no rate"),
        ("new_rate", "no new_rate"),
        ("per", "per rule"),
        ("shadow", "real"),
    ];
    let (old, new) = (old.phrases(), new.phrases());
    let phrase = |phrases: &[(&str, String)], key: &str, nothing: &str| -> String {
        let phrase = phrases.iter().find(|(known, _)| *known == key);
        phrase.map_or(nothing.into(), |(_, phrase)| phrase.clone())
    };
    let differences = KEYS.into_iter().filter_map(|(key, nothing)| {
        let (old, new) = (phrase(&old, key, nothing), phrase(&new, key, nothing));
        (old != new).then(|| format!("{old} → {new}"))
    });
    differences.collect()
}

/// How two lists differ, if they do; `none` is what stands for an empty one and its key.
fn list_difference<T: Ord + fmt::Display>(
    key: &str,
    old: &[T],
    new: &[T],
    none: &str,
    shown: usize,
) -> Option<String> {
    if same_members(old, new) {
        return None;
    }
    let text = |items: &[T]| match items {
        [] => none.into(),
        items => format!("{key}{}", joined(items, shown)),
    };
    let (before, after) = (text(old), text(new));
    Some(if before == after {
        // They differ in what is not written out.
        format!("{key}{}", exchanged(old, new, shown))
    } else {
        format!("{before} → {after}")
    })
}

/// What only one of two lists holds, as in `- 192.0.2.0/24 + 198.51.100.0/24`.
fn exchanged<T: Ord + fmt::Display>(old: &[T], new: &[T], shown: usize) -> String {
    let only_in = |items: &[T], others: &[T]| -> Option<String> {
        let others: BTreeSet<&T> = others.iter().collect();
        let items: Vec<&T> = items.iter().filter(|item| !others.contains(item)).collect();
        (!items.is_empty()).then(|| joined(&items, shown))
    };
    let gone = only_in(old, new).map(|items| format!("- {items}"));
    let come = only_in(new, old).map(|items| format!("+ {items}"));
    let texts: Vec<_> = gone.into_iter().chain(come).collect();
    texts.join(" ")
}

fn joined<T: ToString>(items: &[T], shown: usize) -> String {
    let mut texts: Vec<String> = items.iter().take(shown).map(T::to_string).collect();
    if items.len() > shown {
        texts.push(format!("… {} more", items.len() - shown));
    }
    texts.join(" ")
}

/// A [`Plan`] as text; see [`Plan::shortened`].
#[derive(Clone, Copy, Debug)]
pub struct Shortened<'p> {
    plan: &'p Plan,
    limit: usize,
    width: usize,
}

impl<'p> Shortened<'p> {
    pub(super) const fn new(plan: &'p Plan, limit: usize, width: usize) -> Self {
        Self { plan, limit, width }
    }

    /// A line of the text: where it would be too wide with fewer items of its lists, then without
    /// regard to the lines around it, and at last without its end.
    fn fitted(&self, index: usize, widths: [usize; 2]) -> String {
        let tries = SHOWN.map(|shown| (shown, widths));
        let mut text = String::new();
        for (shown, widths) in tries.into_iter().chain([(SHOWN[SHOWN.len() - 1], [0; 2])]) {
            let Some(line) = self.plan.line(index, shown) else {
                return text;
            };
            text = laid_out(&line, widths);
            if width(&text) <= self.width {
                return text;
            }
        }
        cut(&text, self.width).into_owned()
    }
}

/// A line whose name and ports take at least so many columns.
fn laid_out([sign, name, ports, rest]: &PlanRow, [name_width, ports_width]: [usize; 2]) -> String {
    let name = padded(name, name_width);
    let mut text = if rest.is_empty() {
        format!("{sign} {name}  {ports}")
    } else {
        format!("{sign} {name}  {}  {rest}", padded(ports, ports_width))
    };
    text.truncate(text.trim_end().len());
    text
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shortened(usize::MAX, usize::MAX).fmt(f)
    }
}

impl fmt::Display for Shortened<'_> {
    /// One line for each setting, set or rule that is not the same, then the number of rules that are; no
    /// line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.plan.lines();
        let (head, tail) = if all <= self.limit.max(2) {
            (all, 0)
        } else {
            (self.limit.max(2).div_ceil(2), self.limit.max(2) / 2)
        };
        let left_out = all - head - tail;
        let indices: Vec<_> = (0..head).chain(all - tail..all).collect();
        let lines: Vec<_> = indices
            .iter()
            .filter_map(|&index| self.plan.line(index, SHOWN[0]))
            .collect();
        let widest = |column: usize, has_width: fn(&PlanRow) -> bool| {
            let lines = lines.iter().filter(|line| has_width(line));
            let widths = lines.map(|line| width(&line[column]));
            widths.max().unwrap_or_default()
        };
        // Long names and many ports do not push the rest off the screen.
        let room = self.width / 2;
        let name_width = widest(1, |_| true).min(room);
        let ports_width = widest(2, |[.., rest]| !rest.is_empty())
            .min(40)
            .min(room / 2);
        for (at, &index) in indices.iter().enumerate() {
            if at == head && left_out > 0 {
                writeln!(f, "… {left_out} more")?;
            }
            writeln!(f, "{}", self.fitted(index, [name_width, ports_width]))?;
        }
        write!(f, "= {} unchanged", self.plan.unchanged)
    }
}
