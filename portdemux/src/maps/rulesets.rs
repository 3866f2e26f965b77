//! The ruleset in force, and how another takes its place.

use std::{collections::HashMap, mem::offset_of, sync::atomic::Ordering};

use anyhow::{Context as _, Result};
use bytemuck::Zeroable as _;
use portdemux_common::{
    capacity::{RULE_NAME_LENGTH, RULE_SLOTS},
    ids::{Generation, RuleId},
    limits::LimitWords,
    ruleset::{Head, Header, RuleSet, RulesetImage, Rulesets},
    state::Ledger,
};

use crate::{
    error::Unavailable,
    image::{Compiled, Destinations},
    maps::{
        Maps,
        mapped::Mapped,
        quiesce, random,
        tables::{self, Renew},
        targets::Needed,
        text,
    },
};

/// Where the generation in force stands in its map.
pub(crate) const GENERATION: usize = offset_of!(Rulesets, generation);

/// A rule's name, padded with zeros.
type RuleName = [u64; RULE_NAME_LENGTH / 8];
/// A ruleset that is to follow the one in force.
pub struct Prepared {
    /// What packets will be decided by.
    pub ruleset: Compiled,
    /// The rules that are in force under no name yet.
    new_rules: Vec<(RuleId, RuleName)>,
    /// The destinations that are in force nowhere yet, by slot.
    new_destinations: Destinations,
}

impl Prepared {
    /// What it needs in the maps of targets.
    pub(crate) fn needed(&self) -> Needed {
        Needed::of(&self.ruleset.image, &self.ruleset.destinations)
    }

    /// Its destinations that are in force nowhere yet, by slot.
    pub(crate) const fn new_destinations(&self) -> &Destinations {
        &self.new_destinations
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("header", &self.ruleset.header)
            .finish_non_exhaustive()
    }
}

