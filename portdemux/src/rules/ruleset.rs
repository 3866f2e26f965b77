//! All rules at one time, known to hold together.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use portdemux_common::{
    capacity::{MAX_ADDRESSES, MAX_RULES, MAX_SPANS},
    policy::Policy,
};

use super::{
    attach::Attach,
    claims::{Claims, Segment, overlay},
    conflict,
    defaults::Defaults,
    error::{Diagnostic, RulesError},
    flows::Flows,
    intervals::Intervals,
    limits,
    lists::Lists,
    nearest::nearest,
    rule::{Layer, Rule},
    source::{MemberChange, Members, Set, Source},
};

/// What a ruleset is put together from.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) attach: Attach,
    pub(super) defaults: Defaults,
    pub(super) flows: Flows,
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
    attach: Attach,
    defaults: Defaults,
    flows: Flows,
    tracks_flows: bool,
    rules: Vec<Rule>,
    sets: Vec<Set>,
    claims: Claims,
    source_claims: Claims,
    shadow_claims: Claims,
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
            attach,
            defaults,
            flows,
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
                rule.name = rule.derived_name();
            }
        }
        find_duplicate_names(&rules, &derived, diagnostics);
        if !lacks_sets {
            find_unknown_sets(&rules, &sets, diagnostics);
        }
        let tracks_flows = match flows.tracked(&defaults, &rules) {
            Ok(tracks_flows) => tracks_flows,
            Err(diagnostic) => {
                diagnostics.push(diagnostic);
                false
            }
        };
        let [claims, source_claims, shadow_claims] = lay_flat(&rules, diagnostics)?;
        diagnostics.extend(limits::check(&rules));
        if diagnostics.len() > before {
            return None;
        }
        let lists = match Lists::build(&rules, &sets) {
            Ok(lists) => lists,
            Err(diagnostic) => {
                diagnostics.push(diagnostic);
                return None;
            }
        };
        if let Some(diagnostic) = lists.check_size(&sets) {
            diagnostics.push(diagnostic);
            return None;
        }
        let ruleset = Self {
            attach,
            defaults,
            flows,
            tracks_flows,
            rules,
            sets,
            claims,
            source_claims,
            shadow_claims,
            lists,
        };
        if let Some(diagnostic) = ruleset.too_many_at_addresses() {
            diagnostics.push(diagnostic);
            return None;
        }
        Some(ruleset)
    }

    /// What is over the limits that claims at addresses have, those of shadows included.
    fn too_many_at_addresses(&self) -> Option<Diagnostic> {
        let (mut v4, mut v6, mut spans) = (0, 0, 0);
        for (address, real, shadow) in self.by_address() {
            if address.is_ipv4() {
                v4 += 1;
            } else {
                v6 += 1;
            }
            spans += if shadow.is_empty() {
                real.len()
            } else {
                overlay(real, shadow).len()
            };
        }
        let family = [(v4, "IPv4"), (v6, "IPv6")];
        if let Some((count, family)) = family.into_iter().find(|&(count, _)| count > MAX_ADDRESSES)
        {
            return Some(too_many_addresses(count, family));
        }
        (spans > MAX_SPANS).then(|| too_many_spans(spans))
    }

    /// Where the rules file says that it is attached.
    #[must_use]
    pub const fn attach(&self) -> &Attach {
        &self.attach
    }

    /// What happens to packets that no rule can decide about.
    #[must_use]
    pub const fn defaults(&self) -> Defaults {
        self.defaults
    }

    /// The rules, in the order of the file; a [`super::claims::Segment`] names one by its index.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What is remembered of flows, if they are tracked.
    #[must_use]
    pub fn flows(&self) -> Option<&Flows> {
        self.tracks_flows.then_some(&self.flows)
    }

    /// What the rules file says about flows, whether they are tracked or not.
    #[must_use]
    pub const fn flow_settings(&self) -> &Flows {
        &self.flows
    }

    /// What decides about the packets that the rule at this index gets.
    #[must_use]
    pub fn policy(&self, index: usize) -> Policy {
        let lists = self.lists.policy(index);
        let terms = self.rules.get(index).map(|rule| rule.terms.policy());
        Policy {
            from: lists.from,
            deny: lists.deny,
            ..terms.unwrap_or_default()
        }
    }

    /// Which rule gets each port at each address.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Which rule gets each port of peers.
    #[must_use]
    pub const fn source_claims(&self) -> &Claims {
        &self.source_claims
    }

    /// Which shadow would get each port at each address.
    #[must_use]
    pub const fn shadow_claims(&self) -> &Claims {
        &self.shadow_claims
    }

    /// Every address at which rules or shadows claim ports, and what they claim there.
    pub fn by_address(&self) -> impl Iterator<Item = (IpAddr, &[Segment], &[Segment])> {
        let mut real = self.claims.by_address().peekable();
        let mut shadows = self.shadow_claims.by_address().peekable();
        std::iter::from_fn(move || {
            let next = match (real.peek(), shadows.peek()) {
                (Some(one), Some(other)) => one.0.min(other.0),
                (Some(one), None) | (None, Some(one)) => one.0,
                (None, None) => return None,
            };
            let real = real.next_if(|site| site.0 == next);
            let shadow = shadows.next_if(|site| site.0 == next);
            Some((next, segments(real), segments(shadow)))
        })
    }

    /// The sets, in the order of the file.
    #[must_use]
    pub fn sets(&self) -> &[Set] {
        &self.sets
    }

    /// Makes changes of sets as [`super::edit::members`] writes them into the text. Whose time was over at `now`,
    /// in milliseconds since 1970, leaves the sets that change.
    pub(crate) fn change_members(&mut self, changes: &[MemberChange], now: u64) {
        for set in &mut self.sets {
            set.change(changes, now);
        }
    }

    /// Fills the sets, in their order.
    pub(crate) fn fill(&mut self, members: impl IntoIterator<Item = Members>) {
        for (set, (prefixes, until)) in self.sets.iter_mut().zip(members) {
            (set.prefixes, set.until) = (prefixes, until);
        }
    }

    /// Which lists of sources the rules have.
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

