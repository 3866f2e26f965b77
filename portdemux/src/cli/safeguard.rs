//! What keeps a change from cutting the session that it is made from.

use std::cell::RefCell;

use anyhow::{Result, anyhow};
use portdemux_common::{reason::Reason, ruleset::RulesetImage};

use super::output;
use crate::{
    dataplane::{maps::Maps, pins::Places},
    error::Help as _,
    lockout::{self, Cut},
    session::Hook,
};

/// What a verb that can cut the session takes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    force: Force,
}

/// What goes on in spite of it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Force {
    /// Go on even if this cuts the session it is typed in
    #[arg(long)]
    force: bool,
}

impl From<Force> for Args {
    fn from(force: Force) -> Self {
        Self { force }
    }
}

/// Who asks: what there is to do about it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Apply,
    Attach,
    Remove,
}

/// Looks at a change before it is made.
#[derive(Debug)]
pub(super) struct Safeguard {
    verb: Verb,
    args: Args,
    is_dry_run: bool,
    refusal: RefCell<Option<anyhow::Error>>,
}

impl Safeguard {
    pub(super) const fn new(verb: Verb, args: Args, is_dry_run: bool) -> Self {
        Self {
            verb,
            args,
            is_dry_run,
            refusal: RefCell::new(None),
        }
    }

    /// Stops a change that would cut the session, or warns of it if it is wanted all the same.
    ///
    /// A dry run goes on to say what would change, and ends in [`Self::finish`].
    pub(super) fn check(
        &self,
        places: &Places,
        maps: &Maps,
        joining: &[Hook],
        new: &RulesetImage,
    ) -> Result<()> {
        let Some(cut) = lockout::cut(places, maps, joining, new) else {
            return Ok(());
        };
        let Cut { session, reason } = &cut;
        let what = |verb: &str| {
            let reason = reason.name();
            format!("this {verb} the SSH session you are typing in ({session}: {reason})")
        };
        if self.args.force.force {
            output::warn(what("cuts"), None);
            return Ok(());
        }
        let refusal = Err(anyhow!(what("would cut"))).help(|| self.advice(&cut));
        if self.is_dry_run {
            *self.refusal.borrow_mut() = refusal.err();
            return Ok(());
        }
        refusal
    }

    /// Ends a dry run as the change itself would have ended.
    pub(super) fn finish(self) -> Result<()> {
        self.refusal.into_inner().map_or(Ok(()), Err)
    }

    fn advice(&self, cut: &Cut) -> String {
        let peer = cut.session.peer.ip();
        let lets_in = match (cut.reason, self.verb) {
            (Reason::SourceNotAllowed, Verb::Add) => Some(format!("add --from {peer}")),
            (Reason::SourceNotAllowed, _) => Some(format!("let {peer} in by from")),
            _ => None,
        };
        let ways = lets_in.into_iter().chain(["--force".to_owned()]);
        format!(
            "{}; nothing was changed",
            ways.collect::<Vec<_>>().join(", or ")
        )
    }
}
