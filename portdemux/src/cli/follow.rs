//! `portdemux follow`: find sockets and interfaces again that were gone.

use anyhow::Result;

use super::Context;
use crate::follower;

/// Keep up with sockets and interfaces that rules name, when they are made anew
///
/// It runs until no rule needs it. Where a rule does, apply, add and attach start it in the background; a service
/// manager can run it instead. An interface that rules send to gets its packets back when it is made anew. The
/// kernel announces TCP sockets that listen where control groups of version 2 are mounted; UDP sockets have to be
/// looked for.
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
    follower::run(&context.paths, args.background)
}
