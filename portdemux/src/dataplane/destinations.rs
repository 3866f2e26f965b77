//! The destinations that rules name, and their places in the maps of targets.
//!
//! A destination keeps its place for as long as some rule in force names it, as rules keep their ids: so a
//! change of rules changes nothing that a packet meets under the rules before.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem::offset_of,
};

use anyhow::{Context as _, Result};
use bytemuck::Zeroable as _;
use portdemux_common::{
    destination::{DESTINATION_NAME_LENGTH, DESTINATION_PLACES, Target},
    ruleset::RulesetImage,
    state::Ledger,
};

use super::maps::{Maps, half, text};
use crate::{
    error::Help as _,
    image::targets::{self, Destinations},
    rules::{Destination, Ruleset},
};

/// A destination's name, padded with zeros.
pub(super) type DestinationName = [u64; DESTINATION_NAME_LENGTH / 8];

/// Refuses rules whose destinations cannot be had.
///
/// # Errors
///
/// Says which rule names one, and why it cannot be had.
pub fn check(ruleset: &Ruleset) -> Result<()> {
    let unbuilt = ruleset.rules().iter().find(|rule| match rule.to {
        Destination::Local | Destination::Drop | Destination::Reject => false,
        Destination::Socket(_)
        | Destination::Interface(_)
        | Destination::Cpus(_)
        | Destination::Xsk(_) => true,
    });
    let Some(rule) = unbuilt else { return Ok(()) };
    Err(anyhow::anyhow!(
        "this version of portdemux cannot put to = \"{}\" in force (rule {})",
        rule.to,
        rule.name
    ))
    .help(|| "use local, drop or reject; nothing was changed".into())
}

impl Maps {
    /// The destinations of an image that is in force, by place.
    #[must_use]
    pub fn destinations(&self, image: &RulesetImage) -> Destinations {
        let count = image.header.targets as usize;
        let places = targets::places(image.targets.get(..count).unwrap_or(&image.targets));
        let known = places.into_iter().filter_map(|place| {
            let name = text(bytemuck::cast_slice(&self.destination_name(place)));
            Some((place, name.parse().ok()?))
        });
        known.collect()
    }

    /// Gives the destinations of an image their places: those that they have in the ruleset in force, else
    /// free ones. Returns the new ones.
    ///
    /// # Errors
    ///
    /// No place is free.
    pub(super) fn assign_destinations(
        &self,
        image: &mut RulesetImage,
        destinations: &mut Destinations,
    ) -> Result<Destinations> {
        if destinations.is_empty() {
            return Ok(Destinations::new());
        }
        let taken = self.places_in_force();
        let known: HashMap<DestinationName, u32> = taken
            .iter()
            .map(|&place| (self.destination_name(place), place))
            .collect();
        let mut free = (0..)
            .take(DESTINATION_PLACES)
            .filter(|place| !taken.contains(place));
        let mut places: BTreeMap<u32, u32> = BTreeMap::new();
        let (mut all, mut new) = (Destinations::new(), Destinations::new());
        for (&before, destination) in &*destinations {
            let place = if let Some(&place) = known.get(&padded(destination)) {
                place
            } else {
                let place = free.next().context(
                    "no place is free for a new destination while the old ones are in force",
                )?;
                new.insert(place, destination.clone());
                place
            };
            places.insert(before, place);
            all.insert(place, destination.clone());
        }
        targets::relocate(image, |place| places.get(&place).copied().unwrap_or(place));
        *destinations = all;
        Ok(new)
    }

    /// Writes down what the destinations at some places are called; nothing may use the places.
    pub(super) fn enter_destinations(&self, new: &Destinations) {
        for (&place, destination) in new {
            self.ledger.write(name_offset(place), &padded(destination));
        }
    }

    /// The places of destinations that the ruleset in force uses.
    fn places_in_force(&self) -> HashSet<u32> {
        let count = self.header().targets as usize;
        let mut all = vec![Target::zeroed(); count.next_multiple_of(2)];
        let start = half(self.generation()) + offset_of!(RulesetImage, targets);
        self.rulesets
            .read(start, bytemuck::cast_slice_mut(&mut all));
        targets::places(&all[..count]).into_iter().collect()
    }

    fn destination_name(&self, place: u32) -> DestinationName {
        let mut name = DestinationName::default();
        self.ledger.read(name_offset(place), &mut name);
        name
    }
}

const fn name_offset(place: u32) -> usize {
    offset_of!(Ledger, destinations) + place as usize * DESTINATION_NAME_LENGTH
}

fn padded(destination: &Destination) -> DestinationName {
    let mut words = DestinationName::default();
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    for (to, from) in bytes.iter_mut().zip(destination.to_string().bytes()) {
        *to = from;
    }
    words
}
