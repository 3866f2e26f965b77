//! Which destinations rules have, as packets' decisions need it.

use std::collections::{BTreeMap, HashMap};

use portdemux_common::{ids::RuleId, ruleset::RulesetImage, target::Target};

use super::length;
use crate::rules::{Destination, Rule, destination::Cpus};

/// Destinations by slot.
pub type Destinations = BTreeMap<u32, Destination>;

/// Writes down the targets of rules, and returns the destinations that have slots, in the order in which
/// the rules name them: whoever puts the image in force gives them those that they had.
pub(super) fn assign(image: &mut RulesetImage, rules: &[Rule], ids: &[RuleId]) -> Destinations {
    let mut slots: HashMap<&Destination, u32> = HashMap::new();
    let mut lists: HashMap<&Cpus, (u32, u16)> = HashMap::new();
    let mut destinations = Destinations::new();
    for (rule, &id) in rules.iter().zip(ids) {
        if !rule.to.action().has_target() {
            continue;
        }
        let (first, count) = if let Destination::Cpus(cpus) = &rule.to {
            *lists.entry(cpus).or_insert_with(|| list(image, cpus))
        } else {
            let next = length(slots.len());
            let slot = *slots.entry(&rule.to).or_insert(next);
            destinations.entry(slot).or_insert_with(|| rule.to.clone());
            (slot, 1)
        };
        image.targets[id as usize] = Target {
            first,
            count,
            ..rule.delivery.target(&rule.to)
        };
        image.header.targets = image.header.targets.max(id + 1);
    }
    destinations
}

/// Writes down a list of CPUs; where it begins, and how many it has.
fn list(image: &mut RulesetImage, cpus: &Cpus) -> (u32, u16) {
    let first = image.header.cpus;
    let free = image.cpus.iter_mut().skip(first as usize);
    let mut count = 0;
    for (to, cpu) in free.zip(cpus.numbers()) {
        *to = cpu;
        count += 1;
    }
    image.header.cpus += u32::from(count);
    (first, count)
}

/// Gives the destinations of an image other slots; `new` says which.
pub(crate) fn relocate(image: &mut RulesetImage, new: impl Fn(u32) -> u32) {
    let count = image.header.targets as usize;
    for target in image.targets.iter_mut().take(count) {
        if target.slot().is_some() {
            target.first = new(target.first);
        }
    }
}

/// The slots that the targets of an image have.
pub(crate) fn slots(targets: &[Target]) -> Vec<u32> {
    let mut slots: Vec<u32> = targets.iter().filter_map(Target::slot).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}
