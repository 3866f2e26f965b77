//! How another ruleset takes the place of the one in force.
//!
//! Until the switch an error means that nothing was changed; what was begun for the new rules is taken back.
//! After it the new rules are in force, and what could not be tidied up is a warning: the next change does it.

use std::{
    panic::resume_unwind,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use portdemux_common::state::Generation;

use super::in_force;
use crate::{
    clock::Clock,
    dataplane::{
        destinations,
        mapped::catching,
        maps::{Maps, Prepared},
        pins::{InstancePaths, Lock},
        redirect_drops, steering,
        tracking::{self, Wanted},
    },
    error::{Help as _, Unavailable, Warning},
    follower,
    image::{self, Compiled},
    records::{Kept, Record, Records, TextHash},
    rules::{
        RulesError, Ruleset,
        duration::seconds,
        file::{self, Reading},
        plan::Plan,
    },
    unconfirmed::{self, Standing, UnconfirmedChange},
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
    /// The hash of the text before, if that is kept.
    before: Option<TextHash>,
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
    /// Whether the text before is kept, so that `Change::undo` has it.
    pub keeps_before: bool,
}

impl Change {
    /// Whether the ruleset before was kept.
    pub(crate) const fn is_undoable(&self) -> bool {
        self.before.is_some()
    }

    /// Returns to the ruleset before, which was kept.
    ///
    /// # Errors
    ///
    /// As [`return_to`]; the change stays in force.
    pub(crate) fn undo(&self, places: &InstancePaths, maps: &Maps, lock: &Lock) -> Result<()> {
        let before = self.before.context("the rules before were not kept")?;
        return_to(places, maps, lock, &before).map(drop)
    }

    /// Lets go of the ruleset before: nobody returns to it.
    pub(crate) fn settle(&mut self, places: &InstancePaths, maps: &Maps, lock: &Lock) {
        if self.before.take().is_some() {
            // What stays of it, the next change removes.
            let records = Records::new(places.records());
            let _: Result<usize> = records.sweep(&[maps.header().text_hash], lock);
        }
    }
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
    places: &InstancePaths,
    maps: &Maps,
    lock: &Lock,
    old: impl FnOnce() -> Option<Ruleset> + Send,
    request: Request<'_>,
    check: impl FnOnce(&Compiled) -> Result<()>,
) -> Result<Change> {
    let is_whole = matches!(request.reading, Reading::Written { .. });
    if !(is_whole && unconfirmed::is_hopeless(places, maps)?) {
        refuse_while_another_waits(places, maps)?;
    }
    let begun = Instant::now();
    let records = Records::new(places.records());
    let hash_in_force = maps.header().text_hash;
    let repaired = repair(&records, maps, &hash_in_force, lock)?;
    let (old, ruleset) = old_and_new(old, &request)?;
    let ruleset = ruleset?;
    destinations::check(&ruleset)?;
    let plan = Plan::between(old.unwrap_or_default(), ruleset, Clock::now().unix);
    let record = Record {
        source: request.source,
        text: request.text,
    };
    let mut change = Change {
        generation: None,
        took: Duration::ZERO,
        repaired,
        waits: None,
        warnings: destinations::warnings(places, maps, plan.new_ruleset())?,
        before: None,
        plan,
    };
    let hash = record.hash();
    let is_changed = maps.source_changes() != 0 || records.has_changes(maps.generation())?;
    let is_in_force = hash == hash_in_force && maps.generation().0 != 0 && !is_changed;
    let prepared = if is_in_force {
        check(&maps.compiled())?;
        None
    } else {
        let prepared = prepare(maps, change.plan.new_ruleset(), hash)?;
        check(&prepared.ruleset)?;
        Some(prepared)
    };
    if request.dry_run {
        return Ok(change);
    }
    let ruleset = change.plan.new_ruleset();
    let install = Install {
        places,
        maps,
        lock,
        ruleset,
        prepared: prepared.as_ref(),
    };
    let mut kept = vec![hash];
    let installed = catching(|| {
        install.begin(&mut Unavailable::Refused)?;
        change.warnings.extend(install.count_losses());
        if request.keeps_before && prepared.is_some() {
            let before = keep(places, maps, lock)?;
            kept.push(before);
            change.before = Some(before);
        }
        match (request.confirm, &prepared) {
            (Some(within), Some(prepared)) => {
                kept.push(unconfirmed::begin(
                    places,
                    maps,
                    lock,
                    within,
                    &prepared.ruleset,
                )?);
                change.waits = Some(within);
            }
            // Whatever waited was for a generation that is in force no more, or never was. It goes first, or the
            // change to come could be taken for it.
            (None, Some(_)) => unconfirmed::discard(places, lock)?,
            (_, None) => {}
        }
        records.write(&record, &hash, ruleset, lock)?;
        install.put_in_force(&mut Unavailable::Refused)
    });
    match installed {
        Ok(generation) => change.generation = Some(generation),
        Err(error) => {
            if change.waits.is_some() {
                // It would mean nothing if it stayed: the generation that it is about is not in force.
                let _: Result<()> = unconfirmed::discard(places, lock);
            }
            let _: Result<usize> = records.sweep(&[hash_in_force], lock);
            install.take_back();
            return Err(error);
        }
    }
    install.tidy(&kept, &mut change.warnings);
    change.took = begun.elapsed();
    Ok(change)
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

/// Sees to it that the text of the ruleset in force, changes of its sets included, has a record of its own, so
/// that nothing has to be written to return to it. Returns its hash.
///
/// # Errors
///
/// It cannot be read or written.
pub(crate) fn keep(places: &InstancePaths, maps: &Maps, lock: &Lock) -> Result<TextHash> {
    let written = super::written(places, maps)?;
    let record = Record {
        source: written.in_force.source,
        text: written.text,
    };
    let hash = record.hash();
    let records = Records::new(places.records());
    let is_kept = matches!(records.read(&hash)?, Kept::Whole(kept) if kept == record);
    if !is_kept {
        records.write(&record, &hash, &written.in_force.ruleset, lock)?;
    }
    Ok(hash)
}

/// Keeps a text that was in force before.
///
/// # Errors
///
/// It cannot be understood or written.
pub(crate) fn keep_record(places: &InstancePaths, record: &Record, lock: &Lock) -> Result<()> {
    let ruleset = file::parse("the rules before", &record.text)
        .context("understand the text of the rules before")?;
    Records::new(places.records()).write(record, &record.hash(), &ruleset, lock)
}

/// Returns to a ruleset that was in force before and whose record was kept.
///
/// It depends on nothing that it can do without: nothing is written to a disk, and sockets, interfaces and programs
/// that cannot be had any more count as missing.
///
/// # Errors
///
/// The record cannot be read, or the kernel refuses what the rules cannot do without; what is in force stays.
pub(crate) fn return_to(
    places: &InstancePaths,
    maps: &Maps,
    lock: &Lock,
    before: &TextHash,
) -> Result<Change> {
    let begun = Instant::now();
    let records = Records::new(places.records());
    let ruleset = match records.ruleset(before)? {
        Some((_, ruleset)) => ruleset,
        None => match records.read(before)? {
            Kept::Whole(record) => file::parse("the rules before", &record.text)
                .context("understand the text of the rules before")?,
            Kept::Lost(why) => {
                return Err(anyhow::anyhow!(
                    "the text of the rules before is lost ({why})"
                ))
                .help(|| format!("{} apply FILE puts others in force", places.command()));
            }
        },
    };
    // What changes is only said.
    let old = in_force(places, maps).map(|old| old.ruleset);
    let plan = Plan::between(old.unwrap_or_default(), ruleset, Clock::now().unix);
    let ruleset = plan.new_ruleset();
    let prepared = prepare(maps, ruleset, *before)?;
    let install = Install {
        places,
        maps,
        lock,
        ruleset,
        prepared: Some(&prepared),
    };
    let mut warnings: Vec<Warning> = Vec::new();
    let mut unavailable = Unavailable::Missing(&mut warnings);
    install.begin(&mut unavailable)?;
    let generation = install.put_in_force(&mut unavailable)?;
    warnings.extend(install.count_losses());
    install.tidy(&[*before], &mut warnings);
    Ok(Change {
        generation: Some(generation),
        took: begun.elapsed(),
        repaired: None,
        waits: None,
        warnings,
        before: None,
        plan,
    })
}

fn prepare(maps: &Maps, ruleset: &Ruleset, hash: TextHash) -> Result<Prepared> {
    let rules = ruleset.rules().iter();
    let names: Vec<&str> = rules.map(|rule| rule.name.as_str()).collect();
    maps.prepare(&names, hash, |ids| image::compile(ruleset, ids))
}

/// The steps in which a ruleset is put in force.
struct Install<'a> {
    places: &'a InstancePaths,
    maps: &'a Maps,
    lock: &'a Lock,
    ruleset: &'a Ruleset,
    /// What is to follow the ruleset in force; none if that is the one.
    prepared: Option<&'a Prepared>,
}

impl Install<'_> {
    /// Sees to it that there is what the rules need.
    fn begin(&self, unavailable: &mut Unavailable<'_>) -> Result<()> {
        let (places, maps, lock) = (self.places, self.maps, self.lock);
        let wanted = self.ruleset.flows().map(|flows| Wanted {
            flows: flows.places(),
            half_open: flows.half_open_places(),
            timeouts: flows.ticks(),
        });
        if let Some(wanted) = &wanted {
            // The programs that track obey every ruleset; those that do not would not obey this one.
            tracking::begin(places, maps, lock, wanted).context("begin to track flows")?;
        }
        let destinations = match self.prepared {
            Some(prepared) => &prepared.ruleset.destinations,
            None => &maps.destinations_in_force(),
        };
        steering::begin(places, maps, lock, destinations, unavailable)
    }

    fn put_in_force(&self, unavailable: &mut Unavailable<'_>) -> Result<Generation> {
        match self.prepared {
            Some(prepared) => self.maps.put_in_force(prepared, unavailable),
            None => Ok(self.maps.generation()),
        }
    }

    /// Takes back what was begun, as the rules do not come in force. What stays does no harm, and the next change
    /// takes it away.
    fn take_back(&self) {
        let (places, maps, lock) = (self.places, self.maps, self.lock);
        let _: Result<()> = catching(|| {
            steering::end(places, maps, lock, &maps.destinations_in_force())?;
            if maps.header().defaults.flows == 0 {
                tracking::end(places, maps, lock)?;
            }
            Ok(())
        });
    }

    /// Sees to it that what targets do not take is counted, or says that it is not: where packets go does not
    /// depend on it.
    fn count_losses(&self) -> Option<Warning> {
        let begun = || redirect_drops::begin(self.places, self.maps, self.lock, self.ruleset);
        let error = catching(begun).err()?;
        Some((
            format!("what targets do not take of their packets is not counted: {error:#}"),
            "the counters of the targets say some of it: ip -s link, ethtool -S".into(),
        ))
    }

    /// Takes away what the ruleset in force does not need, and starts what it needs beside the programs.
    fn tidy(&self, kept: &[TextHash], warnings: &mut Vec<Warning>) {
        let (places, maps, lock) = (self.places, self.maps, self.lock);
        let mut tidy = |what: &str, work: &dyn Fn() -> Result<()>| {
            if let Err(error) = catching(work) {
                let help = "the rules are in force all the same; the next change tries it again";
                warnings.push((format!("{what}: {error:#}"), help.into()));
            }
        };
        let records = Records::new(places.records());
        tidy("the records of the rules before are still there", &|| {
            records.sweep(kept, lock).map(drop)
        });
        tidy("the record of changes of sets is still there", &|| {
            records.sweep_changes(maps.generation(), lock)
        });
        tidy("packets are still looked up for sockets", &|| {
            let destinations = match self.prepared {
                Some(prepared) => &prepared.ruleset.destinations,
                None => &maps.destinations_in_force(),
            };
            steering::end(places, maps, lock, destinations)
        });
        tidy("losses are still counted", &|| {
            redirect_drops::end(places, lock, self.ruleset)
        });
        if self.ruleset.flows().is_none() {
            tidy("flows are still tracked", &|| {
                tracking::end(places, maps, lock)
            });
        }
        // Nothing but how soon something is found again depends on it.
        let started = catching(|| follower::start_if_needed(places, maps, self.ruleset));
        if let Err(error) = started {
            warnings.push((format!("{error:#}"), format!("{} follow", places.command())));
        }
    }
}

pub(crate) fn refuse_while_another_waits(places: &InstancePaths, maps: &Maps) -> Result<()> {
    let Some(unconfirmed) = UnconfirmedChange::read(places)? else {
        return Ok(());
    };
    let left = match unconfirmed.standing(maps) {
        Standing::Waits(left) => left,
        Standing::Overdue => Duration::ZERO,
        Standing::Undone | Standing::Void => return Ok(()),
    };
    Err(anyhow::anyhow!(
        "generation {} waits to be confirmed ({} left)",
        unconfirmed.generation,
        seconds(left)
    ))
    .help(|| {
        let command = places.command();
        format!(
            "{command} confirm keeps it, {command} confirm --undo returns to the rules before; nothing was changed"
        )
    })
}

/// Removes what an interrupted change left, and says what became of that change.
fn repair(
    records: &Records,
    maps: &Maps,
    in_force: &TextHash,
    lock: &Lock,
) -> Result<Option<String>> {
    let left = records.sweep(&[*in_force], lock)?;
    Ok((left > 0).then(|| {
        format!(
            "an earlier change was interrupted: generation {} is in force, complete",
            maps.generation().0
        )
    }))
}