impl Maps {
    /// The generation in force.
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation(self.rulesets.word(GENERATION).load(Ordering::Acquire))
    }

    /// The header of the ruleset in force.
    #[must_use]
    pub fn header(&self) -> Header {
        self.read_consistently(|generation| {
            if let Some(image) = self.layout.read_image(&self.rulesets, generation) {
                return image.header;
            }
            let mut header = Header::zeroed();
            self.rulesets.read(
                half(generation),
                bytemuck::cast_slice_mut(std::slice::from_mut(&mut header)),
            );
            header
        })
    }

    /// The ruleset in force with its tables of sources, which begin at 0 wherever they lie in the map.
    #[must_use]
    pub fn compiled(&self) -> Compiled {
        loop {
            let mut image = self.image();
            let sources = tables::read(&self.tables_of(&image.header), &image.header.sources);
            if self.generation().0 == image.header.generation {
                image.header.sources.begin = 0;
                return Compiled {
                    destinations: self.destinations(&image),
                    image,
                    sources,
                };
            }
        }
    }

    /// The ruleset in force.
    #[must_use]
    pub fn image(&self) -> Box<RulesetImage> {
        self.read_consistently(|generation| {
            if let Some(image) = self.layout.read_image(&self.rulesets, generation) {
                return image;
            }
            let start = half(generation);
            let mut image: Box<RulesetImage> = bytemuck::zeroed_box();
            let head = bytemuck::cast_slice_mut(std::slice::from_mut(&mut image.head));
            self.rulesets.read(start, head);
            let map = self.tables_of(&image.header);
            tables::read_into(&map, &mut image, self.layout.older_slots());
            image
        })
    }

    /// Reads from the half that is in force, again if it was replaced meanwhile.
    fn read_consistently<T>(&self, read: impl Fn(Generation) -> T) -> T {
        loop {
            let generation = self.generation();
            let value = read(generation);
            if self.generation() == generation {
                return value;
            }
        }
    }

    /// The names of the rules that the ruleset in force uses, by id.
    #[must_use]
    pub fn rule_names(&self, image: &RulesetImage) -> HashMap<RuleId, String> {
        used(image)
            .map(|rule| (rule, self.rule_name(rule)))
            .collect()
    }

    fn rule_name(&self, rule: RuleId) -> String {
        text(bytemuck::cast_slice(&self.padded_name(rule)))
    }

    fn padded_name(&self, rule: RuleId) -> RuleName {
        let mut name = RuleName::default();
        self.ledger.read(rule_name_offset(rule), &mut name);
        name
    }

    /// Puts a ruleset in force, with its targets, and returns its generation. The caller holds the instance's lock.
    ///
    /// # Errors
    ///
    /// There are too many rules, or the wait for running programs failed; nothing was changed.
    pub fn install(
        &self,
        names: &[&str],
        text_hash: [u8; 32],
        compile: impl FnOnce(&[RuleId]) -> Result<Compiled>,
        renew: Renew<'_>,
    ) -> Result<Generation> {
        let prepared = self.prepare(names, text_hash, compile)?;
        let (before, needed) = (self.needed_in_force(), prepared.needed());
        self.stage_targets(&prepared, &before, &needed, &mut Unavailable::Refused)?;
        self.stage_ruleset(&prepared, renew)?;
        let generation = self.put_in_force(&prepared);
        // They are in force whether it is cleared or not.
        let _: Result<()> = self.clear_targets(&before, &needed);
        Ok(generation)
    }

    /// Compiles a ruleset that is to follow the one in force; nothing is written.
    ///
    /// `names` are the names of its rules in the order in which `compile` numbers them; it is told
    /// the id of each. A rule that is in force under the same name keeps its id and so its
    /// counters; a new one begins at zero.
    ///
    /// # Errors
    ///
    /// There are too many rules or destinations.
    pub fn prepare(
        &self,
        names: &[&str],
        text_hash: [u8; 32],
        compile: impl FnOnce(&[RuleId]) -> Result<Compiled>,
    ) -> Result<Prepared> {
        let slots = self.assign_slots(names)?;
        let ids: Vec<RuleId> = slots.iter().map(|&(id, _)| id).collect();
        let mut ruleset = compile(&ids)?;
        let new_destinations =
            self.assign_destinations(&mut ruleset.image, &mut ruleset.destinations)?;
        let image = &mut ruleset.image;
        image.header.generation = self.generation().next().0;
        image.header.text_hash = text_hash;
        for &id in &ids {
            image.rules[id as usize / 64] |= 1 << (id % 64);
        }
        let new = slots.iter().zip(names).filter(|((_, is_new), _)| *is_new);
        Ok(Prepared {
            new_rules: new.map(|(&(id, _), name)| (id, padded(name))).collect(),
            new_destinations,
            ruleset,
        })
    }

    /// Writes a ruleset that was prepared under the same lock beside the one in force: no packet meets it.
    ///
    /// # Errors
    ///
    /// The wait for running programs failed, or there are too many sources.
    pub(crate) fn stage_ruleset(&self, prepared: &Prepared, renew: Renew<'_>) -> Result<()> {
        let Compiled { image, sources, .. } = &prepared.ruleset;
        // A packet that began before the last change may still read the half that is written next,
        // and count for a rule that is in force no more.
        quiesce::wait_for_programs().context("wait for running programs to end")?;
        let mut header = image.header;
        tables::slot(self, &mut header, image, sources, renew)?;
        header.limits_seed = match self.header().limits_seed {
            0 => random()?,
            seed => seed,
        };
        for (id, name) in &prepared.new_rules {
            self.counters.reset_rule(*id);
            self.limits.write(limit_offset(*id), &[0; 2]);
            self.ledger.write(rule_name_offset(*id), name);
        }
        let start = half(Generation(header.generation));
        write_head(&self.rulesets, start, &image.head, &header);
        Ok(())
    }

    /// Puts a ruleset in force that is staged, by one store of 8 bytes: at whatever step this process ends, one of the
    /// two is in force as a whole.
    pub(crate) fn put_in_force(&self, prepared: &Prepared) -> Generation {
        let new = Generation(prepared.ruleset.image.header.generation);
        self.rulesets
            .word(GENERATION)
            .store(new.0, Ordering::Release);
        new
    }

    /// Puts in force what an older instance has in force, under the same generation; `prepared` follows it there.
    ///
    /// # Errors
    ///
    /// There are too many sources.
    pub(crate) fn adopt(
        &self,
        before: &Self,
        prepared: &Prepared,
        changes: u64,
        renew: Renew<'_>,
    ) -> Result<()> {
        let Compiled { image, sources, .. } = &prepared.ruleset;
        let old = before.header();
        let mut header = image.header;
        header.generation = old.generation;
        header.text_hash = old.text_hash;
        header.limits_seed = old.limits_seed;
        tables::slot(self, &mut header, image, sources, renew)?;
        for (id, name) in &prepared.new_rules {
            self.ledger.write(rule_name_offset(*id), name);
        }
        self.enter_destinations(&prepared.new_destinations);
        let generation = Generation(old.generation);
        write_head(&self.rulesets, half(generation), &image.head, &header);
        self.rulesets
            .word(GENERATION)
            .store(generation.0, Ordering::Release);
        self.set_source_changes(changes);
        Ok(())
    }

    /// Gives every rule an id: its own if it is in force, else the lowest free one, and says which
    /// are new.
    fn assign_slots(&self, names: &[&str]) -> Result<Vec<(RuleId, bool)>> {
        let mut rules: RuleSet = [0; RULE_SLOTS / 64];
        let generation = self.generation();
        if let Some(image) = self.layout.read_image(&self.rulesets, generation) {
            rules = image.rules;
        } else {
            let start = half(generation) + offset_of!(Head, rules);
            self.rulesets.read(start, &mut rules);
        }
        let in_force: Vec<RuleId> = bits(&rules).collect();
        let mut free = all_ids().filter(|&id| rules[id as usize / 64] & 1 << (id % 64) == 0);
        // Rules mostly stand in the order of their ids, as they were given them in that order: the
        // one that is next is the one, and only where it is not the others are searched.
        let mut next = 0;
        let mut slots_by_name: Option<HashMap<RuleName, usize>> = None;
        let mut find = |name: &RuleName| {
            let is_next = in_force
                .get(next)
                .is_some_and(|&id| self.padded_name(id) == *name);
            if !is_next {
                let slots = slots_by_name.get_or_insert_with(|| {
                    let names = in_force.iter().map(|&id| self.padded_name(id));
                    names.zip(0..).collect()
                });
                next = *slots.get(name)?;
            }
            next += 1;
            Some(in_force[next - 1])
        };
        names
            .iter()
            .map(|name| match find(&padded(name)) {
                Some(id) => Ok((id, false)),
                None => free
                    .next()
                    .map(|id| (id, true))
                    .context("no place is free for a new rule while the old ones are in force"),
            })
            .collect()
    }
}

