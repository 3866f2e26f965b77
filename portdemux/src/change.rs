//! Changes to the ruleset in force.

use std::{
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use portdemux_common::{
    ruleset::{Header, RulesetImage},
    state::Generation,
};

use crate::{
    bounded,
    clock::Clock,
    dataplane::{
        destinations, losses,
        mapped::catching,
        maps::Maps,
        pins::{Lock, Places},
        steering,
        tracking::{self, Wanted},
    },
    error::Help as _,
    figures::seconds,
    follower,
    image::{self, Compiled, Destinations},
    pending::{self, Pending, Standing, guardian},
    records::{Record, Records},
    recover,
    rules::{
        RulesError, Ruleset, edit,
        file::{self, Reading},
        plan::Plan,
        source::MemberChange,
    },
};

/// How many bytes a text has that takes longer to read than another thread to start.
const LONG: usize = 1 << 16;

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
}

/// The ruleset in force and the text it came from.
#[derive(Debug, Default)]
pub struct Written {
    /// What the text says.
    pub in_force: InForce,
    /// The text.
    pub text: String,
}

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
    pub warnings: Vec<(String, String)>,
}

/// Reads the ruleset in force; its text only if that is as good.
///
/// # Errors
///
/// As [`written`].
pub fn in_force(places: &Places, maps: &Maps) -> Result<InForce> {
    let records = Records::new(places.records());
    let header = maps.header();
    let generation = Generation(header.generation);
    let known = match header.generation {
        0 => None,
        _ => records.ruleset(&header.text_hash),
    };
    if let Some((source, mut ruleset)) = known {
        let changes = records.changes(generation)?;
        // Else a writer may have replaced the ruleset meanwhile.
        if maps.generation() == generation {
            ruleset.change_members(&changes, Clock::now().unix);
            return Ok(InForce {
                generation,
                source,
                ruleset,
                lost: None,
                changes,
            });
        }
    }
    Ok(written(places, maps)?.in_force)
}

/// Reads the ruleset in force and its text.
///
/// If its record is lost, the text is rebuilt from the kernel.
///
/// # Errors
///
/// The text cannot be understood.
pub fn written(places: &Places, maps: &Maps) -> Result<Written> {
    let records = Records::new(places.records());
    loop {
        let header = maps.header();
        let generation = Generation(header.generation);
        if header.generation == 0 {
            return Ok(Written::default());
        }
        let (mut record, lost) = match records.read(&header.text_hash) {
            Ok(record) => (record, None),
            Err(error) => {
                let image = maps.compiled();
                let text = recover::text(&image, &maps.rule_names(&image));
                (Record { source: None, text }, Some(format!("{error:#}")))
            }
        };
        let changes = records.changes(generation)?;
        // A writer may have replaced the ruleset and removed its record meanwhile.
        if maps.generation() != generation {
            continue;
        }
        if !changes.is_empty() && lost.is_none() {
            let now = Clock::now().unix;
            record.text = edit::members("the ruleset in force", &record.text, &changes, now)?;
        }
        let ruleset = file::parse(&name(record.source.as_deref()), &record.text)
            .context("understand the text of the ruleset in force")?;
        return Ok(Written {
            in_force: InForce {
                generation,
                source: record.source,
                ruleset,
                lost,
                changes,
            },
            text: record.text,
        });
    }
}

/// Whether the file that a ruleset in force came from still says the same; none if it came from no file, or the
/// file cannot be read.
#[must_use]
pub fn is_in_sync(places: &Places, maps: &Maps, in_force: &InForce) -> Option<bool> {
    says_the_same(places, maps, in_force, in_force.source.as_ref()?)
}

