//! A change that is undone by itself unless somebody confirms it.
//!
//! What waits stands in a file among the instance's records, written before the new ruleset is put in
//! force: with the generation that the change leads to, the time at which it is undone and the hash of the text
//! that is put back then, which has a record of its own by that time. Whatever is killed after that, either that
//! generation is not in force, and the file means nothing, or it is, and somebody will undo it: the [`guardian`], or
//! the next command that changes something. Undoing it writes nothing: the generation that follows, with the text
//! of before, says that it was undone. Confirming a change is removing the file.

mod clock;
pub mod guardian;
mod tries;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use portdemux_common::{
    ruleset::{Header, RulesetImage},
    state::Generation,
};
use serde::{Deserialize, Serialize};
pub use tries::Tries;

use crate::{
    bounded,
    change::{
        self, Change,
        transaction::{self, Feature, if_possible},
    },
    dataplane::{maps::Maps, pins::unpin},
    error::{Help as _, Unavailable, Warning},
    instance::{Instance, InstancePaths, Lock, Writer},
    records::{Kept, Record, Records, TextHash},
};

/// A change that waits for its confirmation, or has been undone without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedChange {
    /// The generation that the change leads to.
    pub generation: u64,
    /// How long there is to confirm it.
    pub within: Duration,
    text_hash: TextHash,
    /// When it is undone, as time since the kernel started.
    deadline: Duration,
    /// Which run of the kernel that is.
    boot: String,
    before: Before,
}

/// The text that was in force before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Before {
    /// It has a record.
    Kept(TextHash),
    /// It stands here, as older builds wrote it.
    Here(Record),
}

impl Before {
    fn hash(&self) -> TextHash {
        match self {
            Self::Kept(hash) => *hash,
            Self::Here(record) => record.hash(),
        }
    }
}

/// What waits, as it stands at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is in force, and undone after this time.
    Waits(Duration),
    /// It is in force although its time is over.
    Overdue,
    /// It was undone, and what was put back is in force.
    Undone,
    /// It never came to be, or was followed by another change.
    Void,
}

