//! All rules at one time, known to hold together.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use portdemux_common::ruleset::{MAX_ADDRESSES, MAX_RULES, MAX_SPANS};

use super::{
    claims::Claims,
    conflict,
    error::{Diagnostic, RulesError},
    intervals::Intervals,
    lists::Lists,
    nearest::nearest,
    rule::Rule,
    source::{Set, Source},
};

/// What happens to packets that no rule can decide about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Defaults {
    /// What happens to IP packets whose headers lie or end early.
    pub malformed: Malformed,
}

/// What happens to malformed packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Malformed {
    /// The host's own stack gets them.
    Pass,
    /// Nobody gets them.
    #[default]
    Drop,
}

impl Malformed {
    /// The word for it, as it stands after `malformed =`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

/// What a ruleset is put together from.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) defaults: Defaults,
    pub(super) sets: Vec<Set>,
    /// Whether sets were given in a way that is not read: nobody is told that one of them does not
    /// exist.
    pub(super) lacks_sets: bool,
    pub(super) rules: Vec<Rule>,
}

/// Rules that hold together: their names differ, they keep the limits, the sets they name exist, and of
/// any two that claim the same entry point one is more specific.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    defaults: Defaults,
    rules: Vec<Rule>,
    sets: Vec<Set>,
    claims: Claims,
    lists: Lists,
}

impl Ruleset {
    /// Puts rules together.
    ///
    /// # Errors
    ///
    /// Names everything that keeps them from holding together.
    pub fn new(defaults: Defaults, rules: Vec<Rule>) -> Result<Self, RulesError> {
        let mut diagnostics = Vec::new();
        let parts = Parts {
            defaults,
            rules,
            ..Parts::default()
        };
        match Self::assemble(parts, &mut diagnostics) {
            Some(ruleset) if diagnostics.is_empty() => Ok(ruleset),
            Some(_) | None => Err(RulesError::new("", diagnostics)),
        }
    }

    /// Puts rules together, or says why that cannot be done.
    pub(super) fn assemble(parts: Parts, diagnostics: &mut Vec<Diagnostic>) -> Option<Self> {
        let Parts {
            defaults,
            sets,
            lacks_sets,
            mut rules,
        } = parts;
        let before = diagnostics.len();
        diagnostics.extend(rules.iter().filter_map(Rule::mistake));
        if rules.len() > MAX_RULES {
            diagnostics.push(
                Diagnostic::new(format!("{} rules are too many", rules.len())).help(format!(
                    "at most {MAX_RULES} fit; join ports into ranges or lists"
                )),
            );
            return None;
        }
        let mut derived = Vec::with_capacity(rules.len());
        for rule in &mut rules {
            rule.normalize();
            derived.push(rule.name.is_empty());
            if rule.name.is_empty() {
                rule.name = Rule::derived_name(&rule.ports, &rule.addresses);
            }
        }
        find_duplicate_names(&rules, &derived, diagnostics);
        if !lacks_sets {
            find_unknown_sets(&rules, &sets, diagnostics);
        }
        let intervals = match Intervals::of(&rules) {
            Ok(intervals) => intervals,
            Err(too_many) => {
                diagnostics.push(too_many_spans(too_many));
                return None;
            }
        };
        find_too_many_addresses(&intervals, diagnostics);
        let conflicts = conflict::find(&intervals);
        diagnostics.extend(conflict::report(&conflicts, &rules));
        if diagnostics.len() > before {
            return None;
        }
        let claims = intervals.flatten();
        if claims.exact_segments() > MAX_SPANS {
            diagnostics.push(too_many_spans(claims.exact_segments()));
            return None;
        }
        let lists = match Lists::build(&rules, |sources| prefixes(&sets, sources)) {
            Ok(lists) => lists,
            Err(diagnostic) => {
                diagnostics.push(diagnostic);
                return None;
            }
        };
        Some(Self {
            defaults,
            rules,
            sets,
            claims,
            lists,
        })
    }

    /// What happens to packets that no rule can decide about.
    #[must_use]
    pub const fn defaults(&self) -> Defaults {
        self.defaults
    }

