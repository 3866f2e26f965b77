//! Which lists of sources hold which addresses.

use std::collections::HashMap;

use ipnet::IpNet;
use portdemux_common::{
    policy::Policy,
    sources::{CLASS_WORDS, Class, MAX_LISTS, MAX_PREFIXES},
};

use super::{error::Diagnostic, rule::Rule, source::Source};

/// The lists that rules have in `from` and `deny`, cut into ranges of addresses that are all in the
/// same lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    policies: Vec<Policy>,
    count: usize,
    classes: Vec<u64>,
    v4: Vec<Range>,
    v6: Vec<Range>,
}

/// Neighbouring addresses of one family that are in the same lists; they end where the next begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first of them; an IPv4 address is a number of 32 bits.
    pub start: u128,
    /// Which lists they are in.
    pub class: Class,
}

impl Lists {
    /// Collects the lists of some rules; `resolve` says which prefixes sources stand for.
    ///
    /// # Errors
    ///
    /// Says which limit they exceed.
    pub(super) fn build(
        rules: &[Rule],
        resolve: impl Fn(&[Source]) -> Vec<IpNet>,
    ) -> Result<Self, Diagnostic> {
        let restricted = |rule: &Rule| !rule.from.is_empty() || !rule.deny.is_empty();
        if !rules.iter().any(restricted) {
            return Ok(Self::default());
        }
        let mut numbers = Numbers {
            resolve,
            written: HashMap::new(),
            resolved: HashMap::new(),
        };
        let policies = rules
            .iter()
            .map(|rule| Policy {
                from: numbers.of(&rule.from),
                deny: numbers.of(&rule.deny),
                ..Policy::default()
            })
            .collect();
        let lists = numbers.resolved;
        let count = lists.len();
        if count > MAX_LISTS {
            let message = format!("{count} different lists of sources, {MAX_LISTS} at most");
            return Err(
                Diagnostic::new(message).help("let rules share a set, as in from = \"@office\"")
            );
        }
        let mut classes = Classes::new(count);
        let mut ranges = |is_v4: bool| -> Result<Vec<Range>, Diagnostic> {
            let mut edges = Vec::new();
            let mut prefixes = 0;
            for (list, &number) in &lists {
                let of_family = list
                    .iter()
                    .filter(|prefix| prefix.addr().is_ipv4() == is_v4);
                prefixes += of_family.clone().count();
                edges_of(of_family, usize::from(number) - 1, &mut edges);
            }
            if prefixes > MAX_PREFIXES {
                let message = format!(
                    "{prefixes} prefixes of IPv{} in the lists of all rules, {MAX_PREFIXES} at most",
                    if is_v4 { 4 } else { 6 }
                );
                return Err(Diagnostic::new(message)
                    .help("join prefixes to shorter ones, or let rules share a set"));
            }
            edges.sort_unstable();
            classes.along(&edges)
        };
        Ok(Self {
            policies,
            count,
            v4: ranges(true)?,
            v6: ranges(false)?,
            classes: classes.words,
        })
    }

    /// What decides about the ports of the rule at this place of the ruleset.
    #[must_use]
    pub fn policy(&self, place: usize) -> Policy {
        self.policies.get(place).copied().unwrap_or_default()
    }

    /// The lists that each class is in, a bit for each, [`Lists::words`] words for a class.
    #[must_use]
    pub fn classes(&self) -> &[u64] {
        &self.classes
    }

    /// How many words the bits of a class take.
    #[must_use]
    pub const fn words(&self) -> usize {
        self.count.div_ceil(64)
    }

    /// The ranges of IPv4 in ascending order, the first at 0; none if no list holds any of it.
    #[must_use]
    pub fn v4(&self) -> &[Range] {
        &self.v4
    }

    /// The ranges of IPv6 in ascending order, the first at 0; none if no list holds any of it.
    #[must_use]
    pub fn v6(&self) -> &[Range] {
        &self.v6
    }
}