/// Writes the head of a ruleset over the one that stands at `start` bytes, with another header.
pub(crate) fn write_head(rulesets: &Mapped, start: usize, head: &Head, header: &Header) {
    let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(head));
    let own: &[u64] = bytemuck::cast_slice(std::slice::from_ref(header));
    rulesets.write(start, own);
    let rest = &words[own.len()..];
    rulesets.write(start + size_of::<Header>(), rest);
}

/// The ids of the rules that a ruleset uses, ascending.
pub fn used(image: &RulesetImage) -> impl Iterator<Item = RuleId> {
    bits(&image.rules)
}

fn all_ids() -> impl Iterator<Item = RuleId> {
    (0..).take(RULE_SLOTS)
}

fn bits(words: &RuleSet) -> impl Iterator<Item = RuleId> {
    let words = words.iter().zip((0..).step_by(64));
    words
        .filter(|&(&word, _)| word != 0)
        .flat_map(|(&word, first)| {
            (first..first + 64).filter(move |bit| word & 1 << (bit % 64) != 0)
        })
}

/// Where the ruleset of a generation begins.
pub(crate) const fn half(generation: Generation) -> usize {
    offset_of!(Rulesets, heads) + generation.half() as usize * size_of::<Head>()
}

const fn rule_name_offset(rule: RuleId) -> usize {
    offset_of!(Ledger, rules) + rule as usize * RULE_NAME_LENGTH
}

const fn limit_offset(rule: RuleId) -> usize {
    offset_of!(LimitWords, rules) + rule as usize * size_of::<[u64; 2]>()
}

fn padded(name: &str) -> RuleName {
    let mut words = RuleName::default();
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    words
}
