//! `portdemux export`: print the rules in force.

use anyhow::Result;

use super::Context;

/// Print the rules in force as a rules file, comments included
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  portdemux export > portdemux.toml")]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, context: &Context) -> Result<()> {
    let maps = context.open()?;
    let in_force = context.in_force(&maps)?;
    context.output.write(&in_force.record.text)?;
    Ok(())
}
