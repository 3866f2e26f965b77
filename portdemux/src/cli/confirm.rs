//! `portdemux confirm`: keep a change that would otherwise be undone.

use anyhow::{Result, anyhow, bail};

use super::{Context, boot, output, report, upgrade};
use crate::{
    dataplane::{links, maps::Maps},
    error::Help as _,
    unconfirmed::{self, Standing, UnconfirmedChange},
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
    links::check_capabilities()?;
    let places = &context.places;
    let lock = places.lock()?;
    upgrade::finish(&lock)?;
    lock.refuse_half_removed()?;
    let writer = lock.open()?;
    Context::resume(&writer);
    let Some(unconfirmed) = UnconfirmedChange::read(places)? else {
        return nothing_waits();
    };
    let generation = unconfirmed.generation;
    match unconfirmed.standing(&writer.maps) {
        Standing::Waits(_) if !args.undo => {
            unconfirmed::confirm(&writer)?;
            context
                .output
                .line(format!("generation {generation} is confirmed: it stays"));
            boot::keep_in_force(context, &writer);
            Ok(())
        }
        Standing::Waits(_) | Standing::Overdue if args.undo => {
            let change = unconfirmed.undo(&writer)?;
            report::change(context, &change);
            // What is undone is undone, whether that can be written or not.
            if let Err(error) = unconfirmed::discard(&lock) {
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
        Standing::Waits(_) | Standing::Overdue => {
            let change = unconfirmed.undo(&writer)?;
            for (what, help) in &change.warnings {
                output::warn(what, Some(help));
            }
            too_late(generation, &writer.maps)
        }
        Standing::Undone if args.undo => bail!("generation {generation} is undone already"),
        Standing::Undone => too_late(generation, &writer.maps),
        Standing::Void => {
            unconfirmed::discard(&lock)?;
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
