//! The rules that hold from boot on: the file that they are applied from, and what was last in force from it.
//!
//! A mistake in that file must not leave a host open. So whatever is put in force from it is kept in a second place,
//! and holds at a boot at which the file cannot be put in force.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Control, Event, text::canonical};
use crate::{
    attached, bounded,
    change::{self, InForce},
    clock::Clock,
    durable::{self, OldText},
    instance::Instance,
    maps::mapped::catching,
    rules::{
        Attach,
        file::{self, Reading},
    },
};

/// Why the file for boot protects nothing at the next boot.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// It cannot be put in force, as it is no text of rules.
    Unfit(io::Error),
    /// It has a mistake.
    Mistake,
    /// It does not say where it is attached.
    NoInterface,
}

impl Control {
    /// The file whose rules hold from boot on.
    pub(crate) fn boot_file(&self) -> PathBuf {
        self.config.join(self.rules_file())
    }

    /// Where the rules are kept that were last in force from the file for boot.
    pub(crate) fn last_file(&self) -> PathBuf {
        self.kept.join(self.rules_file())
    }

    fn rules_file(&self) -> String {
        format!("{}.toml", self.paths.instance)
    }

    /// Keeps a text that was put in force from a file, if that is the one for boot; returns a warning if it cannot be
    /// kept.
    pub(crate) fn keep(&self, source: Option<&Path>, text: &str) -> Option<Event> {
        let source = source?;
        let last = self.last_file();
        let keep = || -> io::Result<()> {
            let found = canonical(source)?;
            if found.is_some() && found == canonical(&self.boot_file())? {
                durable::replace(&last, text, 0o600, OldText::Gone)?;
            }
            Ok(())
        };
        keep().err().map(|error| Event::Warning {
            what: format!("these rules are not kept in {}: {error}", last.display()),
            help: Some(
                "they are in force; if the file has a mistake at the next boot, those kept before hold".into(),
            ),
        })
    }

    /// Keeps the rules in force for boot, once they stay.
    pub(crate) fn keep_in_force(&self, instance: &Instance) -> Option<Event> {
        match catching(|| change::written(instance)) {
            Ok(written) => self.keep(written.in_force.source.as_deref(), &written.text),
            Err(error) => Some(Event::warning_of(
                "these rules are not kept for the next boot",
                &error,
            )),
        }
    }

    /// Whether the rules in force are those that were last in force from the file for boot, as that has a mistake; they
    /// are that file's again once it says the same.
    pub(crate) fn fell_back(&self, in_force: &InForce) -> bool {
        let last = fs::canonicalize(self.last_file()).ok();
        last.is_some() && in_force.source == last && !self.was_in_force(&self.boot_file())
    }

    /// Whether a file says what was last in force from the one for boot.
    pub(crate) fn was_in_force(&self, file: &Path) -> bool {
        let last = bounded::bytes(&self.last_file());
        last.is_ok_and(|last| bounded::says(file, &last).unwrap_or(false))
    }

    /// What is wrong with the file for boot, if it is there and can be read; `saved` is what is in force, if the file
    /// says the same.
    pub(crate) fn flaw(&self, saved: Option<&InForce>) -> Option<Flaw> {
        let names_none =
            |attach: &Attach| attach.interfaces.is_empty().then_some(Flaw::NoInterface);
        if let Some(saved) = saved {
            return names_none(saved.ruleset.attach());
        }
        let file = self.boot_file();
        let text = match bounded::kept(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Some(Flaw::Unfit(error));
            }
            Err(_) => return None,
        };
        let reading = Reading::Written {
            now: Clock::now().unix,
            skip_expired: true,
        };
        match file::read(&file.display().to_string(), &text, reading) {
            Ok(ruleset) => names_none(ruleset.attach()),
            Err(_) => Some(Flaw::Mistake),
        }
    }

    /// Whether this file, if it is there, is the one for boot.
    pub(crate) fn is_boot_file(&self, file: &Path) -> bool {
        let found = |path: &Path| canonical(path).ok().flatten();
        found(file).is_some_and(|file| found(&self.boot_file()) == Some(file))
    }

    /// A warning that the file for boot does not say where it is attached, and what to write.
    pub(crate) fn no_interface(&self, instance: &Instance) -> Event {
        let attached = catching(|| attached::interfaces(instance)).unwrap_or_default();
        let attached = attached
            .into_iter()
            .filter(|interface| interface.state.is_attached());
        let names: Vec<String> = attached
            .map(|interface| format!("{:?}", interface.renamed.unwrap_or(interface.name)))
            .collect();
        let names = match &names[..] {
            [] => "\"eth0\"".into(),
            [name] => name.clone(),
            names => format!("[{}]", names.join(", ")),
        };
        let file = self.boot_file();
        let (file, command) = (file.display(), self.command());
        Event::Warning {
            what: format!(
                "{file} has no [attach]: at boot its rules are put in force on no interface, and the host is open"
            ),
            help: Some(format!(
                "add these lines to it, then: {command} apply {file}\n\
                 \x20        [attach]\n\
                 \x20        interface = {names}"
            )),
        }
    }
}
