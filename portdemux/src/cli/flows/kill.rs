//! `portdemux flows kill`: forget flows.

use anyhow::{Result, anyhow};

use super::Selectors;
use crate::{
    cli::{
        Context,
        safeguard::{Force, UNSEEN},
    },
    error::Help as _,
    figures::grouped,
    lockout::Cut,
};

/// Forget flows: the next packet of each is judged as a new one
///
/// A rule that lets anyone in lets them in again. Replies to this host come in again once it has sent
/// something more. To keep a peer out, deny it: that holds for live flows at once.
#[derive(Debug, clap::Args)]
#[command(
    group(
        clap::ArgGroup::new("which")
            .required(true)
            .multiple(true)
            .args(["ports", "sources", "states", "all"])
    ),
    after_help = "\
Examples:
  portdemux flows kill --source 198.51.100.7
  portdemux flows kill --port 8000-8999/tcp --state established
  portdemux flows kill --all"
)]
pub(super) struct Args {
    #[command(flatten)]
    selectors: Selectors,
    /// All flows
    #[arg(long, conflicts_with_all = ["ports", "sources", "states"])]
    all: bool,
    #[command(flatten)]
    force: Force,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let check = |cut: Result<Option<Cut>>| match cut {
        Ok(None) => Ok(()),
        Err(error) if args.force.is_given() => {
            context.output.warn_of(UNSEEN, &error);
            Ok(())
        }
        Err(error) => Err(error.context(UNSEEN))
            .help(|| "--force does it all the same; nothing was changed".into()),
        Ok(Some(Cut { session, reason })) => {
            let what = |verb: &str| {
                let reason = reason.name();
                format!("this {verb} the SSH session you are typing in ({session}: {reason})")
            };
            if args.force.is_given() {
                context.output.warn(what("cuts"), None);
                return Ok(());
            }
            Err(anyhow!(what("would cut")))
                .help(|| "name other flows, or --force; nothing was changed".into())
        }
    };
    let forgotten = context.forget_flows(&args.selectors.selection(), check)?;
    context.output.line(match forgotten {
        0 => "no such flow is known; nothing was changed".to_owned(),
        1 => "1 flow forgotten: its next packet is judged as a new one".into(),
        _ => format!(
            "{} flows forgotten: their next packets are judged as new ones",
            grouped(forgotten as u64)
        ),
    });
    Ok(())
}