impl UnconfirmedChange {
    /// What waits in an instance.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn read(paths: &InstancePaths) -> Result<Option<Self>> {
        let path = path(paths);
        let text = match bounded::kept(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("read {}", path.display()))?,
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("understand {}", path.display()))
            .help(|| "remove it: the change that it is about then stays".into())
    }

    /// How it stands with it, given what is in force.
    #[must_use]
    pub fn standing(&self, maps: &Maps) -> Standing {
        if clock::boot().is_ok_and(|boot| boot != self.boot) {
            return Standing::Void;
        }
        let Header {
            generation,
            text_hash,
            ..
        } = maps.header();
        if (generation, text_hash) == (self.generation, self.text_hash) {
            return match self.left() {
                Some(left) => Standing::Waits(left),
                None => Standing::Overdue,
            };
        }
        // Nothing else can have followed it while it waited.
        if (generation, text_hash) == (self.generation + 1, self.before.hash()) {
            return Standing::Undone;
        }
        Standing::Void
    }

    /// How often it was tried in vain to undo it.
    #[must_use]
    pub fn tries(&self, paths: &InstancePaths) -> Tries {
        Tries::read(paths)
    }

    /// The time that is left; none if it is over.
    fn left(&self) -> Option<Duration> {
        let left = self.deadline.saturating_sub(clock::now());
        (!left.is_zero()).then_some(left)
    }

    /// Writes it down, in the place of what was there.
    fn write(&self, paths: &InstancePaths) -> Result<()> {
        let path = path(paths);
        // Under another name first: it is there whole or not at all.
        let unfinished = path.with_extension("new");
        let write = || -> io::Result<()> {
            bounded::create(&unfinished)?.write_all(&serde_json::to_vec(self)?)?;
            Tries::reserve(paths)?;
            fs::rename(&unfinished, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Puts back what was in force before. The change stays on record, as one that was undone.
    ///
    /// # Errors
    ///
    /// Its record cannot be read, or the kernel refuses; the change stays in force and on record.
    pub fn undo(&self, writer: &Writer) -> Result<Change> {
        if let Before::Here(record) = &self.before {
            change::keep_record(record, writer.lock())?;
        }
        change::return_to(writer, &self.before.hash())
    }
}

/// Sees to it that the change to `new`, which is about to be made, is undone unless it is confirmed: then the text of
/// the hash `before` is put back, which has a record.
///
/// # Errors
///
/// Something cannot be written or no process started; nothing waits.
pub(crate) fn begin(
    writer: &Writer,
    within: Duration,
    before: TextHash,
    new: &RulesetImage,
) -> Result<()> {
    let unconfirmed = UnconfirmedChange {
        generation: new.header.generation,
        within,
        text_hash: new.header.text_hash,
        deadline: clock::now() + within,
        boot: clock::boot()?,
        before: Before::Kept(before),
    };
    let begun = unconfirmed.write(&writer.paths).and_then(|()| {
        guardian::start(writer.lock())
            .context("start the process that undoes the change")
            .help(|| "nothing was changed".into())
    });
    if begun.is_err() {
        discard(writer.lock())?;
    }
    begun
}

/// Forgets what waits: it is confirmed, void, or was undone.
///
/// # Errors
///
/// The file cannot be removed.
pub fn discard(lock: &Lock) -> Result<()> {
    unpin(&path(&lock.paths))?;
    // Without the other file it means nothing.
    let _: Result<()> = unpin(&tries::path(&lock.paths));
    Ok(())
}

/// Starts a guardian of this binary for what waits; one of another binary ends by itself, as it is told from another
/// change by the file.
///
/// # Errors
///
/// The record cannot be read or written, or the guardian does not start.
pub(crate) fn hand_over(writer: &Writer) -> Result<()> {
    let Some(mut unconfirmed) = UnconfirmedChange::read(&writer.paths)? else {
        return Ok(());
    };
    match unconfirmed.standing(&writer.maps) {
        Standing::Waits(_) | Standing::Overdue => {
            if let Before::Here(record) = &unconfirmed.before {
                change::keep_record(record, writer.lock())?;
                let hash = record.hash();
                unconfirmed.before = Before::Kept(hash);
            }
            unconfirmed.write(&writer.paths)?;
            guardian::start(writer.lock()).context("start the process that undoes the change")
        }
        Standing::Undone | Standing::Void => Ok(()),
    }
}

/// Whether a change should have been undone, and cannot be, as the text of before is lost: then a whole file may follow
/// it.
///
/// # Errors
///
/// That cannot be seen.
pub(crate) fn is_hopeless(instance: &Instance) -> Result<bool> {
    let Some(unconfirmed) = UnconfirmedChange::read(&instance.paths)? else {
        return Ok(false);
    };
    if unconfirmed.standing(&instance.maps) != Standing::Overdue {
        return Ok(false);
    }
    let Before::Kept(hash) = &unconfirmed.before else {
        return Ok(false);
    };
    let before = Records::new(instance.paths.records()).read(hash)?;
    Ok(matches!(before, Kept::Lost(_)))
}

/// The confirmation of a change: then it is one as any other.
struct Confirmed<'a> {
    writer: &'a Writer,
}

impl Feature for Confirmed<'_> {
    fn commit(&mut self) -> Result<()> {
        discard(self.writer.lock())
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
    match unconfirmed.standing(&writer.maps) {
        Standing::Waits(_) | Standing::Undone => Ok(None),
        Standing::Void => discard(writer.lock()).map(|()| None),
        Standing::Overdue => {
            let generation = unconfirmed.generation;
            let change = unconfirmed
                .undo(writer)
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

fn path(paths: &InstancePaths) -> PathBuf {
    paths.records().join("pending.json")
}
