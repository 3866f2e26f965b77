//! `portdemux export`: print the rules in force.

use anyhow::Result;

use super::Context;
use crate::{clock::Clock, rules::edit};

/// Print the rules in force as a rules file, comments included
///
/// Members of sets whose time is past are left out, so that the file can be applied.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  portdemux export > portdemux.toml")]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, context: &Context) -> Result<()> {
    let instance = context.open()?;
    let written = context.written(&instance)?;
    // What is exported can be applied.
    let text = edit::without_ended(&written.text, Clock::now().unix);
    context.output.write_as_it_is(&text);
    Ok(())
}
