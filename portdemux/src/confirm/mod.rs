//! What becomes of a change that waits to be confirmed: it is confirmed, or undone.

pub mod guardian;

use anyhow::{Context as _, Result};
use portdemux_common::ids::Generation;

use crate::{
    change::{
        self, Change,
        transaction::{self, Feature, if_possible},
    },
    error::{Unavailable, Warning},
    instance::Writer,
    records::Records,
    unconfirmed::{self, Status, UnconfirmedChange},
};

/// The confirmation of a change: then it is one as any other.
struct Confirmed<'a> {
    writer: &'a Writer,
}

impl Feature for Confirmed<'_> {
    fn commit(&mut self) -> Result<()> {
        unconfirmed::discard(self.writer.lock())
    }

    fn retire(&mut self) -> Result<()> {
        // The rules before were kept for the way back; what stays of them, the next change removes.
        let records = Records::new(self.writer.paths.records());
        let in_force = self.writer.maps.header().text_hash;
        if_possible(|| records.sweep(&[in_force], self.writer.lock()).map(drop));
        Ok(())
    }
}

/// Confirms the change that waits.
///
/// # Errors
///
/// Its record cannot be removed: it waits.
pub fn confirm(writer: &Writer) -> Result<()> {
    let mut confirmed = Confirmed { writer };
    transaction::run(&mut [&mut confirmed], &mut Unavailable::Refused).map(drop)
}

/// Puts back what was in force before a change. The change stays on record, as one that was undone.
///
/// # Errors
///
/// The text before cannot be read, or the kernel refuses; the change stays in force and on record.
pub fn undo(writer: &Writer, unconfirmed: &UnconfirmedChange) -> Result<Change> {
    let before = unconfirmed.before(writer.lock())?;
    change::return_to(writer, &before)
}

/// A change that was not confirmed in time, and the generation that undid it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// The change.
    pub generation: u64,
    /// What is in force since.
    pub by: Generation,
    /// What could not be had of what the rules name that are in force again.
    pub warnings: Vec<Warning>,
}

/// Undoes a change that should have been undone already.
///
/// # Errors
///
/// Something cannot be read or written.
pub fn settle(writer: &Writer) -> Result<Option<Undone>> {
    let Some(unconfirmed) = UnconfirmedChange::read(&writer.paths)? else {
        return Ok(None);
    };
    match unconfirmed.status(&writer.maps) {
        Status::Waiting(_) | Status::Undone => Ok(None),
        Status::Void => unconfirmed::discard(writer.lock()).map(|()| None),
        Status::Overdue => {
            let generation = unconfirmed.generation;
            let change = undo(writer, &unconfirmed)
                .context("undo a change that was not confirmed in time")?;
            let by = change
                .generation
                .unwrap_or_else(|| writer.maps.generation());
            let warnings = change.warnings;
            Ok(Some(Undone {
                generation,
                by,
                warnings,
            }))
        }
    }
}
