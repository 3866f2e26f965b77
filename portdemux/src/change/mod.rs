//! The ruleset in force, and changes to it.

mod features;
mod make;
mod sets;
mod texts;
pub(crate) mod transaction;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
pub use make::{Change, Request, change};
pub(crate) use make::{change_and, return_to};
use portdemux_common::ids::Generation;

use crate::{
    bounded,
    clock::Clock,
    instance::{Instance, Writer},
    records::{Kept, Record, Records},
    recover,
    rules::{Ruleset, edit, file, source::MemberChange},
};

/// The ruleset in force.
#[derive(Debug, Default)]
pub struct InForce {
    /// Its generation.
    pub generation: Generation,
    /// The file its text was applied from, if it came from one and was not changed since.
    pub source: Option<PathBuf>,
    /// What its text says.
    pub ruleset: Ruleset,
    /// Why the text had to be rebuilt from the kernel, if it had to be.
    pub lost: Option<String>,
    /// The changes of sets since it was put in force; they are part of the text.
    pub changes: Vec<MemberChange>,
    /// Why the record of those changes is lost, if it is: then they are what the kernel says.
    pub changes_lost: Option<String>,
}

/// The ruleset in force and the text it came from.
#[derive(Debug, Default)]
pub struct WrittenRules {
    /// What the text says.
    pub in_force: InForce,
    /// The text.
    pub text: String,
}

/// Reads the ruleset in force; its text only if that is as good.
///
/// # Errors
///
/// As [`written`].
pub fn in_force(instance: &Instance) -> Result<InForce> {
    let records = Records::new(instance.paths.records());
    let header = instance.maps.header();
    let generation = Generation(header.generation);
    let known = match header.generation {
        0 => None,
        _ => records.ruleset(&header.text_hash)?,
    };
    if let Some((source, mut ruleset)) = known {
        let (changes, changes_lost) =
            sets::changes(&records, &instance.maps, generation, &ruleset)?;
        // Else a writer may have replaced the ruleset meanwhile.
        if instance.maps.generation() == generation {
            ruleset.change_members(&changes, Clock::now().unix);
            return Ok(InForce {
                generation,
                source,
                ruleset,
                lost: None,
                changes,
                changes_lost,
            });
        }
    }
    Ok(written(instance)?.in_force)
}

/// Reads the ruleset in force and its text.
///
/// If its record is lost, the text is rebuilt from the kernel. One that cannot be read is not lost.
///
/// # Errors
///
/// A record cannot be read, or the text not be understood.
pub fn written(instance: &Instance) -> Result<WrittenRules> {
    let records = Records::new(instance.paths.records());
    loop {
        let header = instance.maps.header();
        let generation = Generation(header.generation);
        if header.generation == 0 {
            return Ok(WrittenRules::default());
        }
        let (mut record, lost) = match records.read(&header.text_hash)? {
            Kept::Whole(record) => (record, None),
            Kept::Lost(why) => {
                let image = instance.maps.compiled();
                let text = recover::text(&image, &instance.maps.rule_names(&image), &Clock::now());
                (Record { source: None, text }, Some(why))
            }
        };
        let parse = |record: &Record| {
            file::parse(&name(record.source.as_deref()), &record.text)
                .context("understand the text of the ruleset in force")
        };
        let mut ruleset = parse(&record)?;
        // What is rebuilt has the changes that the kernel has.
        let (changes, changes_lost) = match &lost {
            None => sets::changes(&records, &instance.maps, generation, &ruleset)?,
            Some(_) => (Vec::new(), None),
        };
        // A writer may have replaced the ruleset and removed its record meanwhile.
        if instance.maps.generation() != generation {
            continue;
        }
        if !changes.is_empty() {
            let now = Clock::now().unix;
            record.text = edit::members("the ruleset in force", &record.text, &changes, now)?;
            ruleset = parse(&record)?;
        }
        return Ok(WrittenRules {
            in_force: InForce {
                generation,
                source: record.source,
                ruleset,
                lost,
                changes,
                changes_lost,
            },
            text: record.text,
        });
    }
}

/// Whether the file that a ruleset in force came from still says the same; none if it came from no file, or the
/// file cannot be read.
#[must_use]
pub fn is_in_sync(instance: &Instance, in_force: &InForce) -> Option<bool> {
    says_the_same(instance, in_force, in_force.source.as_ref()?)
}

/// Whether a file says the same as the ruleset in force, members of sets whose time is past left aside; none if it
/// cannot be read.
#[must_use]
pub fn says_the_same(instance: &Instance, in_force: &InForce, file: &Path) -> Option<bool> {
    let there = bounded::kept(file).ok()?;
    let header = instance.maps.header();
    let is_its_text = header.generation == in_force.generation.0
        && header.text_hash == Record::hash_of(&there)
        && in_force.changes.is_empty();
    let is_the_same = || {
        let now = Clock::now().unix;
        let same = |text: &str| edit::without_ended(text, now) == edit::without_ended(&there, now);
        written(instance).is_ok_and(|written| same(&written.text))
    };
    Some(is_its_text || is_the_same())
}

/// Notes that the ruleset in force stands in this file, to which it was written.
///
/// # Errors
///
/// Its record cannot be read or written.
pub fn came_from(writer: &Writer, file: &Path) -> Result<()> {
    let file = file
        .canonicalize()
        .with_context(|| format!("find {}", file.display()))?;
    Records::new(writer.paths.records()).name_source(
        &writer.maps.header().text_hash,
        file,
        writer.lock(),
    )
}

fn name(source: Option<&Path>) -> String {
    source.map_or_else(
        || "the ruleset in force".into(),
        |path| path.display().to_string(),
    )
}
