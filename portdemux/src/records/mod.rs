//! The text of the ruleset in force, with its names and comments.
//!
//! The kernel holds what packets are decided by; the text it came from lies in a record whose name is
//! the text's hash. A change writes the new record before it puts the new ruleset in force and
//! removes the old one after, so that whichever ruleset a crash leaves in force has its record.
//!
//! Changes of sets stand in a record beside it, a line each, and are part of the text that a command
//! reads. They are written before the kernel's tables change; the tables say how many of them they have.

mod sets;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use portdemux_common::state::Generation;
use serde::{Deserialize, Serialize};

use crate::{
    dataplane::pins::Lock,
    rules::{
        Ruleset,
        source::{Becomes, MemberChange},
        until::Until,
    },
};

/// The hash of a ruleset's text.
pub type TextHash = [u8; 32];

/// How a record begins: with a line that says, in JSON, where the text that follows it came from.
const SOURCE: &str = "# source = ";

/// How the name of a record ends.
const TEXT: &str = "toml";
/// How the name of what is kept of large sets ends.
const SETS: &str = "sets";
/// How the name of a record of changes ends.
const CHANGES: &str = "changes";

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
        Self::hash_of(&self.text)
    }

    /// The hash under which a text is kept.
    #[must_use]
    pub fn hash_of(text: &str) -> TextHash {
        *blake3::hash(text.as_bytes()).as_bytes()
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
        let path = self.path(hash, TEXT);
        let kept = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let (line, text) = kept.split_once('\n').unwrap_or_default();
        let record = Record {
            source: source(line).with_context(|| format!("understand {}", path.display()))?,
            text: text.into(),
        };
        anyhow::ensure!(record.hash() == *hash, "{} is damaged", path.display());
        Ok(record)
    }

    /// What the text with this hash says, without reading it, and the file it was applied from. None unless its
    /// sets are large, or if that is damaged or may not be read.
    #[must_use]
    pub fn ruleset(&self, hash: &TextHash) -> Option<(Option<PathBuf>, Ruleset)> {
        let kept = fs::read(self.path(hash, SETS)).ok()?;
        let mut line = String::new();
        let record = File::open(self.path(hash, TEXT)).ok()?;
        BufReader::new(record).read_line(&mut line).ok()?;
        let source = source(line.trim_end()).ok()?;
        Some((source, sets::read("the ruleset in force", &kept)?))
    }

    /// Keeps a record under the hash of its text, and what it says, beside the one of the ruleset in force.
    ///
    /// It need not reach a disk: the ruleset that it belongs to lives no longer than the kernel, and
    /// what a process has written stays when that process is killed.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(
        &self,
        record: &Record,
        hash: &TextHash,
        ruleset: &Ruleset,
        _lock: &Lock,
    ) -> Result<()> {
        if let Some(kept) = sets::write(&record.text, ruleset) {
            whole(&self.path(hash, SETS), &[&kept])?;
        }
        self.write_text(record, hash)
    }

    /// Says in a record which file it stands in.
    ///
    /// # Errors
    ///
    /// As [`Self::read`]; it cannot be written.
    pub fn name_source(&self, hash: &TextHash, source: PathBuf, _lock: &Lock) -> Result<()> {
        let Record { text, .. } = self.read(hash)?;
        self.write_text(
            &Record {
                source: Some(source),
                text,
            },
            hash,
        )
    }

    fn write_text(&self, record: &Record, hash: &TextHash) -> Result<()> {
        let source = serde_json::to_string(&record.source)?;
        let line = format!("{SOURCE}{source}\n");
        whole(
            &self.path(hash, TEXT),
            &[line.as_bytes(), record.text.as_bytes()],
        )
    }

    /// Removes every record but that of `kept`, and returns how many there were.
    ///
    /// # Errors
    ///
    /// One cannot be removed.
    pub fn sweep(&self, kept: &TextHash, _lock: &Lock) -> Result<usize> {
        let kept = [TEXT, SETS].map(|ending| self.path(kept, ending));
        let mut removed = 0;
        let entries = fs::read_dir(&self.directory)
            .with_context(|| format!("read {}", self.directory.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if !kept.contains(&path) && is_record(&path) {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The changes of sets since a generation was put in force, in their order.
    ///
    /// # Errors
    ///
    /// They are damaged, or may not be read.
    pub fn changes(&self, generation: Generation) -> Result<Vec<MemberChange>> {
        let path = self.changes_path(generation);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        // What a writer that was killed left of a line was never said to have happened.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| read_change(line).with_context(|| format!("{} is damaged", path.display())))
            .collect()
    }

    /// Keeps changes of sets behind those there are.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn append_changes(
        &self,
        generation: Generation,
        changes: &[MemberChange],
        _lock: &Lock,
    ) -> Result<()> {
        let path = self.changes_path(generation);
        let append = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            let mut end = file.seek(SeekFrom::End(0))?;
            let mut last = [b'\n'];
            while end > 0 {
                file.read_exact_at(&mut last, end - 1)?;
                if last == [b'\n'] {
                    break;
                }
                end -= 1;
            }
            file.set_len(end)?;
            let text: String = changes.iter().map(write_change).collect();
            file.write_all_at(text.as_bytes(), end)
        };
        append().with_context(|| format!("write {}", path.display()))
    }

    /// Removes the changes that belong to other generations than this one.
    ///
    /// # Errors
    ///
    /// They cannot be removed.
    pub fn sweep_changes(&self, kept: Generation, _lock: &Lock) -> Result<()> {
        let kept = self.changes_path(kept);
        let entries = fs::read_dir(&self.directory)
            .with_context(|| format!("read {}", self.directory.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path != kept && path.extension().is_some_and(|ending| ending == CHANGES) {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn changes_path(&self, generation: Generation) -> PathBuf {
        self.directory.join(format!("{}.{CHANGES}", generation.0))
    }

    fn path(&self, hash: &TextHash, ending: &str) -> PathBuf {
        self.directory.join(format!(
            "{}.{ending}",
            &blake3::Hash::from(*hash).to_hex()[..32]
        ))
    }
}

/// The file that a record was applied from, by its first line.
fn source(line: &str) -> Result<Option<PathBuf>> {
    let source = line.strip_prefix(SOURCE);
    let source = source.context("it does not begin as a record")?;
    Ok(serde_json::from_str(source)?)
}

/// Writes a file, under another name first: it is there whole or not at all.
fn whole(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let unfinished = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&unfinished)?;
        for part in parts {
            file.write_all(part)?;
        }
        fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// A line for a change: `+ SET PREFIX`, the same with milliseconds since 1970 behind it, or `- SET PREFIX`.
fn write_change(change: &MemberChange) -> String {
    let MemberChange {
        set,
        prefix,
        becomes,
    } = change;
    match becomes {
        Becomes::Member(Some(until)) => format!("+ {set} {prefix} {}\n", until.unix),
        Becomes::Member(None) => format!("+ {set} {prefix}\n"),
        Becomes::Stranger => format!("- {set} {prefix}\n"),
    }
}

fn read_change(line: &str) -> Option<MemberChange> {
    let mut words = line.split(' ');
    let (sign, set, prefix) = (words.next()?, words.next()?, words.next()?);
    let until = match words.next() {
        Some(unix) => Some(Until {
            unix: unix.parse().ok()?,
        }),
        None => None,
    };
    Some(MemberChange {
        set: set.into(),
        prefix: prefix.parse().ok()?,
        becomes: match sign {
            "+" => Becomes::Member(until),
            "-" => Becomes::Stranger,
            _ => return None,
        },
    })
}

fn is_record(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| [TEXT, SETS, "new"].iter().any(|known| extension == *known))
}
