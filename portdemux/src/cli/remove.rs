//! `portdemux remove`: give claimed ports up.

use anyhow::Result;

use super::{
    Context, report,
    safeguard::{self, Verb},
};
use crate::control::Edit;

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
    report::edit(
        context,
        Edit::Remove(&args.rules),
        Verb::Remove,
        args.safeguard,
    )
}
