//! Beginning and ending to track flows.
//!
//! A ruleset that needs flows is put in force only when the tables are there and the programs that keep
//! them run on every interface; one that does not need them leaves nothing of it behind.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
use portdemux_common::{
    conntrack::{Shape, Status},
    policy::Timeouts,
};

use super::{egress, links};
use crate::{
    error::Help as _,
    instance::{Instance, Writer, pinned},
    interface,
    maps::{
        damage::is_damage,
        flow_directory::{Directory, FLOWS},
        flows::{self, FlowTables},
        text,
        trusted::is_there,
    },
    sockets,
};

/// What is wrong if [`resume`] fails.
pub const UNRESUMED: &str = "a change of what tracks flows was interrupted, and is not finished";

/// What a ruleset wants of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedFlows {
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
pub fn begin(writer: &Writer, wanted: &WantedFlows) -> Result<()> {
    resume(writer)?;
    let new = flows::shape(wanted.flows, wanted.half_open)?;
    change_to(writer, new, &wanted.timeouts)
}

/// Takes back what [`begin`] did, however far it came: then there are tables as large as they were before, or none.
///
/// # Errors
///
/// The kernel refuses; the next writer tries it again.
pub(crate) fn return_to(writer: &Writer, before: Option<Shape>, timeouts: &Timeouts) -> Result<()> {
    match before {
        Some(before) if writer.maps.header().defaults.flows != 0 => {
            if are_in_use_still(writer)? {
                return restore(writer, before);
            }
            resume(writer)?;
            change_to(writer, before, timeouts)
        }
        // If no program uses the tables yet, none has to be replaced; loading one may be what failed.
        Some(_) | None => stop(writer, are_used(writer)?),
    }
}

/// Whether all programs use the tables that were moved aside. Loading others may be what failed.
fn are_in_use_still(writer: &Writer) -> Result<bool> {
    let pin = Directory::Before.path(&writer.paths.pins()).join(FLOWS);
    if !is_there(&pin)? {
        return Ok(false);
    }
    let map = MapInfo::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
    links::all_use(&writer.paths, map.id())
}

/// Puts the tables of this shape that were moved aside in their place again. A kill leaves tables that [`finish`] finds
/// by the shape that the instance says it has.
fn restore(writer: &Writer, before: Shape) -> Result<()> {
    let pins = writer.paths.pins();
    let [staging, directory, aside] = [Directory::Staging, Directory::InForce, Directory::Before]
        .map(|directory| directory.path(&pins));
    remove_tree(&staging)?;
    if is_there(&directory)? {
        fs::rename(&directory, &staging).context("move the new tables aside")?;
    }
    writer.maps.set_shape(Some(before));
    fs::rename(&aside, &directory).context("move the old tables to their place")?;
    remove_tree(&staging)
}

/// Whether a program on an interface uses tables of flows, as far as that can be seen.
fn are_used(writer: &Writer) -> Result<bool> {
    let mut using = Vec::new();
    for directory in Directory::ALL {
        let pin = directory.path(&writer.paths.pins()).join(FLOWS);
        if is_there(&pin)? {
            let Ok(map) = MapInfo::from_pin(&pin) else {
                return Ok(true);
            };
            using.extend(links::programs_with(map.id()));
        }
    }
    let attached = pinned::pinned(&writer.paths)?;
    let uses = |program: u32| using.contains(&program);
    Ok(attached.iter().any(|link| link.program.is_none_or(uses)))
}

