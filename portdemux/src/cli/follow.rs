//! `portdemux follow`: find sockets again whose processes were started anew.

use anyhow::Result;

use super::Context;
use crate::follower;

/// Find sockets again whose processes were started anew
///
/// Goes on until no rule needs it. Where one does, apply and add start it in the background; a service
/// manager can run it in their place. Of TCP sockets the kernel tells by itself, where control groups of
/// version 2 are mounted; those of UDP have to be looked for.
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
