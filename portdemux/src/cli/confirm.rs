//! `portdemux confirm`: keep a change that would otherwise be undone.

use anyhow::Result;

use super::{Context, report};

/// Keep a change that was made with --confirm, or undo it at once
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux confirm
  portdemux confirm --undo")]
pub(super) struct Args {
    /// Return to the rules before the change without waiting for its time to end
    #[arg(long)]
    undo: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    if args.undo {
        report::change(context, &context.undo()?);
    } else {
        let generation = context.confirm()?;
        context
            .output
            .line(format!("generation {generation} is confirmed: it stays"));
    }
    Ok(())
}
