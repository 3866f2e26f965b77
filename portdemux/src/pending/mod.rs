//! A change that is undone by itself unless somebody confirms it.
//!
//! What waits stands in a file among the instance's records, written before the new ruleset is put in
//! force: with the generation that the change leads to, the time at which it is undone and the text that
//! is put back then. Whatever is killed after that, either that generation is not in force, and the file
//! means nothing, or it is, and somebody will undo it: the [`guardian`], or the next command that
//! changes something. Confirming a change is removing the file.

mod clock;
pub mod guardian;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use portdemux_common::state::Generation;
use serde::{Deserialize, Serialize};

use crate::{
    change::{self, Change, Request},
    dataplane::{
        maps::Maps,
        pins::{Lock, Places, unpin},
    },
    error::Help as _,
    records::{Record, TextHash},
    rules::file::Reading,
};

/// A change that waits for its confirmation, or has been undone without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The generation that the change leads to.
    pub generation: u64,
    /// How long there is to confirm it.
    pub within: Duration,
    text_hash: TextHash,
    /// When it is undone, as time since the kernel started.
    deadline: Duration,
    /// Which run of the kernel that is.
    boot: String,
    /// The generation that undid it.
    undone_by: Option<u64>,
    /// What was in force before.
    before: Record,
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

impl Pending {
    /// A change that leads to `generation`, from what `before` says.
    pub(crate) fn new(
        generation: u64,
        text_hash: TextHash,
        within: Duration,
        before: Record,
    ) -> Result<Self> {
        Ok(Self {
            generation,
            within,
            text_hash,
            deadline: clock::now() + within,
            boot: clock::boot()?,
            undone_by: None,
            before,
        })
    }

    /// What waits in an instance.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn read(places: &Places) -> Result<Option<Self>> {
        let path = path(places);
        let text = match fs::read_to_string(&path) {
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
        let generation = maps.generation().0;
        if clock::boot().is_ok_and(|boot| boot != self.boot) {
            return Standing::Void;
        }
        match self.undone_by {
            Some(undone_by) if undone_by == generation => Standing::Undone,
            Some(_) => Standing::Void,
            None if generation != self.generation || maps.header().text_hash != self.text_hash => {
                Standing::Void
            }
            None => match self.left() {
                Some(left) => Standing::Waits(left),
                None => Standing::Overdue,
            },
        }
    }

    /// The time that is left; none if it is over.
    fn left(&self) -> Option<Duration> {
        let left = self.deadline.saturating_sub(clock::now());
        (!left.is_zero()).then_some(left)
    }

    /// Writes it down, in the place of what was there.
    pub(crate) fn write(&self, places: &Places, _lock: &Lock) -> Result<()> {
        let path = path(places);
        // Under another name first: it is there whole or not at all.
        let unfinished = path.with_extension("new");
        let write = || -> io::Result<()> {
            File::create(&unfinished)?.write_all(&serde_json::to_vec(self)?)?;
            fs::rename(&unfinished, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Puts back what was in force before.
    ///
    /// # Errors
    ///
    /// Something cannot be written; the change stays in force and on record.
    pub fn undo(mut self, places: &Places, maps: &Maps, lock: &Lock) -> Result<Change> {
        let request = Request {
            text: self.before.text,
            source: self.before.source,
            name: "the rules before",
            reading: Reading::Known,
            dry_run: false,
            confirm: None,
        };
        let old = || {
            let in_force = change::in_force(places, maps).ok();
            in_force.map(|in_force| in_force.ruleset)
        };
        let change = change::make(places, maps, lock, old, request, |_| Ok(()))?;
        self.undone_by = change.generation.map(|generation| generation.0);
        self.before = Record::default();
        self.write(places, lock)?;
        Ok(change)
    }
}

/// Forgets what waits: it is confirmed, void, or was undone.
///
/// # Errors
///
/// The file cannot be removed.
pub fn forget(places: &Places, _lock: &Lock) -> Result<()> {
    unpin(&path(places))
}

/// Starts a guardian of this binary for what waits; one of another binary ends by itself, as it is told from another
/// change by the file.
///
/// # Errors
///
/// The record cannot be read or written, or the guardian does not start.
pub(crate) fn hand_over(places: &Places, maps: &Maps, lock: &Lock) -> Result<()> {
    let Some(pending) = Pending::read(places)? else {
        return Ok(());
    };
    match pending.standing(maps) {
        Standing::Waits(_) | Standing::Overdue => {
            pending.write(places, lock)?;
            guardian::start(places, lock).context("start the process that undoes the change")
        }
        Standing::Undone | Standing::Void => Ok(()),
    }
}

/// A change that was not confirmed in time, and the generation that undid it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undone {
    /// The change.
    pub generation: u64,
    /// What is in force since.
    pub by: Generation,
}

/// Undoes a change that should have been undone already.
///
/// # Errors
///
/// Something cannot be read or written.
pub fn settle(places: &Places, maps: &Maps, lock: &Lock) -> Result<Option<Undone>> {
    let Some(pending) = Pending::read(places)? else {
        return Ok(None);
    };
    match pending.standing(maps) {
        Standing::Waits(_) | Standing::Undone => Ok(None),
        Standing::Void => forget(places, lock).map(|()| None),
        Standing::Overdue => {
            let generation = pending.generation;
            let change = pending
                .undo(places, maps, lock)
                .context("undo a change that was not confirmed in time")?;
            let by = change.generation.unwrap_or_else(|| maps.generation());
            Ok(Some(Undone { generation, by }))
        }
    }
}

fn path(places: &Places) -> PathBuf {
    places.records().join("pending.json")
}
