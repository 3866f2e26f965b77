//! `portdemux promote`: make shadows real.

use anyhow::Result;

use super::{
    Context, report,
    safeguard::{self, Verb},
};
use crate::control::Edit;

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
    report::edit(
        context,
        Edit::Promote(&args.rules),
        Verb::Promote,
        args.safeguard,
    )
}
