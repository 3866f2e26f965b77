//! Beginning and ending to track flows.
//!
//! A ruleset that needs flows is put in force only when the tables are there and the programs that keep
//! them run on every interface; one that does not need them leaves nothing of it behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use portdemux_common::{flows::State, policy::Timeouts};

use super::{
    damage::is_damage,
    egress,
    flows::{self, Flows},
    links,
    maps::{Maps, text},
    pins::{InstancePaths, Lock},
    trusted::is_there,
};
use crate::{error::Help as _, interface, sockets};

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
    let directory = flows::directory(&places.pins());
    let staging = beside(&directory, "new");
    remove_tree(&staging)?;
    Flows::create(&staging, new, before.is_some().then_some(&*directory))?;
    let tables = maps.open_flows(&staging, new)?;
    let now = flows::now();
    if let Some(before) = &before {
        carry_over(before, &tables);
    } else {
        tables.reset_counters();
        for (key, is_from_here) in sockets::connected().context("list the sockets of this host")? {
            let state = State::established(is_from_here);
            let until = now.wrapping_add(state.timeout(key.protocol(), &wanted.timeouts));
            let _ = tables.remember(&key, state, until);
        }
    }
    let aside = beside(&directory, "old");
    remove_tree(&aside)?;
    if is_there(&directory)? {
        fs::rename(&directory, &aside).context("move the old tables aside")?;
    }
    maps.set_shape(Some(new));
    fs::rename(&staging, &directory).context("move the tables of flows to their place")?;
    let replaced = links::replace_all(places, maps, lock);
    if let Some(before) = &before {
        // What began while the programs were on their way.
        carry_over(before, &tables);
    }
    if replaced.is_err() && old.is_none() {
        // The programs that run do without.
        end(places, maps, lock)?;
    }
    remove_tree(&aside)?;
    replaced
}

/// Remembers in new tables the flows of old ones that are complete and not there yet.
fn carry_over(before: &Flows, tables: &Flows) {
    for flow in before.all().filter(|flow| !flow.is_half_open) {
        let _ = tables.remember(&flow.key, flow.state, flow.until);
    }
}

/// Stops tracking flows, if they are tracked: no ruleset that needs them may be in force.
///
/// # Errors
///
/// A program cannot be replaced or a pin not be removed.
pub fn end(places: &InstancePaths, maps: &Maps, lock: &Lock) -> Result<()> {
    let directory = flows::directory(&places.pins());
    let all = [
        beside(&directory, "new"),
        beside(&directory, "old"),
        directory,
    ];
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

/// A directory that is on its way to the place of another, or away from it. A dot cannot stand in a name
/// in bpffs.
fn beside(directory: &Path, what: &str) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(format!("~{what}"));
    name.into()
}

fn remove_tree(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