/// What is claimed at an address at which something may be.
fn segments(site: Option<(IpAddr, &[Segment])>) -> &[Segment] {
    site.map_or(&[], |site| site.1)
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
    for (index, rule) in rules.iter().enumerate() {
        let first = *first_of.entry(&rule.name).or_insert(index);
        let same_claim = derived[first] && derived[index] && rules[first].layer() == rule.layer();
        if first == index || same_claim {
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

fn too_many_addresses(count: usize, family: &str) -> Diagnostic {
    Diagnostic::new(format!("{count} {family} addresses are too many")).help(format!(
        "at most {MAX_ADDRESSES} of each family fit; leave `address` out where any will do"
    ))
}

/// Lays the claims of rules flat, those of this host's ports, of peers' ports and of shadows, and says
/// where two claim the same with equal right. None if there are too many.
fn lay_flat(rules: &[Rule], diagnostics: &mut Vec<Diagnostic>) -> Option<[Claims; 3]> {
    let mut all = [const { None }; 3];
    for (claims, layer) in all.iter_mut().zip(Layer::ALL) {
        // Most rulesets have rules of one layer, and many of them.
        if layer != Layer::Destination && rules.iter().all(|rule| rule.layer() != layer) {
            continue;
        }
        let intervals = match Intervals::of(rules, layer) {
            Ok(intervals) => intervals,
            Err(too_many) => {
                diagnostics.push(too_many_spans(too_many));
                return None;
            }
        };
        let conflicts = conflict::find(&intervals);
        if conflicts.is_empty() {
            *claims = Some(intervals.flatten());
        } else {
            diagnostics.extend(conflict::report(&conflicts, rules));
        }
    }
    Some(all.map(Option::unwrap_or_default))
}
