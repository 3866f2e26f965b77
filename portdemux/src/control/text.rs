//! The text of a rules file that is to be put in force.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    bounded,
    change::Request,
    clock::Clock,
    error::Help as _,
    rules::{
        Attach, Destination, RulesError,
        file::{self, Reading},
    },
};

/// What there is to do about a rules file that cannot be read.
const READABLE: &str = "a rules file is a file of text, - is standard input";

/// A rules file that was read.
#[derive(Clone, Debug)]
pub struct RulesText {
    /// How to call it in errors.
    pub name: String,
    /// The text.
    pub text: String,
    /// The file it stands in, if it does.
    pub source: Option<PathBuf>,
    reading: Reading,
}

impl RulesText {
    /// A text that stands in no file; errors call it by `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
            source: None,
            reading: written(false),
        }
    }

    /// Reads a rules file that is to be put in force; `-` is standard input. Members of sets whose time is past are
    /// left out, or make the file one with mistakes.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn to_apply(path: &Path, skip_expired: bool) -> Result<Self> {
        Self::read(path, written(skip_expired)).help(|| format!("{READABLE}; nothing was changed"))
    }

    /// Reads a rules file that somebody wants to know something about; `-` is standard input.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn to_know(path: &Path) -> Result<Self> {
        Self::read(path, Reading::Known).help(|| READABLE.into())
    }

    fn read(path: &Path, reading: Reading) -> Result<Self> {
        let name = path.display().to_string();
        if name == "-" {
            let text = bounded::text(io::stdin().lock()).context("read standard input")?;
            return Ok(Self {
                name: "standard input".into(),
                text,
                source: None,
                reading,
            });
        }
        let text = bounded::file(path).with_context(|| format!("read {name}"))?;
        let source = canonical(path).with_context(|| format!("find {name}"))?;
        Ok(Self {
            name,
            text,
            source,
            reading,
        })
    }

    /// Where it says that it is attached.
    ///
    /// # Errors
    ///
    /// Names every mistake in it.
    pub fn attach(&self) -> Result<Attach, RulesError> {
        let ruleset = file::read(&self.name, &self.text, self.reading)?;
        Ok(ruleset.attach().clone())
    }

    /// Whether it names sockets: such rules hold where no program is attached to any interface, too.
    pub(super) fn names_sockets(&self) -> bool {
        // What is wrong with it is said when it is put in force.
        file::parse(&self.name, &self.text).is_ok_and(|ruleset| {
            let mut rules = ruleset.rules().iter();
            rules.any(|rule| matches!(rule.to, Destination::Socket(_)))
        })
    }

    /// What is to be done with it.
    pub(super) fn request(&self, dry_run: bool, confirm: Option<Duration>) -> Request<'_> {
        Request {
            text: self.text.clone(),
            source: self.source.clone(),
            name: &self.name,
            reading: self.reading,
            dry_run,
            confirm,
        }
    }
}

fn written(skip_expired: bool) -> Reading {
    Reading::Written {
        now: Clock::now().unix,
        skip_expired,
    }
}

/// The path of a file without links; none if there is no such file.
///
/// # Errors
///
/// That cannot be seen.
pub(crate) fn canonical(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}
