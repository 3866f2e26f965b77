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
    change::{self, InForce},
    dataplane::{mapped::catching, maps::Maps},
    durable::{self, Before},
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
pub(super) fn keep_in_force(context: &Context, maps: &Maps) {
    match catching(|| change::written(&context.places, maps)) {
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
    let last = fs::read(context.last_file());
    last.is_ok_and(|last| fs::read(file).is_ok_and(|now| now == last))
}

/// Whether the file for boot cannot be put in force.
pub(super) fn has_mistake(context: &Context) -> bool {
    report::read_rules_to_apply(&context.boot_file(), report::Strictness::AT_BOOT)
        .is_ok_and(|rules| rules.attach().is_err())
}
