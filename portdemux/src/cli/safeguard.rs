//! What keeps a change from cutting the session that it is made from.

use std::{cell::RefCell, time::Duration};

use anyhow::{Result, anyhow};
use portdemux_common::reason::Reason;

use super::{Context, output::Output, with_help};
use crate::{
    error::Help as _,
    image::Compiled,
    instance::Instance,
    lockout::{self, Cut},
    rules::duration::{duration_text, parse_duration, seconds},
    session::Hook,
};

/// What a verb that can cut the session takes.
#[derive(Clone, Copy, Debug, clap::Args)]
// Verbs have it beside a group that is called after their own `Args`.
#[group(id = "safeguard")]
pub(super) struct Args {
    /// Undo the change after this time, as in 60s or 5m, 24h at most, unless portdemux confirm comes
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) confirm: Option<Duration>,
    #[command(flatten)]
    force: Force,
}

/// The longest time that a change can wait.
const LONGEST: Duration = Duration::from_hours(24);

/// What goes on in spite of it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Force {
    /// Go on even if this cuts the session it is typed in
    #[arg(long)]
    force: bool,
}

impl Force {
    /// Whether it was said.
    pub(super) const fn is_given(self) -> bool {
        self.force
    }
}

impl From<Force> for Args {
    fn from(force: Force) -> Self {
        Self {
            confirm: None,
            force,
        }
    }
}

/// Who asks: what there is to do about it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Apply,
    Attach,
    Promote,
    Remove,
    Set,
}

/// What is said where `/proc` cannot be read.
pub(super) const UNSEEN: &str =
    "whether this cuts the session that you are typing in cannot be seen";

/// Looks at a change before it is made.
#[derive(Debug)]
pub(super) struct Safeguard<'c> {
    output: &'c Output,
    verb: Verb,
    args: Args,
    is_dry_run: bool,
    refusal: RefCell<Option<anyhow::Error>>,
}

impl<'c> Safeguard<'c> {
    pub(super) const fn new(
        context: &'c Context,
        verb: Verb,
        args: Args,
        is_dry_run: bool,
    ) -> Self {
        Self {
            output: &context.output,
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
        instance: &Instance,
        joining: &[Hook],
        new: &Compiled,
    ) -> Result<()> {
        let cut = match lockout::cut(instance, joining, new) {
            Ok(Some(cut)) => cut,
            Ok(None) => return Ok(()),
            Err(error) if self.args.force.force || self.args.confirm.is_some() => {
                self.output.warn_of(UNSEEN, &error);
                return Ok(());
            }
            Err(error) => {
                return Err(error.context(UNSEEN))
                    .help(|| "--force does it all the same; nothing was changed".into());
            }
        };
        let Cut { session, reason } = &cut;
        let what = |verb: &str| {
            let reason = reason.name();
            format!("this {verb} the SSH session you are typing in ({session}: {reason})")
        };
        if let Some(within) = self.args.confirm {
            let within = seconds(within);
            self.output.warn(
                what("cuts"),
                Some(&format!(
                    "it is undone after {within}, unless {} confirm comes",
                    instance.paths.command()
                )),
            );
            return Ok(());
        }
        if self.args.force.force {
            self.output.warn(what("cuts"), None);
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
        let on_trial = match self.verb {
            Verb::Apply | Verb::Add | Verb::Promote | Verb::Remove => {
                Some("try it with --confirm 60s".to_owned())
            }
            Verb::Attach | Verb::Set => None,
        };
        let ways = lets_in
            .into_iter()
            .chain(on_trial)
            .chain(["--force".to_owned()]);
        format!(
            "{}; nothing was changed",
            ways.collect::<Vec<_>>().join(", or ")
        )
    }
}

/// Reads how long a change waits, and says how to write it.
fn time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| with_help(&error, &error.help()))?;
    if time.is_zero() {
        return Err(format!(
            "`{text}` leaves no time to confirm it\n help: write a longer time, as in 60s"
        ));
    }
    if time > LONGEST {
        return Err(format!(
            "`{text}` is too long\n help: {} is the longest",
            duration_text(LONGEST)
        ));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(time("60s"), Ok(Duration::from_mins(1)));
        assert_eq!(time("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(time("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!([time("24h"), time("1d")], [Ok(LONGEST), Ok(LONGEST)]);
        for (text, said) in [
            ("60", "`60` has no unit\n"),
            ("", "`` is no duration\n"),
            ("s", "`s` is no duration\n"),
            ("2d", "`2d` is too long\n"),
            ("-1s", "`-1s` is no duration\n"),
            ("0m", "`0m` leaves no time to confirm it\n"),
            ("25h", "`25h` is too long\n"),
            (
                "9999999999999999999h",
                "`9999999999999999999h` is too long\n",
            ),
        ] {
            let error = time(text).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
