//! `portdemux flows kill`: forget flows.

use anyhow::{Result, anyhow};

use super::{Selectors, tracked};
use crate::{
    cli::{
        Context, output,
        safeguard::{Force, UNSEEN},
    },
    dataplane::flows::Flow,
    error::Help as _,
    figures::grouped,
    lockout::{self, Cut},
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
    let writer = context.open_to_change()?;
    let flows = tracked(writer.maps.flows()?, context)?;
    let selection = args.selectors.selection();
    let chosen = || flows.all().filter(|flow| selection.holds(flow));
    let cut = match lockout::cut_if_new(&writer) {
        Err(error) if args.force.is_given() => {
            output::warn_of(UNSEEN, &error);
            None
        }
        Err(error) => {
            return Err(error.context(UNSEEN))
                .help(|| "--force does it all the same; nothing was changed".into());
        }
        Ok(cut) => cut,
    };
    if let Some(cut) = cut
        && chosen().any(|flow| depends_on(&flow, &cut))
    {
        let what = |verb: &str| {
            let (session, reason) = (&cut.session, cut.reason.name());
            format!("this {verb} the SSH session you are typing in ({session}: {reason})")
        };
        if !args.force.is_given() {
            return Err(anyhow!(what("would cut")))
                .help(|| "name other flows, or --force; nothing was changed".into());
        }
        output::warn(what("cuts"), None);
    }
    // What changes hands meanwhile is not forgotten; nor is it what was asked for.
    let forgotten = chosen().filter(|flow| flows.forget(flow)).count();
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

/// Whether packets of the session come in because of this flow: as replies to what this host began. Under
/// the rules they are judged alike whether they begin anything or not.
fn depends_on(flow: &Flow, cut: &Cut) -> bool {
    let (local, peer) = (cut.session.local, cut.session.peer);
    flow.status.is_from_here()
        && (flow.protocol(), flow.local(), flow.peer()) == ("tcp", local.ip(), peer.ip())
        && (flow.local_port(), flow.peer_port()) == (Some(local.port()), Some(peer.port()))
}
