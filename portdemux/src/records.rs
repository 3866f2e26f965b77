//! The text of the ruleset in force, with its names and comments.
//!
//! The kernel holds what packets are decided by; the text it came from lies in a record whose name is
//! the text's hash. A change writes the new record before it puts the new ruleset in force and
//! removes the old one after, so that whichever ruleset a crash leaves in force has its record.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::dataplane::pins::Lock;

/// The hash of a ruleset's text.
pub type TextHash = [u8; 32];

/// How a record begins: with a line that says, in JSON, where the text that follows it came from.
const SOURCE: &str = "# source = ";

/// What is kept about a ruleset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The file it was applied from, if it came from one and was not changed since.
    pub source: Option<PathBuf>,
    /// The text.
    pub text: String,
}

/// The records of an instance.
#[derive(Clone, Debug)]
pub struct Records {
    directory: PathBuf,
}

impl Record {
    /// The hash under which it is kept.
    #[must_use]
    pub fn hash(&self) -> TextHash {
        *blake3::hash(self.text.as_bytes()).as_bytes()
    }
}

impl Records {
    /// The records in a directory.
    #[must_use]
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The record of the text with this hash.
    ///
    /// # Errors
    ///
    /// It is missing, damaged, or may not be read.
    pub fn read(&self, hash: &TextHash) -> Result<Record> {
        let path = self.path(hash);
        let kept = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let parts = kept
            .split_once('\n')
            .and_then(|(line, text)| Some((line.strip_prefix(SOURCE)?, text)));
        let (source, text) =
            parts.with_context(|| format!("{} does not begin as a record", path.display()))?;
        let record = Record {
            source: serde_json::from_str(source)
                .with_context(|| format!("understand {}", path.display()))?,
            text: text.into(),
        };
        anyhow::ensure!(record.hash() == *hash, "{} is damaged", path.display());
        Ok(record)
    }

    /// Keeps a record under the hash of its text, beside the one of the ruleset in force.
    ///
    /// It need not reach a disk: the ruleset that it belongs to lives no longer than the kernel, and
    /// what a process has written stays when that process is killed.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&self, record: &Record, hash: &TextHash, _lock: &Lock) -> Result<()> {
        let path = self.path(hash);
        // Under another name first: a record is there whole or not at all.
        let unfinished = path.with_extension("new");
        let write = || -> io::Result<()> {
            let source = serde_json::to_string(&record.source)?;
            let mut file = File::create(&unfinished)?;
            file.write_all(format!("{SOURCE}{source}\n").as_bytes())?;
            file.write_all(record.text.as_bytes())?;
            fs::rename(&unfinished, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Removes every record but that of `kept`, and returns how many there were.
    ///
    /// # Errors
    ///
    /// One cannot be removed.
    pub fn sweep(&self, kept: &TextHash, _lock: &Lock) -> Result<usize> {
        let kept = self.path(kept);
        let mut removed = 0;
        let entries = fs::read_dir(&self.directory)
            .with_context(|| format!("read {}", self.directory.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path != kept && is_record(&path) {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn path(&self, hash: &TextHash) -> PathBuf {
        self.directory.join(format!(
            "{}.toml",
            &blake3::Hash::from(*hash).to_hex()[..32]
        ))
    }
}

fn is_record(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "toml" || extension == "new")
}
