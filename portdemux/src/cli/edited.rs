//! What verbs have in common that edit the text of the ruleset in force.

use anyhow::Result;

use super::safeguard::{self, Safeguard, Verb};
use crate::{
    change::{self, Change, InForce, Request},
    instance::Writer,
    rules::file::Reading,
};

/// How the ruleset is called in errors.
pub(super) const NAME: &str = "the rules in force";

/// A text that is to take the place of the one in force.
#[derive(Debug)]
pub(super) struct Edited {
    /// What is in force.
    pub(super) old: InForce,
    /// The text after the edit.
    pub(super) text: String,
    /// Who edits.
    pub(super) verb: Verb,
    /// What keeps it from cutting the session.
    pub(super) safeguard: safeguard::Args,
}

impl Edited {
    /// Puts it in force.
    ///
    /// # Errors
    ///
    /// As [`change::change`].
    pub(super) fn put_in_force(self, writer: &Writer) -> Result<Change> {
        let safeguard = Safeguard::new(self.verb, self.safeguard, false);
        let request = Request {
            text: self.text,
            source: self.old.source,
            name: NAME,
            reading: Reading::Known,
            dry_run: false,
            confirm: self.safeguard.confirm,
        };
        let check = |new: &_| safeguard.check(writer, &[], new);
        let old = || Some(self.old.ruleset);
        change::change(writer, old, request, check)
    }
}