/// Gives all programs tables of this shape, with the flows of those that they have.
fn change_to(writer: &Writer, new: Shape, timeouts: &Timeouts) -> Result<()> {
    let old = writer.maps.shape();
    let is_same = old.is_some_and(|old| (old.known, old.half_open) == (new.known, new.half_open));
    let before = match writer.maps.flows() {
        // Tables that are damaged are made anew; flows cannot be taken from them.
        Err(error) if is_damage(&error) => None,
        before => before?,
    };
    if is_same && let Some(tables) = &before {
        // Whoever made them may have been killed before all programs had them.
        if links::all_use(&writer.paths, tables.id)? {
            return Ok(());
        }
        refuse_other_namespaces(writer)?;
        return links::replace_all(writer);
    }
    refuse_other_namespaces(writer)?;
    // Made beside their place and moved there whole.
    let pins = writer.paths.pins();
    let directory = Directory::InForce.path(&pins);
    let staging = Directory::Staging.path(&pins);
    remove_tree(&staging)?;
    FlowTables::create(&staging, new, before.is_some().then_some(&*directory))?;
    let tables = writer.maps.open_flows(&staging, new)?;
    let now = flows::now();
    if let Some(before) = &before {
        tables.adopt(before);
    } else {
        tables.reset_counters();
        for (key, is_from_here) in sockets::connected().context("list the sockets of this host")? {
            let state = Status::established(is_from_here);
            let until = now.wrapping_add(state.timeout(key.protocol(), timeouts));
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
    writer.maps.set_shape(Some(new));
    finish(writer)
}

/// Does what is left of a change of the tables that was interrupted, or takes it back: then tables stand in their
/// place, and all programs have them. Without such a change it does nothing.
///
/// # Errors
///
/// As [`begin`] and [`end`]; the next writer tries it again.
pub fn resume(writer: &Writer) -> Result<()> {
    if writer.maps.header().defaults.flows == 0 {
        // It was begun for rules that did not come in force, or ends with those before.
        return end(writer);
    }
    let pins = writer.paths.pins();
    let beside = [Directory::Staging, Directory::Before].map(|directory| directory.path(&pins));
    if !is_there(&beside[0])? && !is_there(&beside[1])? {
        return Ok(());
    }
    finish(writer)
}

/// Puts the tables that the instance says it has in their place, and gives them to all programs.
fn finish(writer: &Writer) -> Result<()> {
    let pins = writer.paths.pins();
    let directory = Directory::InForce.path(&pins);
    let found = &writer
        .maps
        .shape()
        .map(|shape| flows::directory_of(&pins, &shape))
        .filter(|found| *found != directory);
    if let Some(found) = found {
        fs::rename(found, &directory).context("move the tables of flows to their place")?;
    }
    let tables = match writer.maps.flows() {
        // They are made anew for the next ruleset.
        Err(error) if is_damage(&error) => None,
        tables => tables?,
    };
    if let Some(tables) = &tables
        && !links::all_use(&writer.paths, tables.id)?
    {
        refuse_other_namespaces(writer)?;
        let before = FlowTables::before(&pins, |own| own)?;
        let adopt = || before.iter().for_each(|before| tables.adopt(before));
        adopt();
        let replaced = links::replace_all(writer);
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
pub fn end(writer: &Writer) -> Result<()> {
    stop(writer, true)
}

fn stop(writer: &Writer, replaces_programs: bool) -> Result<()> {
    let pins = writer.paths.pins();
    let all = Directory::ALL.map(|directory| directory.path(&pins));
    let mut is_any_there = writer.maps.shape().is_some();
    for directory in &all {
        is_any_there |= is_there(directory)?;
    }
    if !is_any_there {
        return Ok(());
    }
    writer.maps.set_shape(None);
    if replaces_programs {
        links::replace_all(writer)?;
    }
    let present = interface::list()?;
    let attached = pinned::pinned(&writer.paths)?;
    for (slot, _) in writer.maps.interfaces() {
        let link = attached.iter().find(|link| link.slot == slot);
        let carrier = link.and_then(|link| link.carrier(&present));
        egress::detach(
            &writer.paths,
            slot,
            carrier.map(|carrier| carrier.name.as_str()),
        )?;
    }
    for directory in all {
        remove_tree(&directory)?;
    }
    Ok(())
}

/// The program on the way out is attached by a name in this network namespace.
fn refuse_other_namespaces(instance: &Instance) -> Result<()> {
    let here = interface::namespace()?;
    let attached = pinned::pinned(&instance.paths)?;
    let elsewhere = instance
        .maps
        .interfaces()
        .into_iter()
        .find(|(slot, interface)| {
            interface.netns != here && attached.iter().any(|link| link.slot == *slot)
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
