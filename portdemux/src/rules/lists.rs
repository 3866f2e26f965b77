//! Which lists of sources rules have, and how they are numbered.

use std::collections::HashMap;

use ipnet::IpNet;
use portdemux_common::{
    policy::Policy,
    sources::{MAX_LISTS, MAX_PREFIXES},
};

use super::{
    error::Diagnostic,
    rule::Rule,
    source::{Set, Source},
};

/// The lists that rules have in `from` and `deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    policies: Vec<Policy>,
    atoms: Vec<Atom>,
    unions: Vec<Vec<u16>>,
}

/// A list that is not made up of others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Atom {
    /// Everyone in the set at this index of the ruleset.
    Set(usize),
    /// What a rule says without naming a set, sorted.
    Own(Vec<IpNet>),
}

impl Lists {
    /// Collects the lists of some rules.
    ///
    /// # Errors
    ///
    /// Says which limit they exceed.
    pub(super) fn build(rules: &[Rule], sets: &[Set]) -> Result<Self, Diagnostic> {
        let restricted = |rule: &Rule| !rule.from.is_empty() || !rule.deny.is_empty();
        if !rules.iter().any(restricted) {
            return Ok(Self::default());
        }
        let sets = sets.iter().enumerate();
        let mut numbers = Numbers {
            sets: sets.map(|(index, set)| (&*set.name, index)).collect(),
            atoms: HashMap::new(),
            unions: HashMap::new(),
        };
        let written: Vec<[Vec<u16>; 2]> = rules
            .iter()
            .map(|rule| [&rule.from, &rule.deny].map(|sources| numbers.atoms_of(sources)))
            .collect();
        // What is made up of others is numbered behind all that is not.
        let first_union = numbers.atoms.len();
        let policies = written
            .into_iter()
            .map(|[from, deny]| Policy {
                from: numbers.list(from, first_union),
                deny: numbers.list(deny, first_union),
                ..Policy::default()
            })
            .collect();
        let count = first_union + numbers.unions.len();
        if count > MAX_LISTS {
            let message = format!("{count} different lists of sources, {MAX_LISTS} at most");
            return Err(
                Diagnostic::new(message).help("let rules share a set, as in from = \"@office\"")
            );
        }
        Ok(Self {
            policies,
            atoms: in_order(numbers.atoms),
            unions: in_order(numbers.unions),
        })
    }

    /// Says whether the lists hold more prefixes than there is room for.
    pub(super) fn check_size(&self, sets: &[Set]) -> Option<Diagnostic> {
        let sizes = self.atoms.iter().map(|atom| match atom {
            Atom::Set(index) => sets.get(*index).map_or(0, |set| set.prefixes.len()),
            Atom::Own(prefixes) => prefixes.len(),
        });
        let count: usize = sizes.sum();
        (count > MAX_PREFIXES).then(|| {
            Diagnostic::new(format!(
                "{count} prefixes in the lists of all rules, {MAX_PREFIXES} at most"
            ))
            .help("join prefixes to shorter ones, or let rules share a set")
        })
    }

    /// What decides about the ports of the rule at this index of the ruleset.
    #[must_use]
    pub fn policy(&self, index: usize) -> Policy {
        self.policies.get(index).copied().unwrap_or_default()
    }

    /// The lists that are not made up of others, by their numbers.
    #[must_use]
    pub fn atoms(&self) -> &[Atom] {
        &self.atoms
    }

    /// What the other lists are made up of; their numbers follow those of the atoms.
    #[must_use]
    pub fn unions(&self) -> &[Vec<u16>] {
        &self.unions
    }

    /// The number of the list of all in the set at this index of the ruleset, if a rule names it.
    #[must_use]
    pub fn atom_of(&self, set: usize) -> Option<u16> {
        let index = self
            .atoms
            .iter()
            .position(|atom| matches!(atom, Atom::Set(index) if *index == set))?;
        u16::try_from(index).ok()
    }
}

/// The numbers of lists in the order they come.
struct Numbers<'s> {
    /// The indices of sets by name.
    sets: HashMap<&'s str, usize>,
    atoms: HashMap<Atom, u16>,
    unions: HashMap<Vec<u16>, u16>,
}

impl Numbers<'_> {
    /// The atoms that sources are made up of, ascending.
    fn atoms_of(&mut self, sources: &[Source]) -> Vec<u16> {
        let mut own = Vec::new();
        let mut atoms = Vec::new();
        for source in sources {
            match source {
                Source::Prefix(prefix) => own.push(*prefix),
                Source::Set(name) => {
                    if let Some(&index) = self.sets.get(&**name) {
                        atoms.push(self.atom(Atom::Set(index)));
                    }
                }
            }
        }
        if !own.is_empty() {
            own.sort_unstable();
            own.dedup();
            atoms.push(self.atom(Atom::Own(own)));
        }
        atoms.sort_unstable();
        atoms.dedup();
        atoms
    }

    fn atom(&mut self, atom: Atom) -> u16 {
        let next = number(self.atoms.len());
        *self.atoms.entry(atom).or_insert(next)
    }

    /// The number of a list, plus 1; 0 for a list of nothing.
    fn list(&mut self, atoms: Vec<u16>, first_union: usize) -> u16 {
        match atoms[..] {
            [] => 0,
            [atom] => atom.saturating_add(1),
            _ => {
                let next = number(first_union + self.unions.len());
                self.unions.entry(atoms).or_insert(next).saturating_add(1)
            }
        }
    }
}

/// Beyond the limit, which is lower, the numbers do not matter.
fn number(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn in_order<T>(numbers: HashMap<T, u16>) -> Vec<T> {
    let mut all: Vec<(T, u16)> = numbers.into_iter().collect();
    all.sort_unstable_by_key(|&(_, number)| number);
    all.into_iter().map(|(list, _)| list).collect()
}
