//! How another ruleset takes the place of the one in force.
//!
//! What a ruleset needs, its records and the ruleset itself are features of one transaction: an error means that
//! nothing was changed. What does not retire after it is a warning: the next change tries it again.

use std::{
    panic::resume_unwind,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use portdemux_common::ids::Generation;

use super::{
    features::{FlowTracking, RedirectDropCounting, RedirectTargets, RulesInForce, SocketSteering},
    in_force,
    texts::{Confirmation, TextBefore, Texts},
    transaction::{self, Feature},
};
use crate::{
    background::follower,
    clock::Clock,
    dataplane::destinations,
    error::{Help as _, Unavailable, Warning},
    image::{self, Compiled},
    instance::Writer,
    maps::{Maps, Prepared, mapped::catching},
    records::{Kept, Record, Records, TextHash},
    rules::{
        RulesError, Ruleset,
        file::{self, Reading},
        plan::Plan,
    },
    unconfirmed,
};

/// How many bytes a text has that takes longer to read than another thread to start.
const LONG: usize = 1 << 16;

/// What a change did.
#[derive(Debug)]
pub struct Change {
    /// How the rulesets differ.
    pub plan: Plan,
    /// The generation in force after it; none for a dry run.
    pub generation: Option<Generation>,
    /// How long it took.
    pub took: Duration,
    /// Something that a user should know about an earlier change.
    pub repaired: Option<String>,
    /// How long it waits for its confirmation, if it does.
    pub waits: Option<Duration>,
    /// What happens to packets that one may not expect, and what to do about it.
    pub warnings: Vec<Warning>,
}

/// What is to become of the ruleset in force.
#[derive(Debug)]
pub struct Request<'a> {
    /// The new text.
    pub text: String,
    /// The file it stands in, if it does.
    pub source: Option<PathBuf>,
    /// How to call it in errors.
    pub name: &'a str,
    /// How the text came to be.
    pub reading: Reading,
    /// Whether to stop after the plan.
    pub dry_run: bool,
    /// How long there is to confirm the change before it is undone by itself; none if it stays.
    pub confirm: Option<Duration>,
}

/// Puts a new text in force.
///
/// `old` is asked for the ruleset in force, to say what changes, while the new text is read. `check`
/// has the last word before anything is written, a dry run included; it sees what packets would be
/// decided by.
///
/// # Errors
///
/// Another change waits for its confirmation, the text does not hold together, `check` objects or
/// something cannot be written; the ruleset in force stays.
pub fn change(
    writer: &Writer,
    old: impl FnOnce() -> Option<Ruleset> + Send,
    request: Request<'_>,
    check: impl FnOnce(&Compiled) -> Result<()>,
) -> Result<Change> {
    make(writer, old, request, check, None)
}

/// Puts a new text in force, and something that is to hold with it: without that, the ruleset in force stays.
///
/// # Errors
///
/// As [`change`], and those of `last`.
pub(crate) fn change_and(
    writer: &Writer,
    old: impl FnOnce() -> Option<Ruleset> + Send,
    request: Request<'_>,
    check: impl FnOnce(&Compiled) -> Result<()>,
    last: &mut dyn Feature,
) -> Result<Change> {
    make(writer, old, request, check, Some(last))
}

fn make(
    writer: &Writer,
    old: impl FnOnce() -> Option<Ruleset> + Send,
    request: Request<'_>,
    check: impl FnOnce(&Compiled) -> Result<()>,
    last: Option<&mut dyn Feature>,
) -> Result<Change> {
    let is_whole = matches!(request.reading, Reading::Written { .. });
    if !(is_whole && unconfirmed::is_hopeless(writer)?) {
        unconfirmed::refuse_while_one_waits(writer)?;
    }
    let begun = Instant::now();
    let repaired = repair(writer)?;
    let (old, ruleset) = old_and_new(old, &request)?;
    let ruleset = ruleset?;
    destinations::check(&ruleset)?;
    let plan = Plan::between(old.unwrap_or_default(), ruleset, Clock::now().unix);
    let ruleset = plan.new_ruleset();
    let warnings = destinations::warnings(writer, ruleset)?;
    let record = Record {
        source: request.source,
        text: request.text,
    };
    let hash = record.hash();
    let prepared = if is_in_force(writer, &hash)? {
        check(&writer.maps.compiled())?;
        None
    } else {
        let prepared = prepare(&writer.maps, ruleset, hash)?;
        check(&prepared.ruleset)?;
        Some(prepared)
    };
    let mut change = Change {
        generation: None,
        took: Duration::ZERO,
        repaired,
        waits: request
            .confirm
            .filter(|_| prepared.is_some() && !request.dry_run),
        warnings,
        plan,
    };
    if !request.dry_run {
        let new = NewRuleset {
            writer,
            record: &record,
            ruleset: change.plan.new_ruleset(),
            hash,
            prepared: prepared.as_ref(),
        };
        let (installed, told) = new.put_in_force(change.waits, last)?;
        change.generation = Some(installed);
        change.warnings.extend(told);
    }
    change.took = begun.elapsed();
    Ok(change)
}

