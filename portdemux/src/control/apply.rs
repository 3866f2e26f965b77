//! A rules file is put in force.

use std::time::Duration;

use anyhow::Result;

use super::{Check, Control, Event, RulesText};
use crate::{
    attached,
    change::{self, Change},
    instance::{Instance, Writer},
    maps::mapped::catching,
    rules::Attach,
};

/// How a rules file is put in force.
#[derive(Clone, Copy, Debug, Default)]
pub struct Apply {
    /// Whether to stop after the plan.
    pub dry_run: bool,
    /// How long there is to confirm the change before it is undone by itself; none if it stays.
    pub confirm: Option<Duration>,
}

/// What came of it.
#[derive(Debug)]
pub struct Applied {
    /// The change.
    pub change: Change,
    /// What is to be known besides.
    pub besides: Vec<Event>,
}

impl Control {
    /// Puts a rules file in force in one step: every packet meets the rules before or these. Where no instance is, one
    /// is made for rules that need no interface.
    ///
    /// # Errors
    ///
    /// The text has mistakes, `check` objects or the kernel refuses; nothing was changed.
    pub fn apply(&self, rules: &RulesText, how: Apply, check: Check<'_>) -> Result<Applied> {
        let (writer, is_new) = self.open_to_change_or_create(|| rules.names_sockets())?;
        let result = catching(|| self.put_in_force(&writer, rules, how, check));
        if is_new && (result.is_err() || how.dry_run) {
            // Nothing was there before, nothing stays.
            writer.lock().remove()?;
        }
        result
    }

    fn put_in_force(
        &self,
        writer: &Writer,
        rules: &RulesText,
        how: Apply,
        check: Check<'_>,
    ) -> Result<Applied> {
        let _verifying = self.events.verifying();
        // Without the old text the new one can still be applied: that is how a lost record is mended.
        let old = || match self.in_force(writer) {
            Ok(old) => Some(old.ruleset),
            Err(error) => {
                self.events.warn_of("what changes is not known", &error);
                None
            }
        };
        let request = rules.request(how.dry_run, how.confirm);
        let check = |new: &_| check(writer, &[], new);
        let change = change::change(writer, old, request, check)?;
        let is_kept = change.generation.is_some() && change.waits.is_none();
        let kept = is_kept.then(|| self.keep(rules.source.as_deref(), &rules.text));
        let elsewhere = elsewhere(writer, change.plan.new_ruleset().attach());
        let besides = kept.into_iter().flatten().chain(elsewhere).collect();
        Ok(Applied { change, besides })
    }
}

/// Where the rules say that they are attached and are not, and the other way round: a change of rules attaches to
/// nothing. That it cannot be seen is a warning: the change is made by then.
fn elsewhere(instance: &Instance, said: &Attach) -> Option<Event> {
    if said.interfaces.is_empty() {
        return None;
    }
    let known = match catching(|| attached::interfaces(instance)) {
        Ok(known) => known,
        Err(error) => {
            return Some(Event::warning_of(
                "where they are attached is not known",
                &error,
            ));
        }
    };
    let attached: Vec<String> = known
        .into_iter()
        .filter(|interface| interface.state.is_attached())
        .map(|interface| interface.renamed.unwrap_or(interface.name))
        .collect();
    let only_in = |names: &[String], others: &[String]| {
        let names = names.iter().filter(|name| !others.contains(name));
        names.cloned().collect::<Vec<_>>()
    };
    let command = instance.paths.command();
    let said_so = |names: Vec<String>, what: &str, verb: &str| {
        (!names.is_empty()).then(|| {
            let (list, words) = (names.join(", "), names.join(" "));
            format!("{list} {what}: {command} {verb} {words}")
        })
    };
    let parts = [
        said_so(
            only_in(&said.interfaces, &attached),
            "in [attach] is not attached",
            "attach",
        ),
        said_so(
            only_in(&attached, &said.interfaces),
            "is attached and not in [attach]",
            "detach",
        ),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| Event::Note(parts.join("; ")))
}
