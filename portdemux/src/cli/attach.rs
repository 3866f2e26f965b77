//! `portdemux attach`: put the program on interfaces.

mod waiting;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use super::{
    Context, report,
    safeguard::{self, Safeguard, Verb},
};
use crate::{
    control::{Check, RulesText, attach::To},
    interface::Changes,
    rules::AttachMode,
};

/// Put the program on interfaces
///
/// Counting begins at once, and rules hold from the first packet. On an interface where it already
/// runs, the program is replaced by this binary's without a packet going past it; rules and counters
/// stay. Without IFACE it takes the interfaces that [attach] names: of the rules file, or of the rules in force.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux attach eth0
  portdemux attach eth0 eth1 --rules /etc/portdemux/default.toml
  portdemux attach --rules rules.toml    the interfaces in its [attach]
  portdemux attach                       those in [attach] of the rules in force
  portdemux attach eth0 --mode native    fail rather than run in generic mode")]
pub(super) struct Args {
    /// Interfaces to attach to
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Where the program runs: in the driver (native), in the network stack (generic), or in the
    /// driver if it can (auto); left out: what [attach] says, else auto
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// A rules file to apply before the program is attached
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Stay, and attach to interfaces as they come that are not there yet or are made anew
    #[arg(long)]
    wait: bool,
    /// Treat the rules file as the one for boot: while rules are in force, apply it only if it was changed
    /// since it was last applied. If it has a mistake, the rules in force stay; if none are in force, the
    /// rules that were last in force from this file hold
    #[arg(long, requires = "rules")]
    boot: bool,
    #[command(flatten)]
    strictness: report::Strictness,
    #[command(flatten)]
    safeguard: safeguard::Force,
}

impl Args {
    /// Whether it stays.
    pub(super) const fn waits(&self) -> bool {
        self.wait
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    Auto,
    Native,
    Generic,
}

impl From<ModeArg> for AttachMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Auto => Self::Auto,
            ModeArg::Native => Self::Native,
            ModeArg::Generic => Self::Generic,
        }
    }
}

impl Args {
    fn to(&self) -> To {
        To {
            interfaces: self.interfaces.clone(),
            mode: self.mode.map(AttachMode::from),
            may_come: self.wait,
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    // Before it is looked, so that nothing that comes meanwhile is missed.
    let changes = args.wait.then(Changes::listen);
    let safeguard = Safeguard::new(context, Verb::Attach, args.safeguard.into(), false);
    let check: Check<'_> = &|instance, joining, new| safeguard.check(instance, joining, new);
    let skip_expired = args.strictness.skip_expired;
    let taken = match &args.rules {
        Some(file) if args.boot => context.attach_at_boot(&args.to(), file, skip_expired, check)?,
        file => {
            let rules = file
                .as_ref()
                .map(|file| RulesText::to_apply(file, skip_expired));
            context.attach(&args.to(), rules.transpose()?.as_ref(), check)?
        }
    };
    match (&taken.change, taken.generation.0) {
        (Some(change), _) => {
            report::change(context, change);
            report::warn_of_ended_members(context, change);
        }
        (None, 0) => context.output.line(format!(
            "No rules: all that is well-formed passes and is counted. Next: {} stats --watch",
            context.command()
        )),
        (None, generation) => context.output.line(format!(
            "The rules of generation {generation} hold, counters kept"
        )),
    }
    if let Some(event) = taken.besides {
        context.tell(event);
    }
    match changes {
        Some(changes) => waiting::run(context, args, taken.wanted, &changes),
        None => Ok(()),
    }
}
