//! `portdemux confirm`: keep a change that would otherwise be undone.

use anyhow::{Result, anyhow, bail};

use super::{Context, output, report, told};
use crate::{
    confirm,
    dataplane::maps::Maps,
    error::Help as _,
    unconfirmed::{self, Status, UnconfirmedChange},
};

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
    let writer = context.open_locked()?;
    let lock = writer.lock();
    let Some(unconfirmed) = UnconfirmedChange::read(&writer.paths)? else {
        return nothing_waits();
    };
    let generation = unconfirmed.generation;
    match unconfirmed.status(&writer.maps) {
        Status::Waiting(_) if !args.undo => {
            confirm::confirm(&writer)?;
            context
                .output
                .line(format!("generation {generation} is confirmed: it stays"));
            context
                .keep_in_force(&writer)
                .into_iter()
                .for_each(told::tell);
            Ok(())
        }
        Status::Waiting(_) | Status::Overdue if args.undo => {
            let change = confirm::undo(&writer, &unconfirmed)?;
            report::change(context, &change);
            // What is undone is undone, whether that can be written or not.
            if let Err(error) = unconfirmed::discard(lock) {
                output::warn(
                    format!("{error:#}"),
                    Some(&format!(
                        "until the next change, {} status says that it was not confirmed in time",
                        context.command()
                    )),
                );
            }
            Ok(())
        }
        Status::Waiting(_) | Status::Overdue => {
            let change = confirm::undo(&writer, &unconfirmed)?;
            for (what, help) in &change.warnings {
                output::warn(what, Some(help));
            }
            too_late(generation, &writer.maps)
        }
        Status::Undone if args.undo => bail!("generation {generation} is undone already"),
        Status::Undone => too_late(generation, &writer.maps),
        Status::Void => {
            unconfirmed::discard(lock)?;
            nothing_waits()
        }
    }
}

fn too_late(generation: u64, maps: &Maps) -> Result<()> {
    Err(anyhow!(
        "generation {generation} was not confirmed in time: the rules before it are in force again, as \
         generation {}",
        maps.generation().0
    ))
    .help(|| "apply it again, with more time".into())
}

fn nothing_waits() -> Result<()> {
    Err(anyhow!("no change waits to be confirmed"))
        .help(|| "apply, add and remove make one with --confirm 60s".into())
}
