//! `portdemux promote`: make shadows real.

use anyhow::Result;

use super::{
    Context, report,
    safeguard::{self, Safeguard, Verb},
};
use crate::{
    change::{self, Request},
    rules::{RulesError, edit, file::Reading},
};

/// Make shadows real: let rules do what so far they only counted
///
/// The text of the rules in force loses the line shadow = true. A rule keeps its name and so its
/// counters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux add 22/tcp --name ssh --from 192.0.2.0/24 --shadow
  portdemux promote ssh")]
pub(super) struct Args {
    /// Names of shadows
    #[arg(required = true, value_name = "NAME")]
    rules: Vec<String>,
    #[command(flatten)]
    safeguard: safeguard::Args,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let (lock, maps) = context.open_to_change()?;
    let old = context.in_force(&maps)?;
    let text = edit::promote("the rules in force", &old.record.text, &args.rules)
        .map_err(RulesError::of_the_ruleset_in_force)?;
    let request = Request {
        text,
        source: old.record.source.clone(),
        name: "the rules in force",
        reading: Reading::Known,
        dry_run: false,
        confirm: args.safeguard.confirm,
    };
    let places = &context.places;
    let safeguard = Safeguard::new(Verb::Promote, args.safeguard, false);
    let check = |new: &_| safeguard.check(places, &maps, &[], new);
    let old = || Some(old.ruleset);
    let change = change::change(places, &maps, &lock, old, request, check)
        .map_err(report::of_the_ruleset_in_force)?;
    report::change(context, &change)
}
