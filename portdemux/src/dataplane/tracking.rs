//! Beginning and ending to track flows.
//!
//! A ruleset that needs flows is put in force only when the tables are there and the programs that keep
//! them run on every interface; one that does not need them leaves nothing of it behind.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use portdemux_common::{flows::State, policy::Timeouts};

use super::{
    damage::is_damage,
    egress,
    flows::{self, Directory, Flows},
    links,
    maps::{Maps, text},
    pins::{InstancePaths, Lock},
    trusted::is_there,
};
use crate::{error::Help as _, interface, sockets};

/// What is wrong if [`resume`] fails.
pub const UNRESUMED: &str = "a change of what tracks flows was interrupted, and is not finished";

/// What a ruleset wants of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How many flows are to be remembered.
    pub flows: u32,
    /// How many half-open ones.
    pub half_open: u32,
    /// For how long.
    pub timeouts: Timeouts,
}

/// Sees to it that flows are tracked on every interface of the instance.
///
/// What the sockets of this host are connected to is remembered from the beginning: the next packet of
/// the peer may come before one of this host.
///
/// # Errors
///
/// The kernel refuses; whatever ruleset is in force stays, and the programs that obey it.
pub fn begin(places: &InstancePaths, maps: &Maps, lock: &Lock, wanted: &Wanted) -> Result<()> {
    resume(places, maps, lock)?;
    let new = flows::shape(wanted.flows, wanted.half_open)?;
    let old = maps.shape();
    let is_same = old.is_some_and(|old| (old.known, old.half_open) == (new.known, new.half_open));
    let before = match maps.flows() {
        // Tables that are damaged are made anew; flows cannot be taken from them.
        Err(error) if is_damage(&error) => None,
        before => before?,
    };
    if is_same && let Some(tables) = &before {
        // Whoever made them may have been killed before all programs had them.
        if links::all_use(places, tables.id)? {
            return Ok(());
        }
        refuse_other_namespaces(maps, places)?;
        return links::replace_all(places, maps, lock);
    }
    refuse_other_namespaces(maps, places)?;
    // Made beside their place and moved there whole.
    let pins = places.pins();
    let directory = Directory::InForce.path(&pins);
    let staging = Directory::Staging.path(&pins);
    remove_tree(&staging)?;
    Flows::create(&staging, new, before.is_some().then_some(&*directory))?;
    let tables = maps.open_flows(&staging, new)?;
    let now = flows::now();
    if let Some(before) = &before {
        tables.adopt(before);
    } else {
        tables.reset_counters();
        for (key, is_from_here) in sockets::connected().context("list the sockets of this host")? {
            let state = State::established(is_from_here);
            let until = now.wrapping_add(state.timeout(key.protocol(), &wanted.timeouts));
            let _ = tables.remember(&key, state, until);
        }
    }
    // It stands there until all programs have the new tables: whoever finds it goes on from here.
    let aside = Directory::Before.path(&pins);
    remove_tree(&aside)?;
    if is_there(&directory)? {
        fs::rename(&directory, &aside).context("move the old tables aside")?;
    } else {
        fs::create_dir(&aside).with_context(|| format!("create {}", aside.display()))?;
    }
    maps.set_shape(Some(new));
    let finished = finish(places, maps, lock);
    if finished.is_err() && old.is_none() {
        // The programs that run do without.
        end(places, maps, lock)?;
    }
    finished
}

/// Does what is left of a change of the tables that was interrupted, or takes it back: then tables stand in their
/// place, and all programs have them. Without such a change it does nothing.
///
/// # Errors
///
/// As [`begin`] and [`end`]; the next writer tries it again.
pub fn resume(places: &InstancePaths, maps: &Maps, lock: &Lock) -> Result<()> {
    if maps.header().defaults.flows == 0 {
        // It was begun for rules that did not come in force, or ends with those before.
        return end(places, maps, lock);
    }
    let pins = places.pins();
    let beside = [Directory::Staging, Directory::Before].map(|directory| directory.path(&pins));
    if !is_there(&beside[0])? && !is_there(&beside[1])? {
        return Ok(());
    }
    finish(places, maps, lock)
}

/// Puts the tables that the instance says it has in their place, and gives them to all programs.
fn finish(places: &InstancePaths, maps: &Maps, lock: &Lock) -> Result<()> {
    let pins = places.pins();
    let directory = Directory::InForce.path(&pins);
    let found = maps
        .shape()
        .map(|shape| flows::directory_of(&pins, &shape))
        .filter(|found| *found != directory);
    if let Some(found) = found {
        fs::rename(found, &directory).context("move the tables of flows to their place")?;
    }
    let tables = match maps.flows() {
        // They are made anew for the next ruleset.
        Err(error) if is_damage(&error) => None,
        tables => tables?,
    };
    if let Some(tables) = &tables
        && !links::all_use(places, tables.id)?
    {
        refuse_other_namespaces(maps, places)?;
        let before = Flows::before(&pins, |own| own)?;
        let adopt = || before.iter().for_each(|before| tables.adopt(before));
        adopt();
        let replaced = links::replace_all(places, maps, lock);
        // What began while the programs were on their way.
        adopt();
        replaced?;
    }
    for directory in [Directory::Staging, Directory::Before] {
        remove_tree(&directory.path(&pins))?;
    }
    Ok(())
}

/// Stops tracking flows, if they are tracked: no ruleset that needs them may be in force.
///
/// # Errors
///
/// A program cannot be replaced or a pin not be removed.
pub fn end(places: &InstancePaths, maps: &Maps, lock: &Lock) -> Result<()> {
    let pins = places.pins();
    // What begins a change goes last: whoever is killed here leaves something to go on from.
    let all = [Directory::Staging, Directory::InForce, Directory::Before];
    let all = all.map(|directory| directory.path(&pins));
    let mut is_any_there = maps.shape().is_some();
    for directory in &all {
        is_any_there |= is_there(directory)?;
    }
    if !is_any_there {
        return Ok(());
    }
    maps.set_shape(None);
    links::replace_all(places, maps, lock)?;
    let present = interface::list()?;
    let attached = links::pinned(places)?;
    for (place, _) in maps.interfaces() {
        let link = attached.iter().find(|link| link.place == place);
        let carrier = link.and_then(|link| link.carrier(&present));
        egress::detach(places, place, carrier.map(|carrier| carrier.name.as_str()))?;
    }
    for directory in all {
        remove_tree(&directory)?;
    }
    Ok(())
}

/// The program on the way out is attached by a name in this network namespace.
fn refuse_other_namespaces(maps: &Maps, places: &InstancePaths) -> Result<()> {
    let here = interface::namespace()?;
    let attached = links::pinned(places)?;
    let elsewhere = maps.interfaces().into_iter().find(|(place, interface)| {
        interface.netns != here && attached.iter().any(|link| link.place == *place)
    });
    let Some((_, interface)) = elsewhere else {
        return Ok(());
    };
    let name = text(&interface.name);
    Err(anyhow::anyhow!(
        "{name} is in another network namespace, and to track flows a program must be attached there"
    ))
    .help(|| format!("run this in the network namespace of {name}; nothing was changed"))
}

fn remove_tree(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
