//! The rules that hold from boot on: the file that they are applied from, and what was last in force from it.
//!
//! A mistake in that file must not leave a host open. So whatever is put in force from it is kept in a second place,
//! and holds at a boot at which the file cannot be put in force.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Context, output, report};
use crate::{
    attached, bounded,
    change::{self, InForce},
    clock::Clock,
    dataplane::mapped::catching,
    durable::{self, Before},
    instance::Instance,
    rules::{
        Attach,
        file::{self, Reading},
    },
};

impl Context {
    /// The file whose rules hold from boot on.
    pub(crate) fn boot_file(&self) -> PathBuf {
        self.config.join(self.rules_file())
    }

    /// Where the rules are kept that were last in force from the file for boot.
    pub(crate) fn last_file(&self) -> PathBuf {
        self.kept.join(self.rules_file())
    }

    fn rules_file(&self) -> String {
        format!("{}.toml", self.places.instance)
    }
}

/// Keeps a text that was put in force from a file, if that is the one for boot; what cannot be kept is warned of.
pub(super) fn keep(context: &Context, source: Option<&Path>, text: &str) {
    let Some(source) = source else { return };
    let last = context.last_file();
    let keep = || -> io::Result<()> {
        let found = report::canonical(source)?;
        if found.is_some() && found == report::canonical(&context.boot_file())? {
            durable::replace(&last, text, 0o600, Before::Gone)?;
        }
        Ok(())
    };
    if let Err(error) = keep() {
        output::warn(
            format!("these rules are not kept in {}: {error}", last.display()),
            Some(
                "they are in force; if the file has a mistake at the next boot, those kept before hold",
            ),
        );
    }
}

/// The same for the rules in force, once they stay.
pub(super) fn keep_in_force(context: &Context, instance: &Instance) {
    match catching(|| change::written(instance)) {
        Ok(written) => keep(context, written.in_force.source.as_deref(), &written.text),
        Err(error) => output::warn_of("these rules are not kept for the next boot", &error),
    }
}

/// Whether the rules in force are those that were last in force from the file for boot, as that has a mistake; they
/// are that file's again once it says the same.
pub(super) fn fell_back(context: &Context, in_force: &InForce) -> bool {
    let last = fs::canonicalize(context.last_file()).ok();
    last.is_some() && in_force.source == last && !was_in_force(context, &context.boot_file())
}

/// Whether a file says what was last in force from the one for boot.
pub(super) fn was_in_force(context: &Context, file: &Path) -> bool {
    let last = bounded::bytes(&context.last_file());
    last.is_ok_and(|last| bounded::says(file, &last).unwrap_or(false))
}

/// Why the file for boot protects nothing at the next boot.
#[derive(Debug)]
pub(super) enum Flaw {
    /// It cannot be put in force, as it is no text of rules.
    Unfit(io::Error),
    /// It has a mistake.
    Mistake,
    /// It does not say where it is attached.
    NoInterface,
}

/// What is wrong with the file for boot, if it is there and can be read; `saved` is what is in force, if the file says
/// the same.
pub(super) fn flaw(context: &Context, saved: Option<&InForce>) -> Option<Flaw> {
    let names_none = |attach: &Attach| attach.interfaces.is_empty().then_some(Flaw::NoInterface);
    if let Some(saved) = saved {
        return names_none(saved.ruleset.attach());
    }
    let file = context.boot_file();
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
pub(super) fn is_boot_file(context: &Context, file: &Path) -> bool {
    let found = |path: &Path| report::canonical(path).ok().flatten();
    found(file).is_some_and(|file| found(&context.boot_file()) == Some(file))
}

/// Warns that the file for boot does not say where it is attached, and says what to write.
pub(super) fn warn_of_no_interface(context: &Context, instance: &Instance) {
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
    let file = context.boot_file();
    let (file, command) = (file.display(), context.command());
    output::warn(
        format!(
            "{file} has no [attach]: at boot its rules are put in force on no interface, and the host is open"
        ),
        Some(&format!(
            "add these lines to it, then: {command} apply {file}\n\
             \x20        [attach]\n\
             \x20        interface = {names}"
        )),
    );
}
