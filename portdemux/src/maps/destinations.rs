//! The destinations that rules name, and their slots in the maps of targets.
//!
//! A destination keeps its slot for as long as some rule in force names it, as rules keep their ids: so a
//! change of rules changes nothing that a packet meets under the rules before.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem::offset_of,
};

use anyhow::{Context as _, Result};
use portdemux_common::{
    capacity::{DESTINATION_NAME_LENGTH, DESTINATION_SLOTS},
    ruleset::RulesetImage,
    state::{Ledger, Mode},
    target::Target,
};

use crate::{
    error::Unavailable,
    image::{Destinations, targets as placed},
    interface::{self, Interface},
    maps::{Maps, Prepared, quiesce, targets::Needed, text, trusted::is_there},
    rules::Destination,
};

/// A destination's name, padded with zeros.
pub(crate) type DestinationName = [u64; DESTINATION_NAME_LENGTH / 8];

/// Whether a destination can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// It can.
    Ready,
    /// It is gone, and packets fall back.
    Missing,
    /// It was gone and is there again; `follow`, or the next change, makes it a destination again.
    Returned,
}

impl Reachability {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Missing => "missing",
            Self::Returned => "returned",
        }
    }
}

/// An interface that the ruleset in force names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// As it is written in rules.
    pub destination: Destination,
    /// Whether it can be reached.
    pub state: Reachability,
    /// Whether the interface is up; nothing if packets do not go there.
    pub is_up: Option<bool>,
    /// Whether it takes the frames that the programs of this instance hand it, as things are; nothing if it is
    /// missing or the kernel does not say (before Linux 6.3).
    pub takes_frames: Option<bool>,
    index: Option<u32>,
}

