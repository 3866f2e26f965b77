//! `portdemux apply`: put a rules file in force.

use std::path::PathBuf;

use anyhow::Result;

use super::{
    Context,
    attach::VERIFYING,
    boot,
    output::{self, Progress},
    report::{self, RulesText},
    safeguard::{self, Safeguard, Verb},
};
use crate::{change, dataplane::mapped::catching, instance::Writer};

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
    let rules = report::read_rules_to_apply(&args.file, args.strictness)?;
    let has_sockets = || report::names_sockets(&rules);
    let (writer, is_new) = context.open_to_change_or_create(has_sockets)?;
    let result = catching(|| put_in_force(args, context, &rules, &writer));
    if is_new && (result.is_err() || args.dry_run) {
        // Nothing was there before, nothing stays.
        writer.lock().remove()?;
    }
    result
}

fn put_in_force(args: &Args, context: &Context, rules: &RulesText, writer: &Writer) -> Result<()> {
    let _progress = Progress::of(VERIFYING);
    // Without the old text the new one can still be applied: that is how a lost record is mended.
    let old = || match Context::in_force(writer) {
        Ok(old) => Some(old.ruleset),
        Err(error) => {
            output::warn_of("what changes is not known", &error);
            None
        }
    };
    let safeguard = Safeguard::new(Verb::Apply, args.safeguard, args.dry_run);
    let check = |new: &_| safeguard.check(writer, &[], new);
    let request = rules.request(args.dry_run, args.safeguard.confirm);
    let change = change::change(writer, old, request, check)?;
    report::change(context, &change);
    report::warn_of_ended_members(&change);
    if change.generation.is_some() && change.waits.is_none() {
        boot::keep(context, rules.source.as_deref(), &rules.text);
    }
    report::note_elsewhere(context, writer, change.plan.new_ruleset().attach());
    safeguard.finish()
}
