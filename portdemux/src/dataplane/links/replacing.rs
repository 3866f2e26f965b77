//! Programs on interfaces take the place of others.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::MapInfo,
    programs::{ProgramError, loaded_programs},
};
use portdemux_common::capacity::MAX_INTERFACES;

use super::{
    load,
    loading::{all_verified, received},
    open_link,
    refusing::os_error,
};
use crate::{
    dataplane::{egress, refused},
    instance::{
        Instance, InstancePaths, Writer,
        pinned::{pinned, program_id},
    },
    interface,
    maps::{Maps, RULESETS, tables::TABLES, text},
};

/// The programs in the kernel that use a map.
pub(in crate::dataplane) fn programs_with(map: u32) -> Vec<u32> {
    loaded_programs()
        .flatten()
        .filter(|program| {
            let maps = program.map_ids().ok().flatten();
            maps.is_some_and(|maps| maps.contains(&map))
        })
        .map(|program| program.id())
        .collect()
}

/// Whether the programs on all interfaces use a map, and each has one beside it that sees what is sent.
pub(in crate::dataplane) fn all_use(paths: &InstancePaths, map: u32) -> Result<bool> {
    let using = programs_with(map);
    let present = interface::list()?;
    Ok(pinned(paths)?
        .iter()
        .filter(|link| link.carrier(&present).is_some())
        .all(|link| {
            let uses = link.program.is_some_and(|program| using.contains(&program));
            uses && (paths.egress(link.slot).exists() || !egress::has_links())
        }))
}

/// Replaces the programs on all interfaces by those that the instance needs: with or without flows.
///
/// Each is replaced in one step, and none is missing at any moment.
///
/// # Errors
///
/// The kernel refuses one, before any is replaced; or it does not exchange one, and those before it are replaced.
pub(in crate::dataplane) fn replace_all(writer: &Writer) -> Result<()> {
    let tracks = writer.maps.shape().is_some();
    let present = interface::list()?;
    let links = pinned(&writer.paths)?;
    // Of an interface that is gone only the link is left.
    let carriers: Vec<(usize, &str)> = links
        .iter()
        .filter_map(|link| Some((link.slot, link.carrier(&present)?.name.as_str())))
        .collect();
    // Verified before any is exchanged: until all are, they may look at different tables.
    let programs = all_verified(&writer.maps, carriers.iter().map(|(slot, _)| *slot))?;
    for ((slot, mut object), (_, name)) in programs.into_iter().zip(carriers) {
        let link = open_link(&writer.paths.link(slot))?;
        if tracks {
            egress::attach(&writer.paths, &mut object, slot, name)?;
        }
        received(&mut object, tracks)?
            .attach_to_link(link)
            .with_context(|| format!("replace the program on {name}"))?;
    }
    Ok(())
}

/// Replaces the programs that do not use the map of tables that is pinned beside their links, each in
/// one step; returns the slots of their interfaces. What sees packets on the way out uses no tables.
///
/// # Errors
///
/// The kernel refuses the program.
pub(in crate::dataplane) fn renew(maps: &Maps) -> Result<Vec<usize>> {
    let (pins, shape) = (&maps.directory, maps.shape());
    let map = MapInfo::from_pin(pins.join(TABLES))
        .with_context(|| format!("open {}", pins.join(TABLES).display()))?;
    let using = programs_with(map.id());
    let mut renewed = Vec::new();
    for slot in 0..MAX_INTERFACES {
        let pin = pins.join(format!("link{slot}"));
        // Where no link is, no packet meets a program.
        let Some(program) = program_id(&pin)? else {
            continue;
        };
        if using.contains(&program) {
            continue;
        }
        let mut object = load(maps, slot, shape)?;
        let program = received(&mut object, shape.is_some())?;
        refused::load("the program", || program.load())?;
        match program.attach_to_link(open_link(&pin)?) {
            Err(error) if os_error(&error) != Some(libc::ENOLINK) => {
                return Err(error).context("replace the program on an interface");
            }
            Ok(_) | Err(_) => renewed.push(slot),
        }
    }
    Ok(renewed)
}

/// Loads the programs for the interfaces that an instance is attached to, with other maps; each by the slot of its
/// interface.
///
/// # Errors
///
/// The kernel refuses one.
pub(in crate::dataplane) fn loaded(
    paths: &InstancePaths,
    maps: &Maps,
) -> Result<Vec<(usize, Ebpf)>> {
    let links = pinned(paths)?;
    all_verified(maps, links.iter().map(|link| link.slot))
}

/// Replaces the programs of those interfaces whose programs use other maps than these.
///
/// # Errors
///
/// The kernel refuses one.
pub(in crate::dataplane) fn outdated(instance: &Instance) -> Result<Vec<(usize, Ebpf)>> {
    let pin = instance.maps.directory.join(RULESETS);
    let map = MapInfo::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
    let using = programs_with(map.id());
    let is_current = |program: Option<u32>| program.is_some_and(|id| using.contains(&id));
    let needs_sender = instance.maps.shape().is_some() && egress::has_links();
    let mut outdated = Vec::new();
    for link in pinned(&instance.paths)? {
        let sender = || program_id(&instance.paths.egress(link.slot));
        if !is_current(link.program) || needs_sender && !is_current(sender()?) {
            outdated.push(link.slot);
        }
    }
    all_verified(&instance.maps, outdated)
}

/// Gives programs that are loaded to the links of their slots, each in one step.
///
/// # Errors
///
/// The kernel refuses one; those before it are replaced.
pub(in crate::dataplane) fn exchange(
    instance: &Instance,
    programs: Vec<(usize, Ebpf)>,
) -> Result<()> {
    let tracks = instance.maps.shape().is_some();
    let present = interface::list()?;
    let links = pinned(&instance.paths)?;
    for (slot, mut object) in programs {
        let link = links.iter().find(|link| link.slot == slot);
        let carrier = link.and_then(|link| link.carrier(&present));
        let known = text(&instance.maps.interface(slot).name);
        let name = carrier.map_or(known.as_str(), |carrier| &carrier.name);
        // Of an interface that is gone only the link is left.
        let is_gone = |error: &ProgramError| os_error(error) == Some(libc::ENOLINK);
        let program = received(&mut object, tracks)?;
        match program.attach_to_link(open_link(&instance.paths.link(slot))?) {
            Err(error) if is_gone(&error) => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("replace the program on {name}"));
            }
            Ok(_) => instance.maps.note_version(slot),
        }
        if tracks {
            egress::attach(&instance.paths, &mut object, slot, name)?;
        }
    }
    Ok(())
}
