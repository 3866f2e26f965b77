//! `portdemux remove`: give claimed ports up.

use anyhow::Result;

use super::{
    Context, report,
    safeguard::{self, Safeguard, Verb},
};
use crate::{
    change::{self, Request},
    rules::{RulesError, edit, file::Reading},
};

/// Give up rules, or single ports of them
///
/// A name removes the rule of that name; a port removes it from the rule that claims it, and the rule
/// with its last port.
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
    let (lock, maps) = context.open_to_change()?;
    let old = context.in_force(&maps)?;
    let text = edit::remove("the rules in force", &old.record.text, &args.rules)
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
    let safeguard = Safeguard::new(Verb::Remove, args.safeguard, false);
    let check = |new: &_| safeguard.check(places, &maps, &[], new);
    let old = || Some(old.ruleset);
    let change = change::change(places, &maps, &lock, old, request, check)?;
    report::change(context, &change)
}
