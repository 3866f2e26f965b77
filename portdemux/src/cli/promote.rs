//! `portdemux promote`: make shadows real.

use anyhow::Result;

use super::{
    Context,
    edited::{Edited, NAME},
    report,
    safeguard::{self, Verb},
};
use crate::rules::{RulesError, edit};

/// Make shadows real: they do what so far they only counted
///
/// The line shadow = true goes from the text of the rules in force. The rule keeps its name and its counters.
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
    let writer = context.open_to_change()?;
    let old = context.written(&writer)?;
    let text = edit::promote(NAME, &context.command(), &old.text, &args.rules)
        .map_err(RulesError::of_the_ruleset_in_force)?;
    let edited = Edited {
        old: old.in_force,
        text,
        verb: Verb::Promote,
        safeguard: args.safeguard,
    };
    let change = edited
        .put_in_force(&writer)
        .map_err(report::of_the_ruleset_in_force)?;
    report::change(context, &change);
    Ok(())
}
