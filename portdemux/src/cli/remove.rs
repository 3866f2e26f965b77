//! `portdemux remove`: give claimed ports up.

use anyhow::Result;

use super::{
    Context,
    edited::{Edited, NAME},
    report,
    safeguard::{self, Verb},
};
use crate::rules::{RulesError, edit};

/// Remove rules, or single ports of them
///
/// A name removes the rule of that name. A port is taken from the rule that claims it; a rule goes with its last
/// port.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux remove https
  portdemux remove 8080/tcp")]
pub(super) struct Args {
    /// Names of rules, or ports as they were claimed
    #[arg(required = true, value_name = "PORT|NAME")]
    rules: Vec<String>,
    #[command(flatten)]
    safeguard: safeguard::Args,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let writer = context.open_to_change()?;
    let old = context.written(&writer)?;
    let text = edit::remove(NAME, &context.command(), &old.text, &args.rules)
        .map_err(RulesError::of_the_ruleset_in_force)?;
    let edited = Edited {
        old: old.in_force,
        text,
        verb: Verb::Remove,
        safeguard: args.safeguard,
    };
    let change = edited
        .put_in_force(&writer)
        .map_err(report::of_the_ruleset_in_force)?;
    report::change(context, &change);
    Ok(())
}
