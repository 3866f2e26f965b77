//! Destinations that come back, and what is to be known of those that a ruleset names.

mod advice;

use anyhow::Result;

pub use self::advice::{check, warnings};
use crate::{
    error::Unavailable,
    instance::Writer,
    maps::{
        destinations::{Reachability, states_of},
        targets::Needed,
    },
    rules::Destination,
};

/// Puts what has returned back to the slots of destinations of the ruleset in force, and says what that
/// was: interfaces, as they are written in rules. Interfaces whose MAC address is another get that.
///
/// # Errors
///
/// The kernel refuses, or does not list its interfaces.
pub fn reconcile(writer: &Writer) -> Result<Vec<Destination>> {
    let needed = writer.maps.needed_in_force();
    writer.maps.targets.sweep(&needed)?;
    let states = states_of(&writer.maps, &needed)?.into_iter();
    let returned = states.filter(|reached| reached.state == Reachability::Returned);
    let returned = returned.map(|reached| reached.destination).collect();
    let is_interface = |destination: &Destination| matches!(destination, Destination::Interface(_));
    let mut refilled = needed.clone();
    refilled
        .destinations
        .retain(|_, destination| is_interface(destination));
    writer
        .maps
        .fill_targets(&refilled, &mut Unavailable::Refused)?;
    writer.maps.know_targets(&needed, &Needed::default())?;
    Ok(returned)
}
