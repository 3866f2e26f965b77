//! What verbs that change the ruleset have in common: reading a file, saying what changed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Context, output};
use crate::{
    attached, bounded,
    change::{Change, Request},
    clock::Clock,
    dataplane::mapped::catching,
    error::Help as _,
    figures::grouped,
    instance::Instance,
    rules::{
        Attach, Destination, RulesError,
        duration::seconds,
        file::{self, Reading},
        source::Source,
    },
};

/// How many lines of a plan are shown before it is cut in the middle.
const PLAN_LINES: usize = 20;

/// What a verb that puts a rules file in force lets pass.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Strictness {
    /// Leave out members of sets whose time is past, rather than refuse the file: for rules that are applied
    /// at boot
    #[arg(long)]
    skip_expired: bool,
}

/// A rules file that was read.
#[derive(Debug)]
pub(super) struct RulesText {
    /// How to call it in errors.
    pub(super) name: String,
    /// The text.
    pub(super) text: String,
    /// The file it stands in, if it does.
    pub(super) source: Option<PathBuf>,
    reading: Reading,
}

impl RulesText {
    /// Where it says that it is attached.
    ///
    /// # Errors
    ///
    /// Names every mistake in it.
    pub(super) fn attach(&self) -> Result<Attach, RulesError> {
        let ruleset = file::read(&self.name, &self.text, self.reading)?;
        Ok(ruleset.attach().clone())
    }

    /// What is to be done with it.
    pub(super) fn request(&self, dry_run: bool, confirm: Option<Duration>) -> Request<'_> {
        Request {
            text: self.text.clone(),
            source: self.source.clone(),
            name: &self.name,
            reading: self.reading,
            dry_run,
            confirm,
        }
    }
}

/// Whether a rules file names sockets: such rules hold where no program is attached to any interface, too.
pub(super) fn names_sockets(rules: &RulesText) -> bool {
    // What is wrong with it is said when it is put in force.
    file::parse(&rules.name, &rules.text).is_ok_and(|ruleset| {
        let mut rules = ruleset.rules().iter();
        rules.any(|rule| matches!(rule.to, Destination::Socket(_)))
    })
}

/// What there is to do about a rules file that cannot be read.
const READABLE: &str = "a rules file is a file of text, - is standard input";

/// Reads a rules file that is to be put in force; `-` is standard input.
pub(super) fn read_rules_to_apply(path: &Path, strictness: Strictness) -> Result<RulesText> {
    let reading = Reading::Written {
        now: Clock::now().unix,
        skip_expired: strictness.skip_expired,
    };
    read(path, reading).help(|| format!("{READABLE}; nothing was changed"))
}

/// Reads a rules file that somebody wants to know something about; `-` is standard input.
pub(super) fn read_rules(path: &Path) -> Result<RulesText> {
    read(path, Reading::Known).help(|| READABLE.into())
}

fn read(path: &Path, reading: Reading) -> Result<RulesText> {
    let name = path.display().to_string();
    if name == "-" {
        let text = bounded::text(io::stdin().lock()).context("read standard input")?;
        return Ok(RulesText {
            name: "standard input".into(),
            text,
            source: None,
            reading,
        });
    }
    let text = bounded::file(path).with_context(|| format!("read {name}"))?;
    let source = canonical(path).with_context(|| format!("find {name}"))?;
    Ok(RulesText {
        name,
        text,
        source,
        reading,
    })
}

/// The path of a file without links; none if there is no such file.
///
/// # Errors
///
/// That cannot be seen.
pub(super) fn canonical(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// A mistake of rules that a change of those in force brought with it: their lines are cited as such.
pub(super) fn of_the_ruleset_in_force(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<RulesError>() {
        Ok(mistakes) => mistakes.of_the_ruleset_in_force().into(),
        Err(error) => error,
    }
}

/// Says what a change did.
pub(super) fn change(context: &Context, change: &Change) {
    if let Some(repaired) = &change.repaired {
        output::note(repaired);
    }
    let (columns, _) = context.output.size();
    context
        .output
        .line(change.plan.shortened(PLAN_LINES, columns));
    match change.generation {
        Some(generation) => context.output.line(format!(
            "generation {}, {}, counters kept",
            generation.0,
            milliseconds(change.took)
        )),
        None => context.output.line("dry run: nothing was changed"),
    }
    for (what, help) in &change.warnings {
        output::warn(what, Some(help));
    }
    if let Some(within) = change.waits {
        context.output.line(format!(
            "undone after {}, unless: {} confirm",
            seconds(within),
            context.command()
        ));
    }
}

/// Warns of members of sets whose time is past: they stand in the file and are in no set.
pub(super) fn warn_of_ended_members(change: &Change) {
    let now = Clock::now().unix;
    for set in change.plan.new_ruleset().sets() {
        let ended = set.until.iter().filter(|(_, until)| until.unix <= now);
        let Some((prefix, until)) = ended.clone().min_by_key(|(prefix, _)| **prefix) else {
            continue;
        };
        let others = match ended.count() - 1 {
            0 => String::new(),
            1 => " and one more like it".into(),
            count => format!(" and {} more like it", grouped(count as u64)),
        };
        output::warn(
            format!(
                "{} is not in @{}: its time ended {until}{others}",
                Source::Prefix(*prefix),
                set.name
            ),
            Some("take it out of the file, or give it a time that is still to come"),
        );
    }
}

/// Says where the rules say that they are attached and are not, and the other way round: a change of rules
/// attaches to nothing. That it cannot be seen is a warning: the change is made by now.
pub(super) fn note_elsewhere(context: &Context, instance: &Instance, said: &Attach) {
    if said.interfaces.is_empty() {
        return;
    }
    let known = match catching(|| attached::interfaces(instance)) {
        Ok(known) => known,
        Err(error) => {
            output::warn_of("where they are attached is not known", &error);
            return;
        }
    };
    let attached: Vec<String> = known
        .into_iter()
        .filter(|interface| interface.state.is_attached())
        .map(|interface| interface.renamed.unwrap_or(interface.name))
        .collect();
    let only_in = |names: &[String], others: &[String]| {
        let names = names.iter().filter(|name| !others.contains(name));
        names.cloned().collect::<Vec<_>>()
    };
    let command = context.command();
    let said_so = |names: Vec<String>, what: &str, verb: &str| {
        (!names.is_empty()).then(|| {
            let (list, words) = (names.join(", "), names.join(" "));
            format!("{list} {what}: {command} {verb} {words}")
        })
    };
    let parts = [
        said_so(
            only_in(&said.interfaces, &attached),
            "in [attach] is not attached",
            "attach",
        ),
        said_so(
            only_in(&attached, &said.interfaces),
            "is attached and not in [attach]",
            "detach",
        ),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        output::note(parts.join("; "));
    }
}

pub(super) fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}
