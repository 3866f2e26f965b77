//! The text of the rules in force is edited, and what comes of it is put in force.

use std::time::Duration;

use anyhow::Result;

use super::{Check, Control};
use crate::{
    change::{self, Change, Request},
    instance::Writer,
    maps::mapped::catching,
    rules::{
        Destination, RulesError,
        edit::{self, NewRule},
        file::Reading,
    },
};

/// How the ruleset is called in errors.
const NAME: &str = "the rules in force";

/// An edit.
#[derive(Clone, Copy, Debug)]
pub enum Edit<'e> {
    /// A rule is added.
    Add(&'e NewRule),
    /// Rules go, by their names, or ports of rules.
    Remove(&'e [String]),
    /// Shadows become real, by their names.
    Promote(&'e [String]),
}

impl Edit<'_> {
    /// The text after it, and how many lines of it are those from before.
    fn of(self, text: &str, command: &str) -> Result<String, RulesError> {
        match self {
            Self::Add(rule) => Ok(edit::append(text, rule)),
            Self::Remove(rules) => edit::remove(NAME, command, text, rules),
            Self::Promote(rules) => edit::promote(NAME, command, text, rules),
        }
    }

    /// Whether it needs no interface that a program is attached to.
    fn is_for_sockets(self) -> bool {
        matches!(self, Self::Add(rule) if matches!(rule.to, Some(Destination::Socket(_))))
    }
}

impl Control {
    /// Edits the rules in force. Where no instance is, one is made for a rule that needs no interface. With a time to
    /// confirm it, the change is undone by itself unless it is confirmed.
    ///
    /// # Errors
    ///
    /// The edit makes no sense, `check` objects or the kernel refuses; nothing was changed.
    pub fn edit(
        &self,
        edit: Edit<'_>,
        confirm: Option<Duration>,
        check: Check<'_>,
    ) -> Result<Change> {
        let (writer, is_new) = self.open_to_change_or_create(|| edit.is_for_sockets())?;
        let result = catching(|| self.put_edited_in_force(&writer, edit, confirm, check));
        if is_new && result.is_err() {
            // Nothing was there before, nothing stays.
            writer.lock().remove()?;
        }
        result
    }

    fn put_edited_in_force(
        &self,
        writer: &Writer,
        edit: Edit<'_>,
        confirm: Option<Duration>,
        check: Check<'_>,
    ) -> Result<Change> {
        let old = self.written(writer)?;
        // Lines are cited as those of the rules in force, save of a rule that is added: it has none there.
        let cited = |mistakes: RulesError| match edit {
            Edit::Add(_) => mistakes.of_an_addition(old.text.lines().count()),
            Edit::Remove(_) | Edit::Promote(_) => mistakes.of_the_ruleset_in_force(),
        };
        let request = Request {
            text: edit.of(&old.text, &self.command()).map_err(cited)?,
            source: old.in_force.source,
            name: NAME,
            reading: Reading::Known,
            dry_run: false,
            confirm,
        };
        let check = |new: &_| check(writer, &[], new);
        let change = change::change(writer, || Some(old.in_force.ruleset), request, check);
        change.map_err(|error| match error.downcast::<RulesError>() {
            Ok(mistakes) => cited(mistakes).into(),
            Err(error) => error,
        })
    }
}