/// Whether a file says the same as the ruleset in force, members of sets whose time is past left aside; none if it
/// cannot be read.
#[must_use]
pub fn says_the_same(
    places: &Places,
    maps: &Maps,
    in_force: &InForce,
    file: &Path,
) -> Option<bool> {
    let there = bounded::file(file).ok()?;
    let header = maps.header();
    let is_its_text = header.generation == in_force.generation.0
        && header.text_hash == Record::hash_of(&there)
        && in_force.changes.is_empty();
    let is_the_same = || {
        let now = Clock::now().unix;
        let same = |text: &str| edit::without_ended(text, now) == edit::without_ended(&there, now);
        written(places, maps).is_ok_and(|written| same(&written.text))
    };
    Some(is_its_text || is_the_same())
}

/// Notes that the ruleset in force stands in this file, to which it was written.
///
/// # Errors
///
/// Its record cannot be read or written.
pub fn came_from(places: &Places, maps: &Maps, lock: &Lock, file: &Path) -> Result<()> {
    let file = file
        .canonicalize()
        .with_context(|| format!("find {}", file.display()))?;
    Records::new(places.records()).name_source(&maps.header().text_hash, file, lock)
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
    places: &Places,
    maps: &Maps,
    lock: &Lock,
    old: impl FnOnce() -> Option<Ruleset> + Send,
    request: Request<'_>,
    check: impl FnOnce(&Compiled) -> Result<()>,
) -> Result<Change> {
    refuse_while_another_waits(places, maps)?;
    make(places, maps, lock, old, request, check)
}