/// The numbers of lists, from 1 in the order they come; lists with the same prefixes are one.
struct Numbers<'r, F> {
    resolve: F,
    written: HashMap<&'r [Source], u16>,
    resolved: HashMap<Vec<IpNet>, u16>,
}

impl<'r, F: Fn(&[Source]) -> Vec<IpNet>> Numbers<'r, F> {
    fn of(&mut self, sources: &'r [Source]) -> u16 {
        if sources.is_empty() {
            return 0;
        }
        if let Some(&number) = self.written.get(sources) {
            return number;
        }
        // Beyond the limit, which is lower, the numbers do not matter.
        let next = u16::try_from(self.resolved.len() + 1).unwrap_or(u16::MAX);
        let number = *self.resolved.entry((self.resolve)(sources)).or_insert(next);
        self.written.insert(sources, number);
        number
    }
}

/// An address from which on a list holds one prefix more, or one less.
///
/// Fields in the order in which edges are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    address: u128,
    list: usize,
    change: i32,
}

fn edges_of<'p>(prefixes: impl Iterator<Item = &'p IpNet>, list: usize, edges: &mut Vec<Edge>) {
    for prefix in prefixes {
        // Behind the last address of all nothing begins.
        let (first, behind) = match prefix {
            IpNet::V4(net) => (
                u128::from(net.network().to_bits()),
                net.broadcast().to_bits().checked_add(1).map(u128::from),
            ),
            IpNet::V6(net) => (
                net.network().to_bits(),
                net.broadcast().to_bits().checked_add(1),
            ),
        };
        edges.push(Edge {
            address: first,
            list,
            change: 1,
        });
        if let Some(behind) = behind {
            edges.push(Edge {
                address: behind,
                list,
                change: -1,
            });
        }
    }
}

/// Classes as they come up.
struct Classes {
    words: Vec<u64>,
    known: HashMap<Vec<u64>, Class>,
    lists: usize,
}

impl Classes {
    /// Class 0, whose addresses are in none of the lists.
    fn new(lists: usize) -> Self {
        let empty = vec![0; lists.div_ceil(64)];
        Self {
            words: empty.clone(),
            known: HashMap::from([(empty, 0)]),
            lists,
        }
    }

    /// The ranges between edges, which are sorted.
    fn along(&mut self, edges: &[Edge]) -> Result<Vec<Range>, Diagnostic> {
        let mut ranges: Vec<Range> = Vec::new();
        if edges.is_empty() {
            return Ok(ranges);
        }
        ranges.push(Range { start: 0, class: 0 });
        let mut depths = vec![0_i32; self.lists];
        let mut bits = vec![0_u64; self.lists.div_ceil(64)];
        for here in edges.chunk_by(|one, other| one.address == other.address) {
            for edge in here {
                depths[edge.list] += edge.change;
                let bit = 1 << (edge.list % 64);
                if depths[edge.list] > 0 {
                    bits[edge.list / 64] |= bit;
                } else {
                    bits[edge.list / 64] &= !bit;
                }
            }
            let class = self.number(&bits)?;
            let start = here[0].address;
            match ranges.last_mut() {
                Some(last) if last.start == start => last.class = class,
                Some(last) if last.class == class => {}
                _ => ranges.push(Range { start, class }),
            }
        }
        Ok(ranges)
    }

    fn number(&mut self, bits: &[u64]) -> Result<Class, Diagnostic> {
        if let Some(&class) = self.known.get(bits) {
            return Ok(class);
        }
        let class = Class::try_from(self.known.len()).ok();
        match class {
            Some(class) if self.words.len() + bits.len() <= CLASS_WORDS => {
                self.words.extend_from_slice(bits);
                self.known.insert(bits.to_vec(), class);
                Ok(class)
            }
            _ => Err(Diagnostic::new(format!(
                "the lists of sources overlap in more than {} ways",
                self.known.len()
            ))
            .help("let rules share a set, as in from = \"@office\"")),
        }
    }
}
