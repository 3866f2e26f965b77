//! The program is taken off interfaces, or an instance is removed.

use anyhow::{Context as _, Result};

use super::{Control, Event};
use crate::{
    dataplane::{links, steering},
    error::{Help as _, NothingLoaded},
    instance::{Instance, Writer, pinned},
    interface, maps,
};

impl Control {
    /// Takes the program off interfaces; an event tells of each. Rules and counters stay. Returns whether it is on
    /// none any more.
    ///
    /// # Errors
    ///
    /// One of them has no program of the instance, and nothing was changed; or the kernel refuses.
    pub fn detach(&self, names: &[String]) -> Result<bool> {
        links::check_capabilities()?;
        let writer = self.open_to_change()?;
        let slots = self.slots(&writer, names)?;
        steering::guard_without(&writer, &slots)?;
        for (name, slot) in names.iter().zip(slots) {
            links::detach(&writer, slot)?;
            self.events.tell(Event::Detached(name.clone()));
        }
        // By now it is done, and this only says so.
        Ok(pinned::pinned(&self.paths).is_ok_and(|left| left.is_empty()))
    }

    /// The slots of interfaces that the program is on.
    fn slots(&self, writer: &Writer, names: &[String]) -> Result<Vec<usize>> {
        let netns = interface::namespace()?;
        let present = interface::list()?;
        let pinned = pinned::pinned(&self.paths)?;
        let is_pinned = |slot: usize| pinned.iter().any(|link| link.slot == slot);
        let slot = |name: &String| {
            // By the program that runs on it, so that an interface is found under its new name too.
            let by_program = pinned.iter().find(|link| {
                let carrier = link.carrier(&present);
                carrier.is_some_and(|carrier| carrier.name == *name)
            });
            // Else by the name it had, in this network namespace or, if that is clear, in another.
            let by_name = || {
                let mut known = writer.maps.interfaces();
                known.retain(|(slot, other)| maps::text(&other.name) == *name && is_pinned(*slot));
                let here = || known.iter().find(|(_, other)| other.netns == netns);
                match known[..] {
                    [(slot, _)] => Some(slot),
                    _ => here().map(|&(slot, _)| slot),
                }
            };
            let slot = by_program.map(|link| link.slot).or_else(by_name);
            slot.filter(|&slot| is_pinned(slot))
                .with_context(|| {
                    let instance = &self.paths.instance;
                    format!("{name} is not attached to instance {instance}")
                })
                .help(|| {
                    let command = self.command();
                    format!("{command} status shows what is; nothing was changed")
                })
        };
        names.iter().map(slot).collect()
    }

    /// Removes the instance, however damaged it is: programs, rules, counters, pins and records. Returns the names of
    /// the interfaces that had its program.
    ///
    /// # Errors
    ///
    /// There is none, a newer version made it, or something of it cannot be removed.
    pub fn remove(&self) -> Result<Vec<String>> {
        links::check_capabilities()?;
        self.paths.refuse_newer()?;
        if !self.paths.exists()? && !self.paths.is_in_trash()? {
            return Err(NothingLoaded {
                instance: self.paths.instance.to_string(),
            }
            .into());
        }
        // What cannot be looked at goes all the same.
        let lock = self.paths.lock()?.found();
        let pinned = pinned::pinned(&lock.paths)?;
        let is_pinned = |slot: usize| pinned.iter().any(|link| link.slot == slot);
        // Damaged maps name no interfaces; they go all the same.
        let known = Instance::open(&lock.paths).map(|instance| instance.maps.interfaces());
        let known = known.unwrap_or_default().into_iter();
        let attached = known.filter(|&(slot, _)| is_pinned(slot));
        let mut names: Vec<String> = attached
            .map(|(_, interface)| maps::text(&interface.name))
            .collect();
        let in_trash = pinned::left_in_trash(&lock.paths)?.into_iter();
        names.extend(in_trash.filter_map(|(_, name)| name));
        links::remove_instance(&lock)?;
        Ok(names)
    }
}