/// Whether an interface that the ruleset in force names is there, and is not what packets go to: it has
/// returned, or its MAC address is another.
///
/// # Errors
///
/// The maps cannot be read, or the kernel does not list its interfaces.
pub fn is_any_stale(maps: &Maps) -> Result<bool> {
    let needed = maps.needed_in_force();
    let present = maps.neighbours()?;
    for (&slot, destination) in &needed.destinations {
        let Destination::Interface(name) = destination else {
            continue;
        };
        let found = present.iter().find(|interface| interface.name == *name);
        if let Some(interface) = found
            && !maps.targets.has_device(slot, interface)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The interfaces that the ruleset in force names, and whether they can be reached.
///
/// # Errors
///
/// The maps cannot be read, or the kernel does not list its interfaces.
pub fn states(maps: &Maps) -> Result<Vec<Reached>> {
    states_of(maps, &maps.needed_in_force())
}

/// Those, and whether they take frames.
///
/// # Errors
///
/// As of [`states`].
pub fn reached(maps: &Maps) -> Result<Vec<Reached>> {
    let mut all = states(maps)?;
    if all.is_empty() {
        return Ok(all);
    }
    let (support, has_native) = (maps.xmit_support(), maps.has_native()?);
    for reached in &mut all {
        let takes = reached.index.map(|index| support.get(&index));
        // In generic mode every interface takes them that is up.
        let is_ready = reached.state == Reachability::Ready;
        reached.takes_frames = match takes {
            _ if reached.is_up == Some(false) => Some(false),
            Some(Some(&takes)) => Some(takes),
            _ => (is_ready && !has_native).then_some(true),
        };
    }
    Ok(all)
}

pub(crate) fn states_of(maps: &Maps, needed: &Needed) -> Result<Vec<Reached>> {
    let has_interfaces = needed
        .destinations
        .values()
        .any(|destination| matches!(destination, Destination::Interface(_)));
    if !has_interfaces {
        return Ok(Vec::new());
    }
    let present = maps.neighbours()?;
    let mut states = Vec::new();
    for (&slot, destination) in &needed.destinations {
        let Destination::Interface(name) = destination else {
            continue;
        };
        let device = maps.targets.device(slot)?;
        let state = if device.is_some() {
            Reachability::Ready
        } else if present.iter().any(|interface| interface.name == *name) {
            Reachability::Returned
        } else {
            Reachability::Missing
        };
        let mut present = present.iter();
        let carrier = device.and_then(|index| present.find(|interface| interface.index == index));
        states.push(Reached {
            destination: destination.clone(),
            state,
            is_up: carrier.map(|interface| interface.is_up),
            takes_frames: None,
            index: device,
        });
    }
    Ok(states)
}

impl Maps {
    /// The destinations of an image that is in force, by slot.
    #[must_use]
    pub fn destinations(&self, image: &RulesetImage) -> Destinations {
        let count = image.header.targets as usize;
        let slots = placed::slots(image.targets.get(..count).unwrap_or(&image.targets));
        let known = slots.into_iter().filter_map(|slot| {
            let name = text(bytemuck::cast_slice(&self.destination_name(slot)));
            Some((slot, name.parse().ok()?))
        });
        known.collect()
    }

    /// Gives the destinations of an image their slots: those that they have in the ruleset in force, else
    /// free ones. Returns the new ones.
    ///
    /// # Errors
    ///
    /// No slot is free.
    pub(crate) fn assign_destinations(
        &self,
        image: &mut RulesetImage,
        destinations: &mut Destinations,
    ) -> Result<Destinations> {
        if destinations.is_empty() {
            return Ok(Destinations::new());
        }
        let taken = self.slots_in_force();
        let known: HashMap<DestinationName, u32> = taken
            .iter()
            .map(|&slot| (self.destination_name(slot), slot))
            .collect();
        let mut free = (0..)
            .take(DESTINATION_SLOTS)
            .filter(|slot| !taken.contains(slot));
        let mut slots: BTreeMap<u32, u32> = BTreeMap::new();
        let (mut all, mut new) = (Destinations::new(), Destinations::new());
        for (&before, destination) in &*destinations {
            let slot = if let Some(&slot) = known.get(&padded(destination)) {
                slot
            } else {
                let slot = free.next().context(
                    "no place is free for a new destination while the old ones are in force",
                )?;
                new.insert(slot, destination.clone());
                slot
            };
            slots.insert(before, slot);
            all.insert(slot, destination.clone());
        }
        placed::relocate(image, |slot| slots.get(&slot).copied().unwrap_or(slot));
        *destinations = all;
        Ok(new)
    }

    /// Writes down what the destinations at some slots are called; nothing may use the slots.
    pub(crate) fn enter_destinations(&self, new: &Destinations) {
        for (&slot, destination) in new {
            self.ledger.write(name_offset(slot), &padded(destination));
            self.redirect_drops.reset(slot);
        }
    }

    /// Fills the slots that a staged ruleset needs. Slots that the ruleset in force needs stay.
    ///
    /// # Errors
    ///
    /// A destination cannot be had, and is not to count as missing.
    pub(crate) fn stage_targets(
        &self,
        prepared: &Prepared,
        before: &Needed,
        needed: &Needed,
        unavailable: &mut Unavailable<'_>,
    ) -> Result<()> {
        let new = prepared.new_destinations();
        if !new.is_empty() {
            // What decided by rules before the last change may still count at a slot that was theirs.
            quiesce::wait_for_programs().context("wait for running programs to end")?;
            self.enter_destinations(new);
        }
        self.fill_targets(needed, unavailable)?;
        unavailable
            .judge(self.know_targets(before, needed))
            .map(drop)
    }

    /// Clears the slots that the ruleset before needed and the one in force does not.
    ///
    /// # Errors
    ///
    /// The wait for running programs failed, or a map cannot be changed.
    pub(crate) fn clear_targets(&self, before: &Needed, needed: &Needed) -> Result<()> {
        if before.is_empty() {
            return Ok(());
        }
        // What decided by the rules before may be on its way to what they named.
        quiesce::wait_for_programs().context("wait for running programs to end")?;
        self.targets.clear(before, needed)
    }

    /// Restores the slots of the ruleset in force, after another was staged.
    ///
    /// # Errors
    ///
    /// A map cannot be changed.
    pub(crate) fn restore_targets(&self, staged: &Needed) -> Result<()> {
        let needed = self.needed_in_force();
        self.targets.clear(staged, &needed)?;
        let mut missing = Vec::new();
        self.fill_targets(&needed, &mut Unavailable::Missing(&mut missing))?;
        self.know_targets(staged, &needed)
    }

    /// Fills the slots that a ruleset needs.
    pub(crate) fn fill_targets(
        &self,
        needed: &Needed,
        unavailable: &mut Unavailable<'_>,
    ) -> Result<()> {
        if needed.is_empty() {
            return Ok(());
        }
        let present = unavailable.judge(self.neighbours())?;
        let present = present.unwrap_or_default();
        // Where that cannot be seen, no CPU is used: in generic mode a packet for one would be lost.
        let has_generic = unavailable.judge(self.has_generic())?.unwrap_or(true);
        self.targets
            .fill(needed, &present, has_generic, unavailable)
    }

    /// Says by what the kernel knows the targets that packets can meet while one ruleset takes the place of
    /// another.
    pub(crate) fn know_targets(&self, before: &Needed, needed: &Needed) -> Result<()> {
        if before.destinations.is_empty() && needed.destinations.is_empty() {
            return Ok(());
        }
        let all = before.destinations.iter().chain(&needed.destinations);
        let mut targets = Vec::new();
        for (&slot, destination) in all {
            targets.extend(self.targets.key(slot, destination)?.map(|key| (key, slot)));
        }
        self.redirect_drops.know(&targets)
    }

    /// Whether the program runs in generic mode on any interface.
    pub(crate) fn has_generic(&self) -> Result<bool> {
        self.is_attached_in(Mode::Generic)
    }

    /// Whether the program runs in native mode on any interface.
    fn has_native(&self) -> Result<bool> {
        self.is_attached_in(Mode::Native)
    }

    fn is_attached_in(&self, mode: Mode) -> Result<bool> {
        for (slot, interface) in self.interfaces() {
            if interface.mode == mode as u32
                && is_there(&self.directory.join(format!("link{slot}")))?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Which of the interfaces here take frames of other drivers, as far as that matters and is known.
    pub(crate) fn xmit_support(&self) -> BTreeMap<u32, bool> {
        let here = interface::namespace().ok();
        let is_here = |netns: u64| here == Some(netns);
        if !self.has_native().unwrap_or(false)
            || self
                .interfaces()
                .iter()
                .any(|(_, known)| !is_here(known.netns))
        {
            return BTreeMap::new();
        }
        // A kernel that does not answer does not say.
        interface::xmit_support().ok().flatten().unwrap_or_default()
    }

    /// Takes all CPUs off their slots, before a program is attached in generic mode.
    pub(crate) fn leave_cpus(&self) -> Result<()> {
        let needed = self.needed_in_force();
        self.targets.leave_cpus(needed.cpus.keys())
    }

    /// The destinations of the ruleset in force, by slot.
    #[must_use]
    pub fn destinations_in_force(&self) -> Destinations {
        if self.header().targets == 0 {
            return Destinations::new();
        }
        self.destinations(&self.image())
    }

    /// What the ruleset in force needs in the maps of targets.
    pub(crate) fn needed_in_force(&self) -> Needed {
        if self.header().targets == 0 {
            return Needed::default();
        }
        let image = self.image();
        Needed::of(&image, &self.destinations(&image))
    }

    /// The interfaces that can be destinations: those of the network namespace that the instance is in, if
    /// that is this process's.
    pub(crate) fn neighbours(&self) -> Result<Vec<Interface>> {
        let here = interface::namespace()?;
        let known = self.interfaces();
        if known.is_empty() || known.iter().any(|(_, interface)| interface.netns == here) {
            interface::list()
        } else {
            Ok(Vec::new())
        }
    }

    /// The slots of destinations that the ruleset in force uses.
    fn slots_in_force(&self) -> HashSet<u32> {
        let image = self.image();
        let targets = image.targets.iter().take(image.header.targets as usize);
        targets.filter_map(Target::slot).collect()
    }

    fn destination_name(&self, slot: u32) -> DestinationName {
        let mut name = DestinationName::default();
        self.ledger.read(name_offset(slot), &mut name);
        name
    }
}

const fn name_offset(slot: u32) -> usize {
    offset_of!(Ledger, destinations) + slot as usize * DESTINATION_NAME_LENGTH
}

fn padded(destination: &Destination) -> DestinationName {
    let mut words = DestinationName::default();
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    for (to, from) in bytes.iter_mut().zip(destination.to_string().bytes()) {
        *to = from;
    }
    words
}
