//! `portdemux follow`: find sockets and interfaces again that were gone.

use anyhow::Result;

use super::Context;
use crate::follower;

/// Find sockets and interfaces of rules again that were gone
///
/// Goes on until no rule needs it. Where one does, apply, add and attach start it in the background; a service
/// manager can run it in their place. An interface that rules send to gets its packets back when it is made
/// anew. Of TCP sockets the kernel tells by itself, where control groups of version 2 are mounted; those of
/// UDP have to be looked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux follow
  portdemux --instance lab follow")]
pub(super) struct Args {
    /// Belong to no terminal
    #[arg(long, hide = true)]
    background: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    follower::run(&context.places, args.background)
}
