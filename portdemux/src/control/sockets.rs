//! Sockets of running processes get names that rules send to.

use anyhow::{Context as _, Result, bail};

use super::Control;
use crate::{
    dataplane::steering,
    error::Help as _,
    instance::Writer,
    maps::{
        Maps,
        steering::{GroupName, Member},
    },
    rules::{Destination, destination::SocketName},
    sockets::take::{self, TakenSocket},
};

impl Control {
    /// Registers sockets of a process, by its descriptors of them, under a name; all of them, or none. Where no instance
    /// is, one is made. Returns them, each with whether it is new there.
    ///
    /// # Errors
    ///
    /// A descriptor is of no socket that can be had, or the name has no room; nothing was changed.
    pub fn add_sockets(
        &self,
        name: &str,
        pid: u32,
        descriptors: &[u32],
    ) -> Result<Vec<(TakenSocket, bool)>> {
        let taken = take_all(pid, descriptors)?;
        let (writer, is_new) = self.open_to_change_or_create(|| true)?;
        let result = self.enter(name, &writer, taken);
        if is_new && result.is_err() {
            // Nothing was there before, nothing stays.
            writer.lock().remove()?;
        }
        result
    }

    fn enter(
        &self,
        name: &str,
        writer: &Writer,
        taken: Vec<TakenSocket>,
    ) -> Result<Vec<(TakenSocket, bool)>> {
        let steering = &writer.maps.steering;
        let was_there = steering.find(&SocketName::Name(name.into())).is_some();
        let group = steering::register(writer, name)?;
        let mut entered: Vec<(TakenSocket, bool)> = Vec::new();
        for one in taken {
            match steering.add(group, one.transport, one.family, one.cookie, &one.socket) {
                Ok(is_new) => entered.push((one, is_new)),
                Err(error) => {
                    let is_added = |member: &Member| {
                        let mut added = entered.iter().filter(|(_, is_new)| *is_new);
                        added.any(|(one, _)| one.cookie == member.cookie)
                    };
                    take_out(&writer.maps, group, is_added)?;
                    if !was_there {
                        steering::unregister(writer, group);
                    }
                    return Err(error).help(|| {
                        let command = self.command();
                        format!("{command} socket list shows who is in {name}; nothing was changed")
                    });
                }
            }
        }
        Ok(entered)
    }

    /// Takes sockets of a name off: those of a process by its descriptors of them, or all. Returns how many.
    ///
    /// # Errors
    ///
    /// There is no such name, or none of the sockets has it; nothing was changed.
    pub fn remove_sockets(&self, name: &str, of: Option<(u32, &[u32])>) -> Result<usize> {
        let writer = self.open_to_change()?;
        let steering = &writer.maps.steering;
        let group_name = SocketName::Name(name.into());
        let group = steering
            .find(&group_name)
            .with_context(|| format!("no socket is called {name}"))
            .help(|| {
                let command = self.command();
                format!("{command} socket list shows the names; nothing was changed")
            })?;
        let removed = match of {
            Some((pid, descriptors)) => {
                let taken = take_all(pid, descriptors)?;
                let is_meant =
                    |member: &Member| taken.iter().any(|one| one.cookie == member.cookie);
                take_out(&writer.maps, group, is_meant)?
            }
            None => take_out(&writer.maps, group, |_| true)?,
        };
        if of.is_some() && removed == 0 {
            bail!("that socket is none of {name}");
        }
        if !is_named_by_a_rule(&writer.maps, &group_name) && steering.members(group).is_empty() {
            steering::unregister(&writer, group);
        }
        Ok(removed)
    }
}

fn take_all(pid: u32, descriptors: &[u32]) -> Result<Vec<TakenSocket>> {
    let taken = descriptors.iter();
    taken
        .map(|&descriptor| take::from_process(pid, descriptor))
        .collect()
}

fn is_named_by_a_rule(maps: &Maps, name: &GroupName) -> bool {
    let destinations = maps.destinations_in_force();
    let mut all = destinations.values();
    all.any(|destination| matches!(destination, Destination::Socket(named) if named == name))
}

/// Takes members out of a group; how many.
fn take_out(maps: &Maps, group: u32, is_meant: impl Fn(&Member) -> bool) -> Result<usize> {
    let members = maps.steering.members(group).into_iter();
    let mut removed = 0;
    for member in members.filter(is_meant) {
        maps.steering.remove(group, &member)?;
        removed += 1;
    }
    Ok(removed)
}
