//! The links that an instance has pinned, one for each interface that its program is on.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::links::{FdLink, PinnedLink};
use portdemux_common::capacity::MAX_INTERFACES;

use super::InstancePaths;
use crate::{
    interface::{self, Interface},
    maps::{damage::is_damage, trusted::is_there},
};

/// A link as it is pinned.
#[derive(Debug)]
pub struct Pinned {
    /// The interface's slot.
    pub slot: usize,
    /// The id of the program that runs, if the kernel says.
    pub program: Option<u32>,
}

impl Pinned {
    /// The interface that the program runs on, whatever it is called today.
    #[must_use]
    pub fn carrier<'a>(&self, present: &'a [Interface]) -> Option<&'a Interface> {
        let id = self.program?;
        present
            .iter()
            .find(|interface| interface.programs.iter().any(|program| program.id == id))
    }
}

/// The programs that an instance whose removal was interrupted still has, and what the interfaces are called that
/// they run on, where those are in this network namespace.
///
/// # Errors
///
/// The links cannot be asked, or the kernel does not list its interfaces.
pub fn left_in_trash(paths: &InstancePaths) -> Result<Vec<(u32, Option<String>)>> {
    let links = paths.links_in_trash();
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let present = interface::list()?;
    let mut left = Vec::new();
    for (slot, pin) in links.iter().enumerate() {
        let link = Pinned {
            slot,
            program: program_id(pin)?,
        };
        let carrier = link.carrier(&present).map(|carrier| carrier.name.clone());
        left.extend(link.program.map(|program| (program, carrier)));
    }
    Ok(left)
}

/// The links that are pinned.
///
/// # Errors
///
/// They cannot be asked for.
pub fn pinned(paths: &InstancePaths) -> Result<Vec<Pinned>> {
    let mut pinned = Vec::new();
    for slot in 0..MAX_INTERFACES {
        let pin = paths.link(slot);
        if is_there(&pin)? {
            let program = program_id(&pin)?;
            pinned.push(Pinned { slot, program });
        }
    }
    Ok(pinned)
}

/// The program of the link at `pin`; none if there is no link.
pub(crate) fn program_id(pin: &Path) -> Result<Option<u32>> {
    let look = || -> Result<u32> {
        let link = PinnedLink::from_pin(pin)?;
        Ok(FdLink::from(link).info()?.program_id())
    };
    match look() {
        Ok(program) => Ok(Some(program)),
        Err(error) if is_damage(&error) || pin.is_dir() => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look at the link {}", pin.display())),
    }
}