/// A ruleset with its text, and how it is compiled if it is not in force as it stands.
struct NewRuleset<'a> {
    writer: &'a Writer,
    record: &'a Record,
    ruleset: &'a Ruleset,
    hash: TextHash,
    prepared: Option<&'a Prepared>,
}

impl NewRuleset<'_> {
    /// Puts it in force with what is to hold with it, for good or until it is confirmed in time.
    fn put_in_force(
        &self,
        waits: Option<Duration>,
        last: Option<&mut dyn Feature>,
    ) -> Result<(Generation, Vec<Warning>)> {
        let writer = self.writer;
        let needs_way_back = self.prepared.is_some() && (waits.is_some() || last.is_some());
        let before = needs_way_back.then(|| TextBefore::in_force(writer));
        let before = before.transpose()?;
        let mut texts = Texts {
            writer,
            new: Some((self.record, self.ruleset)),
            hash: self.hash,
            before: before.as_ref(),
            is_before_kept: waits.is_some(),
        };
        let before = before.as_ref().map(|before| before.hash);
        let mut confirmation = self.prepared.map(|prepared| Confirmation {
            writer,
            new: &prepared.ruleset,
            waits: waits.zip(before),
        });
        let mut records: Vec<&mut dyn Feature> = vec![&mut texts];
        if let Some(confirmation) = &mut confirmation {
            records.push(confirmation);
        }
        let install = Install {
            writer,
            ruleset: self.ruleset,
            prepared: self.prepared,
            before,
        };
        install.run(records, last, &mut Unavailable::Refused)
    }
}

/// Whether the text of this hash is in force as it stands.
fn is_in_force(writer: &Writer, hash: &TextHash) -> Result<bool> {
    let maps = &writer.maps;
    let is_changed = maps.source_changes() != 0
        || Records::new(writer.paths.records()).has_changes(maps.generation())?;
    Ok(*hash == maps.header().text_hash && maps.generation().0 != 0 && !is_changed)
}

/// Asks for the ruleset in force and reads the new one, at the same time if that takes long.
fn old_and_new(
    old: impl FnOnce() -> Option<Ruleset> + Send,
    request: &Request<'_>,
) -> Result<(Option<Ruleset>, Result<Ruleset, RulesError>)> {
    let new = || file::read(request.name, &request.text, request.reading);
    if request.text.len() < LONG {
        return Ok((old(), new()));
    }
    thread::scope(|scope| {
        let old = thread::Builder::new()
            .spawn_scoped(scope, old)
            .context("start a thread that reads the ruleset in force")?;
        let new = new();
        let old = old.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((old, new))
    })
}

