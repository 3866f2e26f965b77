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
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use portdemux_common::ids::Generation;
use serde::{Deserialize, Serialize};

use crate::{
    bounded,
    error::Advice,
    instance::Lock,
    maps::pins::unpin,
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

/// How many bytes the first line of a record has at most: the path of a file, in JSON, and what stands before it.
const LONGEST_SOURCE: u64 = 6 * 4096 + 64;

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

/// What was kept, as far as it is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept<T> {
    /// It is there as it was written.
    Whole(T),
    /// It is missing or damaged, and why that is known.
    Lost(String),
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
    /// Whether it is there cannot be seen, or it may not be read.
    pub fn read(&self, hash: &TextHash) -> Result<Kept<Record>> {
        let path = self.path(hash, TEXT);
        let Some(kept) = read_if_there(&path)? else {
            return Ok(Kept::Lost(format!("{} is missing", path.display())));
        };
        let damaged = || Kept::Lost(format!("{} is damaged", path.display()));
        // What is no text does not have the hash of one.
        let Ok(kept) = String::from_utf8(kept) else {
            return Ok(damaged());
        };
        let (line, text) = kept.split_once('\n').unwrap_or_default();
        let Some(source) = source(line) else {
            return Ok(damaged());
        };
        let record = Record {
            source,
            text: text.into(),
        };
        Ok(if record.hash() == *hash {
            Kept::Whole(record)
        } else {
            damaged()
        })
    }

    /// What the text with this hash says, without reading it, and the file it was applied from. None unless its
    /// sets are large, or if that is damaged.
    ///
    /// # Errors
    ///
    /// Whether it is there cannot be seen, or it may not be read.
    pub fn ruleset(&self, hash: &TextHash) -> Result<Option<(Option<PathBuf>, Ruleset)>> {
        let Some(kept) = read_if_there(&self.path(hash, SETS))? else {
            return Ok(None);
        };
        let path = self.path(hash, TEXT);
        let mut line = String::new();
        let first_line = bounded::regular(&path).and_then(|record| {
            let mut record = BufReader::new(record).take(LONGEST_SOURCE);
            record.read_line(&mut line)
        });
        match first_line {
            Ok(_) => {}
            Err(error) if is_lost(&error) => return Ok(None),
            Err(error) => return Err(unreadable(error, &path)),
        }
        let found = source(line.trim_end()).zip(sets::read("the ruleset in force", &kept));
        Ok(found)
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
        let Record { text, .. } = match self.read(hash)? {
            Kept::Whole(record) => record,
            Kept::Lost(why) => bail!("the text of the ruleset in force is lost ({why})"),
        };
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

    /// Removes every record but those of `kept`, and returns how many there were.
    ///
    /// # Errors
    ///
    /// One cannot be removed.
    pub fn sweep(&self, kept: &[TextHash], _lock: &Lock) -> Result<usize> {
        let files = |hash| [TEXT, SETS].map(|ending| self.path(hash, ending));
        let kept: Vec<PathBuf> = kept.iter().flat_map(files).collect();
        self.remove(|path| !kept.contains(path) && is_record(path))
    }

    /// The changes of sets since a generation was put in force, in their order; none where there is no record of
    /// any.
    ///
    /// # Errors
    ///
    /// Whether there are any cannot be seen, or they may not be read.
    pub fn changes(&self, generation: Generation) -> Result<Kept<Vec<MemberChange>>> {
        let path = self.changes_path(generation);
        let kept = read_if_there(&path)?.unwrap_or_default();
        // What a writer that was killed left of a line was never said to have happened.
        let end = kept.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
        let changes = std::str::from_utf8(&kept[..end]).ok();
        let changes = changes.and_then(|text| text.lines().map(read_change).collect());
        Ok(match changes {
            Some(changes) => Kept::Whole(changes),
            None => Kept::Lost(format!("{} is damaged", path.display())),
        })
    }

    /// Whether there is a record of changes since a generation was put in force, whatever it says.
    ///
    /// # Errors
    ///
    /// That cannot be seen.
    pub fn has_changes(&self, generation: Generation) -> Result<bool> {
        let kept = read_if_there(&self.changes_path(generation))?;
        Ok(kept.is_some_and(|kept| !kept.is_empty()))
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
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            let mut file = bounded::open(&path, &mut options)?;
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
            let written = file.write_all_at(text.as_bytes(), end);
            if written.is_err() {
                // Lines that are whole would be taken for changes that were made.
                file.set_len(end)?;
            }
            written
        };
        let appended = append();
        if appended.is_err() && fs::metadata(&path).is_ok_and(|kept| kept.len() == 0) {
            // It says nothing, and whoever finds one takes it for a record of changes.
            let _: io::Result<()> = fs::remove_file(&path);
        }
        appended.with_context(|| format!("write {}", path.display()))
    }

    /// Removes the changes that belong to other generations than this one.
    ///
    /// # Errors
    ///
    /// They cannot be removed.
    pub fn sweep_changes(&self, kept: Generation, _lock: &Lock) -> Result<()> {
        let kept = self.changes_path(kept);
        let is_of_changes = |path: &Path| path.extension().is_some_and(|ending| ending == CHANGES);
        self.remove(|path| *path != kept && is_of_changes(path))
            .map(drop)
    }

    /// Removes files of the directory, and returns how many there were.
    fn remove(&self, is_meant: impl Fn(&PathBuf) -> bool) -> Result<usize> {
        let mut removed = 0;
        let list = || format!("list {}", self.directory.display());
        for entry in fs::read_dir(&self.directory).with_context(list)? {
            let path = entry.with_context(list)?.path();
            if is_meant(&path) {
                unpin(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
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

/// The file that a record was applied from, by its first line; nothing if that is none of a record.
#[expect(
    clippy::option_option,
    reason = "a record can say that it came from no file"
)]
fn source(line: &str) -> Option<Option<PathBuf>> {
    serde_json::from_str(line.strip_prefix(SOURCE)?).ok()
}

/// What stands in a file, if there is one.
fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match bounded::bytes(path) {
        Ok(kept) => Ok(Some(kept)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error, path)),
    }
}

fn is_lost(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData
    )
}

/// Whoever cannot read a record knows nothing of what it says, not even that it is lost.
fn unreadable(error: io::Error, path: &Path) -> anyhow::Error {
    anyhow::Error::new(error)
        .context(format!("read {}", path.display()))
        .context(Advice(
            "try again once it can be read; nothing was changed".into(),
        ))
}

/// Writes a file, under another name first: it is there whole or not at all.
fn whole(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let unfinished = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = bounded::create(&unfinished)?;
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
        Becomes::NonMember => format!("- {set} {prefix}\n"),
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
            "-" => Becomes::NonMember,
            _ => return None,
        },
    })
}

fn is_record(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| [TEXT, SETS, "new"].iter().any(|known| extension == *known))
}