/// Puts a new text in force, whatever waits: what does is forgotten.
pub(crate) fn make(
    places: &Places,
    maps: &Maps,
    lock: &Lock,
    old: impl FnOnce() -> Option<Ruleset> + Send,
    request: Request<'_>,
    check: impl FnOnce(&Compiled) -> Result<()>,
) -> Result<Change> {
    let begun = Instant::now();
    let records = Records::new(places.records());
    let hash_in_force = maps.header().text_hash;
    let repaired = repair(&records, maps, &hash_in_force, lock)?;
    let (old, ruleset) = old_and_new(old, &request)?;
    let ruleset = ruleset?;
    destinations::check(&ruleset)?;
    let plan = Plan::between(old.unwrap_or_default(), ruleset);
    let record = Record {
        source: request.source,
        text: request.text,
    };
    let mut change = Change {
        generation: None,
        took: Duration::ZERO,
        repaired,
        waits: None,
        warnings: destinations::warnings(maps, plan.new_ruleset())?,
        plan,
    };
    let hash = record.hash();
    let is_changed = !records.changes(maps.generation())?.is_empty();
    let is_in_force = hash == hash_in_force && maps.generation().0 != 0 && !is_changed;
    let prepared = if is_in_force {
        check(&maps.compiled())?;
        None
    } else {
        let ruleset = change.plan.new_ruleset();
        let names: Vec<&str> = ruleset
            .rules()
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        let prepared = maps.prepare(&names, hash, |ids| image::compile(ruleset, ids))?;
        check(&prepared.ruleset)?;
        Some(prepared)
    };
    if request.dry_run {
        return Ok(change);
    }
    let flows = change.plan.new_ruleset().flows().map(|flows| Wanted {
        flows: flows.places(),
        half_open: flows.half_open_places(),
        timeouts: flows.ticks(),
    });
    if let Some(wanted) = &flows {
        // The programs that track obey every ruleset; those that do not would not obey this one.
        catching(|| tracking::begin(places, maps, lock, wanted)).context("begin to track flows")?;
    }
    let in_force = maps.destinations_in_force();
    let destinations = prepared
        .as_ref()
        .map_or(&in_force, |prepared| &prepared.ruleset.destinations);
    if let Err(error) = catching(|| steering::begin(places, maps, lock, destinations)) {
        steering::end(places, maps, lock, &in_force)?;
        return Err(error);
    }
    let uncounted = count_losses(places, maps, lock, change.plan.new_ruleset());
    change.warnings.extend(uncounted);
    if let (Some(within), Some(prepared)) = (request.confirm, &prepared) {
        guard(places, maps, lock, within, &prepared.ruleset)?;
        change.waits = Some(within);
    }
    let put_in_force = || {
        records.write(&record, &hash, change.plan.new_ruleset(), lock)?;
        match &prepared {
            Some(prepared) => maps.put_in_force(prepared),
            None => Ok(maps.generation()),
        }
    };
    let installed = catching(put_in_force);
    if installed.is_err() {
        records.sweep(&hash_in_force, lock)?;
        steering::end(places, maps, lock, &in_force)?;
    }
    // Whatever waited was for a generation that is in force no more, or is not now.
    if prepared.is_some() && (installed.is_err() || change.waits.is_none()) {
        pending::forget(places, lock)?;
    }
    change.generation = Some(installed?);
    records.sweep(&hash, lock)?;
    records.sweep_changes(maps.generation(), lock)?;
    end(places, maps, lock, destinations, change.plan.new_ruleset())?;
    if flows.is_none() {
        tracking::end(places, maps, lock).context("stop tracking flows")?;
    }
    // Nothing but how soon something is found again depends on it.
    if let Err(error) = follower::start_if_needed(places, maps, change.plan.new_ruleset()) {
        let warning = (format!("{error:#}"), "portdemux follow".into());
        change.warnings.push(warning);
    }
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

/// Takes away what the ruleset in force does not need.
fn end(
    places: &Places,
    maps: &Maps,
    lock: &Lock,
    destinations: &Destinations,
    ruleset: &Ruleset,
) -> Result<()> {
    steering::end(places, maps, lock, destinations).context("stop handing packets to sockets")?;
    losses::end(places, lock, ruleset).context("stop counting losses")
}

/// Sees to it that what targets do not take is counted, or says that it is not: where packets go does not depend
/// on it.
fn count_losses(
    places: &Places,
    maps: &Maps,
    lock: &Lock,
    ruleset: &Ruleset,
) -> Option<(String, String)> {
    let error = catching(|| losses::begin(places, maps, lock, ruleset)).err()?;
    Some((
        format!("what targets do not take of their packets is not counted: {error:#}"),
        "the counters of the targets say some of it: ip -s link, ethtool -S".into(),
    ))
}

/// Sees to it that the change to `new` is undone unless it is confirmed.
fn guard(
    places: &Places,
    maps: &Maps,
    lock: &Lock,
    within: Duration,
    new: &RulesetImage,
) -> Result<()> {
    let before = written(places, maps)?;
    let before = Record {
        source: before.in_force.source,
        text: before.text,
    };
    let Header {
        generation,
        text_hash,
        ..
    } = new.header;
    Pending::new(generation, text_hash, within, before)?.write(places, lock)?;
    let started = guardian::start(places, lock);
    if started.is_err() {
        pending::forget(places, lock)?;
    }
    started
        .context("start the process that undoes the change")
        .help(|| "nothing was changed".into())
}

pub(crate) fn refuse_while_another_waits(places: &Places, maps: &Maps) -> Result<()> {
    let Some(pending) = Pending::read(places)? else {
        return Ok(());
    };
    let left = match pending.standing(maps) {
        Standing::Waits(left) => left,
        Standing::Overdue => Duration::ZERO,
        Standing::Undone | Standing::Void => return Ok(()),
    };
    Err(anyhow::anyhow!(
        "generation {} waits to be confirmed ({} left)",
        pending.generation,
        seconds(left)
    ))
    .help(|| {
        "portdemux confirm keeps it, portdemux confirm --undo returns to the rules before; nothing was \
         changed"
            .into()
    })
}

/// Removes what an interrupted change left, and says what became of that change.
fn repair(
    records: &Records,
    maps: &Maps,
    in_force: &[u8; 32],
    lock: &Lock,
) -> Result<Option<String>> {
    let left = records.sweep(in_force, lock)?;
    Ok((left > 0).then(|| {
        format!(
            "an earlier change was interrupted: generation {} is in force, complete",
            maps.generation().0
        )
    }))
}

fn name(source: Option<&Path>) -> String {
    source.map_or_else(
        || "the ruleset in force".into(),
        |path| path.display().to_string(),
    )
}
