//! The records of a change: the texts that are or may come in force, and whether the change waits to be confirmed.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use portdemux_common::ruleset::RulesetImage;

use super::{
    WrittenRules,
    transaction::{Feature, if_possible},
    written,
};
use crate::{
    error::Unavailable,
    instance::Writer,
    records::{Kept, Record, Records, TextHash},
    rules::Ruleset,
    unconfirmed,
};

/// The text that was in force before, changes of its sets included.
pub(super) struct TextBefore {
    pub(super) hash: TextHash,
    record: Record,
    ruleset: Ruleset,
}

impl TextBefore {
    /// That of the ruleset in force.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn in_force(writer: &Writer) -> Result<Self> {
        let WrittenRules { in_force, text } = written(writer)?;
        let record = Record {
            source: in_force.source,
            text,
        };
        Ok(Self {
            hash: record.hash(),
            record,
            ruleset: in_force.ruleset,
        })
    }
}

/// The records of texts. That of the one before is there too where it may return, so that nothing has to be written
/// then.
pub(super) struct Texts<'a> {
    pub(super) writer: &'a Writer,
    /// The new one; none if it has a record.
    pub(super) new: Option<(&'a Record, &'a Ruleset)>,
    pub(super) hash: TextHash,
    pub(super) before: Option<&'a TextBefore>,
    /// Whether the one before stays when the change is made.
    pub(super) is_before_kept: bool,
}

impl Texts<'_> {
    fn records(&self) -> Records {
        Records::new(self.writer.paths.records())
    }
}

impl Feature for Texts<'_> {
    fn prepare(&mut self, _unavailable: &mut Unavailable<'_>) -> Result<()> {
        let (records, lock) = (self.records(), self.writer.lock());
        if let Some(before) = self.before {
            let is_kept =
                matches!(records.read(&before.hash)?, Kept::Whole(kept) if kept == before.record);
            if !is_kept {
                records.write(&before.record, &before.hash, &before.ruleset, lock)?;
            }
        }
        match self.new {
            Some((record, ruleset)) => records.write(record, &self.hash, ruleset, lock),
            None => Ok(()),
        }
    }

    fn roll_back(&mut self) -> Result<()> {
        if self.new.is_none() {
            // Nothing was written, and the text that is returned to is needed for the next try.
            return Ok(());
        }
        let in_force = self.writer.maps.header().text_hash;
        if_possible(|| {
            self.records()
                .sweep(&[in_force], self.writer.lock())
                .map(drop)
        });
        Ok(())
    }

    fn retire(&mut self) -> Result<()> {
        let (records, lock) = (self.records(), self.writer.lock());
        let before = self.before.filter(|_| self.is_before_kept);
        let kept: Vec<TextHash> = before
            .map(|before| before.hash)
            .into_iter()
            .chain([self.hash])
            .collect();
        let swept = records
            .sweep(&kept, lock)
            .context("the records of the rules before are still there");
        let changes = records
            .sweep_changes(self.writer.maps.generation(), lock)
            .context("the record of changes of sets is still there");
        match (swept, changes) {
            (Err(swept), Err(changes)) => Err(anyhow!("{swept:#}; {changes:#}")),
            (swept, changes) => swept.and(changes),
        }
    }
}

/// The record of the unconfirmed change.
pub(super) struct Confirmation<'a> {
    pub(super) writer: &'a Writer,
    pub(super) new: &'a RulesetImage,
    /// How long it waits, and for which text to return.
    pub(super) waits: Option<(Duration, TextHash)>,
}

impl Feature for Confirmation<'_> {
    fn prepare(&mut self, _unavailable: &mut Unavailable<'_>) -> Result<()> {
        match self.waits {
            Some((within, before)) => unconfirmed::begin(self.writer, within, before, self.new),
            // Whatever waited was for a generation that is in force no more, or never was. It goes first, or the
            // change to come could be taken for it.
            None => unconfirmed::discard(self.writer.lock()),
        }
    }

    fn roll_back(&mut self) -> Result<()> {
        if self.waits.is_some() {
            // It would mean nothing if it stayed: the generation that it is about is not in force.
            if_possible(|| unconfirmed::discard(self.writer.lock()));
        }
        Ok(())
    }
}
