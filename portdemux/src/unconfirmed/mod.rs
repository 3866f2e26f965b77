//! A change that is undone by itself unless somebody confirms it.
//!
//! What waits stands in a file among the instance's records, written before the new ruleset is put in
//! force: with the generation that the change leads to, the time at which it is undone and the hash of the text
//! that is put back then, which has a record of its own by that time. Whatever is killed after that, either that
//! generation is not in force, and the file means nothing, or it is, and somebody will undo it: the [guardian](crate::confirm::guardian), or
//! the next command that changes something. Undoing it writes nothing: the generation that follows, with the text
//! of before, says that it was undone. Confirming a change is removing the file.

pub(crate) mod clock;
mod tries;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use portdemux_common::ruleset::{Header, RulesetImage};
use serde::{Deserialize, Serialize};
pub use tries::Tries;

use crate::{
    background, bounded,
    error::Help as _,
    instance::{Instance, InstancePaths, Lock, Writer, is_held},
    maps::{Maps, pins::unpin},
    records::{Kept, Record, Records, TextHash},
    rules::{duration::seconds, file},
};

/// The verb that a guardian is started with.
pub const GUARD: &str = "guard";

/// A change that waits for its confirmation, or has been undone without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedChange {
    /// The generation that the change leads to.
    pub generation: u64,
    /// How long there is to confirm it.
    pub within: Duration,
    text_hash: TextHash,
    /// When it is undone, as time since the kernel started.
    pub(crate) deadline: Duration,
    /// Which run of the kernel that is.
    boot: String,
    before: ReturnPoint,
}

/// The text that was in force before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum ReturnPoint {
    /// It has a record.
    Kept(TextHash),
    /// It stands here, as older builds wrote it.
    Here(Record),
}

impl ReturnPoint {
    fn hash(&self) -> TextHash {
        match self {
            Self::Kept(hash) => *hash,
            Self::Here(record) => record.hash(),
        }
    }
}

/// What waits, as it stands at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is in force, and undone after this time.
    Waiting(Duration),
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
    pub fn status(&self, maps: &Maps) -> Status {
        if clock::boot().is_ok_and(|boot| boot != self.boot) {
            return Status::Void;
        }
        let Header {
            generation,
            text_hash,
            ..
        } = maps.header();
        if (generation, text_hash) == (self.generation, self.text_hash) {
            return match self.left() {
                Some(left) => Status::Waiting(left),
                None => Status::Overdue,
            };
        }
        // Nothing else can have followed it while it waited.
        if (generation, text_hash) == (self.generation + 1, self.before.hash()) {
            return Status::Undone;
        }
        Status::Void
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

    /// The hash of the text before, which has a record from here on.
    ///
    /// # Errors
    ///
    /// The text stands here, as older builds wrote it, and cannot be understood or recorded.
    pub(crate) fn before(&self, lock: &Lock) -> Result<TextHash> {
        let hash = self.before.hash();
        if let ReturnPoint::Here(record) = &self.before {
            let ruleset = file::parse("the rules before", &record.text)
                .context("understand the text of the rules before")?;
            Records::new(lock.paths.records()).write(record, &hash, &ruleset, lock)?;
        }
        Ok(hash)
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
        before: ReturnPoint::Kept(before),
    };
    let begun = unconfirmed
        .write(&writer.paths)
        .and_then(|()| start_guardian(&writer.paths).help(|| "nothing was changed".into()));
    if begun.is_err() {
        discard(writer.lock())?;
    }
    begun
}

/// Starts a guardian of what waits in an instance, and waits until it stands by itself.
fn start_guardian(paths: &InstancePaths) -> Result<()> {
    background::start(paths, &[GUARD]).context("start the process that undoes the change")
}

/// Whether a guardian stands by.
///
/// # Errors
///
/// That cannot be seen.
pub fn is_guarded(paths: &InstancePaths) -> io::Result<bool> {
    is_held(&path(paths))
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
    match unconfirmed.status(&writer.maps) {
        Status::Waiting(_) | Status::Overdue => {
            unconfirmed.before = ReturnPoint::Kept(unconfirmed.before(writer.lock())?);
            unconfirmed.write(&writer.paths)?;
            start_guardian(&writer.paths)
        }
        Status::Undone | Status::Void => Ok(()),
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
    if unconfirmed.status(&instance.maps) != Status::Overdue {
        return Ok(false);
    }
    let ReturnPoint::Kept(hash) = &unconfirmed.before else {
        return Ok(false);
    };
    let before = Records::new(instance.paths.records()).read(hash)?;
    Ok(matches!(before, Kept::Lost(_)))
}

/// Refuses a change while another waits to be confirmed.
///
/// # Errors
///
/// One does.
pub(crate) fn refuse_while_one_waits(instance: &Instance) -> Result<()> {
    let Some(unconfirmed) = UnconfirmedChange::read(&instance.paths)? else {
        return Ok(());
    };
    let left = match unconfirmed.status(&instance.maps) {
        Status::Waiting(left) => left,
        Status::Overdue => Duration::ZERO,
        Status::Undone | Status::Void => return Ok(()),
    };
    Err(anyhow::anyhow!(
        "generation {} waits to be confirmed ({} left)",
        unconfirmed.generation,
        seconds(left)
    ))
    .help(|| {
        let command = instance.paths.command();
        format!(
            "{command} confirm keeps it, {command} confirm --undo returns to the rules before; nothing was changed"
        )
    })
}

/// Where the record of what waits is.
pub(crate) fn path(paths: &InstancePaths) -> PathBuf {
    paths.records().join("pending.json")
}
