//! `portdemux upgrade`: make instances of older versions this version's.

use anyhow::Result;

use super::Context;

/// Take over what an older version runs, under traffic
///
/// The programs are exchanged under their links, each in one step: no packet goes past the rules, and none is lost.
/// Rules with their sets, counters, flows, sockets and an unconfirmed change stay. An instance of this version gets
/// this binary's programs. Where nothing is loaded it does nothing and succeeds.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux upgrade
  portdemux upgrade --all    every instance, as after an upgrade of the package")]
pub(super) struct Args {
    /// Upgrade every instance
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let instances = if args.all {
        context.paths.all()?
    } else {
        vec![context.paths.clone()]
    };
    let mut failed = None;
    let mut is_any = false;
    for paths in &instances {
        match context.at(paths.clone()).upgrade() {
            Ok(is_there) => is_any |= is_there,
            // The others are not kept waiting.
            Err(error) => {
                if let Some(before) = failed.replace(error) {
                    context.output.fail(&before);
                }
                is_any = true;
            }
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if !is_any {
        context.output.line("nothing is loaded: nothing to do");
    }
    Ok(())
}