    /// The rules, in the order of the file; a [`super::claims::Segment`] names one by its place.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Which rule gets each port at each address.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The sets, in the order of the file.
    #[must_use]
    pub fn sets(&self) -> &[Set] {
        &self.sets
    }

    /// Which lists of sources hold which addresses.
    #[must_use]
    pub const fn lists(&self) -> &Lists {
        &self.lists
    }

    /// The rule of this name.
    #[must_use]
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.name == name)
    }
}

/// The prefixes that sources stand for, in order and none twice.
fn prefixes(sets: &[Set], sources: &[Source]) -> Vec<IpNet> {
    let mut prefixes: Vec<IpNet> = Vec::new();
    for source in sources {
        match source {
            Source::Prefix(prefix) => prefixes.push(*prefix),
            Source::Set(name) => prefixes.extend(
                sets.iter()
                    .filter(|set| set.name == *name)
                    .flat_map(|set| &set.prefixes),
            ),
        }
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// How many unknown sets are compared with the known ones.
const COMPARED: usize = 100;

/// How many sets are named to who named another.
const NAMED: usize = 10;

fn find_unknown_sets(rules: &[Rule], sets: &[Set], diagnostics: &mut Vec<Diagnostic>) {
    let names: Vec<&str> = sets.iter().map(|set| &*set.name).collect();
    let known: HashSet<&str> = names.iter().copied().collect();
    let mut help_for: HashMap<&str, String> = HashMap::new();
    for rule in rules {
        for (key, sources) in [("from", &rule.from), ("deny", &rule.deny)] {
            for source in sources {
                let Source::Set(name) = source else { continue };
                if known.contains(&**name) {
                    continue;
                }
                let compare = help_for.len() < COMPARED;
                let help = help_for
                    .entry(name)
                    .or_insert_with(|| instead_of(name, &names, compare));
                diagnostics.push(
                    Diagnostic::new(format!("no set is called `{}`", name.escape_debug()))
                        .at(rule.line, [rule.name.clone(), format!("{key} {source}")])
                        .help(&**help),
                );
            }
        }
    }
}

fn instead_of(name: &str, names: &[&str], compare: bool) -> String {
    if compare && let Some(near) = nearest(name, names) {
        return format!("did you mean @{near}");
    }
    match names {
        [] => format!("define it: [sets], then {name} = [\"192.0.2.0/24\"]"),
        few if few.len() <= NAMED => {
            format!("define it in [sets], which has {}", few.join(", "))
        }
        _ => "define it in [sets]".into(),
    }
}

fn too_many_spans(count: usize) -> Diagnostic {
    Diagnostic::new(format!(
        "{count} claims of ports at single addresses are too many"
    ))
    .help(format!(
        "at most {MAX_SPANS} fit, one for each address and range; leave `address` out where \
             any will do"
    ))
}

/// Two rules whose names are both `derived` are left to [`conflict`]: names derived from the same claim
/// mean that both make it.
fn find_duplicate_names(rules: &[Rule], derived: &[bool], diagnostics: &mut Vec<Diagnostic>) {
    let mut first_of: HashMap<&str, usize> = HashMap::with_capacity(rules.len());
    for (place, rule) in rules.iter().enumerate() {
        let first = *first_of.entry(&rule.name).or_insert(place);
        if first == place || (derived[first] && derived[place]) {
            continue;
        }
        let evidence = |rule: &Rule| [rule.name.clone(), rule.ports_text()];
        diagnostics.push(
            Diagnostic::new(format!("two rules are called `{}`", rule.name))
                .at(rules[first].line, evidence(&rules[first]))
                .at(rule.line, evidence(rule))
                .help("give one another name"),
        );
    }
}

fn find_too_many_addresses(intervals: &Intervals, diagnostics: &mut Vec<Diagnostic>) {
    let (v4, v6) = intervals.count_addresses();
    for (count, family) in [(v4, "IPv4"), (v6, "IPv6")] {
        if count > MAX_ADDRESSES {
            diagnostics.push(
                Diagnostic::new(format!("{count} {family} addresses are too many")).help(format!(
                    "at most {MAX_ADDRESSES} of each family fit; leave `address` out where any \
                     will do"
                )),
            );
        }
    }
}
