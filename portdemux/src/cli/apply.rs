//! `portdemux apply`: put a rules file in force.

use std::path::PathBuf;

use anyhow::Result;

use super::{
    Context, report,
    safeguard::{self, Safeguard, Verb},
};
use crate::control::{Applied, Apply, RulesText};

/// Put a rules file in force
///
/// The whole file replaces the rules in force in one step: every packet meets the old rules or the
/// new ones, never a mix. A rule that keeps its name keeps its counters. Any mistake in the file
/// leaves everything as it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux apply portdemux.toml
  portdemux apply portdemux.toml --dry-run
  portdemux apply portdemux.toml --confirm 60s    then: portdemux confirm
  portdemux export | sed s/local/drop/ | portdemux apply -")]
pub(super) struct Args {
    /// The rules file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    strictness: report::Strictness,
    #[command(flatten)]
    safeguard: safeguard::Args,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let rules = RulesText::to_apply(&args.file, args.strictness.skip_expired)?;
    let safeguard = Safeguard::new(context, Verb::Apply, args.safeguard, args.dry_run);
    let how = Apply {
        dry_run: args.dry_run,
        confirm: args.safeguard.confirm,
    };
    let Applied { change, besides } = context.apply(&rules, how, &|instance, joining, new| {
        safeguard.check(instance, joining, new)
    })?;
    report::change(context, &change);
    report::warn_of_ended_members(context, &change);
    for event in besides {
        context.tell(event);
    }
    safeguard.finish()
}
