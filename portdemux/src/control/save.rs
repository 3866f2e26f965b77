//! The rules in force are written to a file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use super::{Control, Event, canonical};
use crate::{
    bounded, change,
    clock::Clock,
    durable::{self, OldText},
    error::Help as _,
    maps::mapped::catching,
    rules::edit,
    unconfirmed,
};

/// Where the rules in force were written to.
#[derive(Debug)]
pub struct Saved {
    /// The file, links followed.
    pub file: PathBuf,
    /// The generation of the rules.
    pub generation: u64,
    /// How many there are.
    pub rules: usize,
    /// Whether what the file said before is kept beside it.
    pub replaced: bool,
    /// What is to be known besides.
    pub besides: Option<Event>,
}

impl Control {
    /// Writes the rules in force to a file, by default to that which they are applied from at boot. Comments stay;
    /// members of sets whose time is past are left out.
    ///
    /// # Errors
    ///
    /// No rules are in force, a change waits to be confirmed, or the file cannot be written.
    pub fn save(&self, file: Option<&Path>) -> Result<Saved> {
        let file = file.map_or_else(|| self.boot_file(), Path::to_path_buf);
        durable::check(&file)
            .with_context(|| format!("write {}", file.display()))
            .help(|| {
                let command = self.command();
                format!("{command} export writes to standard output; nothing was written")
            })?;
        let writer = self.open_to_change()?;
        // Nobody has said yet that it stays.
        unconfirmed::refuse_while_one_waits(&writer)?;
        let written = change::written(&writer)?;
        if written.in_force.generation.0 == 0 {
            return Err(anyhow!("no rules are in force")).help(|| {
                let command = self.command();
                format!("{command} apply FILE puts some in force; nothing was written")
            });
        }
        if let Some(why) = written.in_force.lost {
            return Err(anyhow!("the text of the ruleset in force is lost ({why})"))
                .help(|| "apply the rules file again; nothing was written".into());
        }
        let text = edit::without_ended(&written.text, Clock::now().unix);
        // What a link leads to is replaced, not the link.
        let found = canonical(&file).with_context(|| format!("find {}", file.display()))?;
        let file = found.unwrap_or(file);
        let replaced = durable::replace(&file, &text, 0o644, OldText::Kept)
            .with_context(|| format!("write {}", file.display()))
            .help(|| {
                if bounded::says(&file, text.as_bytes()).unwrap_or(false) {
                    "the file says so now, but a loss of power may undo that".into()
                } else {
                    "the file says what it said before".into()
                }
            })?;
        if let Err(error) = catching(|| change::came_from(&writer, &file)) {
            let what = "the rules in force do not say that they stand in this file";
            self.events.warn_of(what, &error);
        }
        if let Some(event) = self.keep(Some(&file), &text) {
            self.events.tell(event);
        }
        let ruleset = &written.in_force.ruleset;
        let names_none = ruleset.attach().interfaces.is_empty() && self.is_boot_file(&file);
        Ok(Saved {
            generation: written.in_force.generation.0,
            rules: ruleset.rules().len(),
            file,
            replaced,
            besides: names_none.then(|| self.no_interface(&writer)),
        })
    }
}
