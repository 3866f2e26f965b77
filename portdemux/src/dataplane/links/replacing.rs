//! Programs on interfaces take the place of others.

use anyhow::{Context as _, Result};
use aya::{maps::MapInfo, programs::loaded_programs};
use portdemux_common::counters::MAX_INTERFACES;

use super::{load, loading::received, open_link, pinned, program_id, refusing::os_error};
use crate::{
    dataplane::{
        maps::Maps,
        pins::{Lock, Places},
        sent,
        sources::SOURCES,
    },
    interface,
};

const ENOLINK: i32 = 67;

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
pub(in crate::dataplane) fn all_use(places: &Places, map: u32) -> Result<bool> {
    let using = programs_with(map);
    let present = interface::list()?;
    Ok(pinned(places)
        .iter()
        .filter(|link| link.carrier(&present).is_some())
        .all(|link| {
            let uses = link.program.is_some_and(|program| using.contains(&program));
            uses && (places.sent(link.place).exists() || !sent::has_links())
        }))
}

/// Replaces the programs on all interfaces by those that the instance needs: with or without flows.
///
/// Each is replaced in one step, and none is missing at any moment.
///
/// # Errors
///
/// The kernel refuses one; those before it are replaced.
pub(in crate::dataplane) fn replace_all(places: &Places, maps: &Maps, _lock: &Lock) -> Result<()> {
    let shape = maps.shape();
    let present = interface::list()?;
    for link in pinned(places) {
        // Of an interface that is gone only the link is left.
        let Some(name) = link.carrier(&present).map(|carrier| &carrier.name) else {
            continue;
        };
        let place = link.place;
        let mut object = load(maps, place, shape)?;
        let pin = places.link(place);
        let link = open_link(&pin)?;
        // Verified before either is exchanged: until both are, they may look at different tables.
        received(&mut object, shape.is_some())?
            .load()
            .context("load the program into the kernel")?;
        if shape.is_some() {
            sent::attach(places, &mut object, place, name)?;
        }
        received(&mut object, shape.is_some())?
            .attach_to_link(link)
            .with_context(|| format!("replace the program on {name}"))?;
    }
    Ok(())
}

/// Replaces the programs that do not use the map of sources that is pinned beside their links, each in
/// one step; returns the places of their interfaces. What sees packets on the way out uses no sources.
///
/// # Errors
///
/// The kernel refuses the program.
pub(in crate::dataplane) fn renew(maps: &Maps) -> Result<Vec<usize>> {
    let (pins, shape) = (&maps.directory, maps.shape());
    let map = MapInfo::from_pin(pins.join(SOURCES))
        .with_context(|| format!("open {}", pins.join(SOURCES).display()))?;
    let using = programs_with(map.id());
    let mut renewed = Vec::new();
    for place in 0..MAX_INTERFACES {
        let pin = pins.join(format!("link{place}"));
        // A link that cannot be read is one whose interface is gone: no packet meets its program.
        let Some(program) = pin.exists().then(|| program_id(&pin)).flatten() else {
            continue;
        };
        if using.contains(&program) {
            continue;
        }
        let mut object = load(maps, place, shape)?;
        let program = received(&mut object, shape.is_some())?;
        program.load().context("load the program into the kernel")?;
        match program.attach_to_link(open_link(&pin)?) {
            Err(error) if os_error(&error) != Some(ENOLINK) => {
                return Err(error).context("replace the program on an interface");
            }
            Ok(_) | Err(_) => renewed.push(place),
        }
    }
    Ok(renewed)
}