/// Returns to a ruleset that was in force before and whose record was kept.
///
/// It depends on nothing that it can do without: nothing is written to a disk, and sockets, interfaces and programs
/// that cannot be had any more count as missing.
///
/// # Errors
///
/// The record cannot be read, or the kernel refuses what the rules cannot do without; what is in force stays.
pub(crate) fn return_to(writer: &Writer, before: &TextHash) -> Result<Change> {
    let begun = Instant::now();
    let records = Records::new(writer.paths.records());
    let ruleset = match records.ruleset(before)? {
        Some((_, ruleset)) => ruleset,
        None => match records.read(before)? {
            Kept::Whole(record) => file::parse("the rules before", &record.text)
                .context("understand the text of the rules before")?,
            Kept::Lost(why) => {
                return Err(anyhow::anyhow!(
                    "the text of the rules before is lost ({why})"
                ))
                .help(|| format!("{} apply FILE puts others in force", writer.paths.command()));
            }
        },
    };
    // What changes is only said.
    let old = in_force(writer).map(|old| old.ruleset);
    let plan = Plan::between(old.unwrap_or_default(), ruleset, Clock::now().unix);
    let ruleset = plan.new_ruleset();
    let prepared = prepare(&writer.maps, ruleset, *before)?;
    let mut texts = Texts {
        writer,
        new: None,
        hash: *before,
        before: None,
        is_before_kept: false,
    };
    let install = Install {
        writer,
        ruleset,
        prepared: Some(&prepared),
        before: None,
    };
    let mut warnings: Vec<Warning> = Vec::new();
    let missing = &mut Unavailable::Missing(&mut warnings);
    let (generation, told) = install.run(vec![&mut texts], None, missing)?;
    warnings.extend(told);
    Ok(Change {
        generation: Some(generation),
        took: begun.elapsed(),
        repaired: None,
        waits: None,
        warnings,
        plan,
    })
}

fn prepare(maps: &Maps, ruleset: &Ruleset, hash: TextHash) -> Result<Prepared> {
    let rules = ruleset.rules().iter();
    let names: Vec<&str> = rules.map(|rule| rule.name.as_str()).collect();
    maps.prepare(&names, hash, |ids| image::compile(ruleset, ids))
}

/// A ruleset that is to be in force, with all that it needs.
struct Install<'a> {
    writer: &'a Writer,
    ruleset: &'a Ruleset,
    /// What is to follow the ruleset in force; none if that is the one.
    prepared: Option<&'a Prepared>,
    /// The text before, if it is kept.
    before: Option<TextHash>,
}

impl Install<'_> {
    /// Puts it in force. Returns the generation in force, and what happens otherwise than it should.
    fn run(
        self,
        records: Vec<&mut dyn Feature>,
        last: Option<&mut dyn Feature>,
        unavailable: &mut Unavailable<'_>,
    ) -> Result<(Generation, Vec<Warning>)> {
        let Self {
            writer,
            ruleset,
            prepared,
            before,
        } = self;
        let mut tracking = FlowTracking::of(writer, ruleset);
        let mut steering = SocketSteering {
            writer,
            destinations: prepared.map_or_else(
                || writer.maps.destinations_in_force(),
                |prepared| prepared.ruleset.destinations.clone(),
            ),
        };
        let mut drops = RedirectDropCounting::of(writer, ruleset);
        let undo = || {
            let before = before.context("the rules before were not kept")?;
            return_to(writer, &before).map(drop)
        };
        let mut switch = prepared.map(|prepared| {
            let rules = RulesInForce {
                writer,
                prepared,
                undo: &undo,
                generation: None,
            };
            (RedirectTargets::of(writer, prepared), rules)
        });
        let mut features: Vec<&mut dyn Feature> = vec![&mut tracking, &mut steering, &mut drops];
        for record in records {
            features.push(record);
        }
        if let Some((targets, rules)) = &mut switch {
            features.extend([targets as &mut dyn Feature, rules]);
        }
        if let Some(last) = last {
            features.push(last);
        }
        let still_there = transaction::run(&mut features, unavailable)?;
        let mut warnings: Vec<Warning> = drops.warning.into_iter().chain(still_there).collect();
        // Nothing but how soon something is found again depends on it.
        if let Err(error) = catching(|| follower::start_if_needed(writer, ruleset)) {
            warnings.push((
                format!("{error:#}"),
                format!("{} follow", writer.paths.command()),
            ));
        }
        Ok((writer.maps.generation(), warnings))
    }
}

/// Removes what an interrupted change left, and says what became of that change.
fn repair(writer: &Writer) -> Result<Option<String>> {
    let records = Records::new(writer.paths.records());
    let left = records.sweep(&[writer.maps.header().text_hash], writer.lock())?;
    Ok((left > 0).then(|| {
        format!(
            "an earlier change was interrupted: generation {} is in force, complete",
            writer.maps.generation().0
        )
    }))
}
