//! A change that waits to be confirmed is kept, or undone.

use anyhow::{Result, anyhow, bail};

use super::{Control, Event};
use crate::{
    change::Change,
    confirm,
    error::Help as _,
    instance::Writer,
    unconfirmed::{self, Status, UnconfirmedChange},
};

impl Control {
    /// Keeps the change that waits; returns its generation.
    ///
    /// # Errors
    ///
    /// None waits, or its time is over and it is undone.
    pub fn confirm(&self) -> Result<u64> {
        let writer = self.open_locked()?;
        let unconfirmed = waiting(&writer)?;
        match unconfirmed.status(&writer.maps) {
            Status::Waiting(_) => {
                confirm::confirm(&writer)?;
                if let Some(event) = self.keep_in_force(&writer) {
                    self.events.tell(event);
                }
                Ok(unconfirmed.generation)
            }
            Status::Overdue => {
                for (what, help) in confirm::undo(&writer, &unconfirmed)?.warnings {
                    self.events.warn(what, Some(help));
                }
                too_late(&unconfirmed, &writer)
            }
            Status::Undone | Status::Void => too_late(&unconfirmed, &writer),
        }
    }

    /// Undoes the change that waits, or whose time is over: the rules before it are in force again.
    ///
    /// # Errors
    ///
    /// None waits, it is undone already, or the rules before it cannot be put in force.
    pub fn undo(&self) -> Result<Change> {
        let writer = self.open_locked()?;
        let unconfirmed = waiting(&writer)?;
        if unconfirmed.status(&writer.maps) == Status::Undone {
            bail!("generation {} is undone already", unconfirmed.generation);
        }
        let change = confirm::undo(&writer, &unconfirmed)?;
        // What is undone is undone, whether that can be written or not.
        if let Err(error) = unconfirmed::discard(writer.lock()) {
            let command = self.command();
            let help = format!(
                "until the next change, {command} status says that it was not confirmed in time"
            );
            self.events.tell(Event::Warning {
                what: format!("{error:#}"),
                help: Some(help),
            });
        }
        Ok(change)
    }
}

/// The change that is on record, unless it has nothing to do with what is in force.
fn waiting(writer: &Writer) -> Result<UnconfirmedChange> {
    let found = UnconfirmedChange::read(&writer.paths)?;
    if let Some(unconfirmed) = found {
        if unconfirmed.status(&writer.maps) != Status::Void {
            return Ok(unconfirmed);
        }
        unconfirmed::discard(writer.lock())?;
    }
    Err(anyhow!("no change waits to be confirmed"))
        .help(|| "apply, add and remove make one with --confirm 60s".into())
}

fn too_late<T>(unconfirmed: &UnconfirmedChange, writer: &Writer) -> Result<T> {
    Err(anyhow!(
        "generation {} was not confirmed in time: the rules before it are in force again, as generation {}",
        unconfirmed.generation,
        writer.maps.generation().0
    ))
    .help(|| "apply it again, with more time".into())
}
