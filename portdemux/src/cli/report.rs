//! What verbs that change the ruleset have in common: reading a file, saying what changed.

use std::time::Duration;

use anyhow::Result;

use super::{
    Context,
    safeguard::{self, Safeguard, Verb},
};
use crate::{
    change::Change,
    clock::Clock,
    control::Edit,
    figures::grouped,
    rules::{duration::seconds, source::Source},
};

/// How many lines of a plan are shown before it is cut in the middle.
const PLAN_LINES: usize = 20;

/// What a verb that puts a rules file in force lets pass.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Strictness {
    /// Leave out members of sets whose time is past, rather than refuse the file: for rules that are applied
    /// at boot
    #[arg(long)]
    pub(super) skip_expired: bool,
}

/// Edits the rules in force, and says what that did.
pub(super) fn edit(
    context: &Context,
    edit: Edit<'_>,
    verb: Verb,
    args: safeguard::Args,
) -> Result<()> {
    let safeguard = Safeguard::new(context, verb, args, false);
    let check = |instance: &_, joining: &[_], new: &_| safeguard.check(instance, joining, new);
    let edited = context.edit(edit, args.confirm, &check)?;
    change(context, &edited);
    Ok(())
}

/// Says what a change did.
pub(super) fn change(context: &Context, change: &Change) {
    if let Some(repaired) = &change.repaired {
        context.output.note(repaired);
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
        context.output.warn(what, Some(help));
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
pub(super) fn warn_of_ended_members(context: &Context, change: &Change) {
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
        context.output.warn(
            format!(
                "{} is not in @{}: its time ended {until}{others}",
                Source::Prefix(*prefix),
                set.name
            ),
            Some("take it out of the file, or give it a time that is still to come"),
        );
    }
}

pub(super) fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}
