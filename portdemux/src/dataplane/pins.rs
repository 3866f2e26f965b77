//! Where an instance lies in bpffs, and who may change it.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use portdemux_common::ABI;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::maps::Maps;
use crate::error::{Help as _, NothingLoaded};

/// Type of a bpffs (Linux `include/uapi/linux/magic.h`, `BPF_FS_MAGIC`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// What helps whoever may not read the pins.
const FORBIDDEN: &str = "run it as root, or let this user read the pins";

/// How long a writer waits for another.
const PATIENCE: Duration = Duration::from_secs(10);

/// The name of an instance: 1 to 32 letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceName(String);

impl FromStr for InstanceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if (1..=32).contains(&name.len()) && name.chars().all(is_plain) {
            Ok(Self(name.to_owned()))
        } else {
            Err("an instance's name has 1 to 32 letters, digits, - and _".into())
        }
    }
}

impl std::fmt::Display for InstanceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the pins and records of an instance are.
#[derive(Clone, Debug)]
pub struct Places {
    /// Its name.
    pub instance: InstanceName,
    /// Where bpffs is mounted.
    pub bpffs: PathBuf,
    /// The directory with the records of all instances.
    pub state: PathBuf,
}

/// The right to change an instance. It ends with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Places {
    /// The directory of everything that is pinned.
    fn root(&self) -> PathBuf {
        self.bpffs.join("portdemux")
    }

    /// The directory of the instance's pins, of whatever ABI.
    #[must_use]
    pub fn instance_pins(&self) -> PathBuf {
        self.root().join(&self.instance.0)
    }

    /// The directory of the instance's pins. A dot cannot stand in a name in bpffs.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.instance_pins().join(format!("abi{ABI}"))
    }

    /// Where the link of the interface at `place` is pinned.
    #[must_use]
    pub fn link(&self, place: usize) -> PathBuf {
        self.pins().join(format!("link{place}"))
    }

    /// Where the link of the program that sees what the interface at `place` sends is pinned.
    pub(super) fn sent(&self, place: usize) -> PathBuf {
        self.pins().join(format!("sent{place}"))
    }

    /// Where links are pinned, those of all instances.
    pub(super) fn all_links(&self) -> Vec<PathBuf> {
        let below = |directory: PathBuf| -> Vec<PathBuf> {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let instances = below(self.root()).into_iter();
        let pins = instances.flat_map(below).flat_map(below);
        let is_link = |path: &PathBuf| {
            let name = path.file_name().and_then(OsStr::to_str);
            name.is_some_and(|name| name.starts_with("link"))
        };
        pins.filter(is_link).collect()
    }

    /// The directory of the instance's records.
    #[must_use]
    pub fn records(&self) -> PathBuf {
        self.state.join(&self.instance.0)
    }

    /// Opens the maps of the instance.
    ///
    /// # Errors
    ///
    /// [`NothingLoaded`] if there is no such instance; another error if it is damaged, belongs to
    /// another version or may not be read.
    pub fn open(&self) -> Result<Maps> {
        self.check_bpffs()?;
        let pins = self.pins();
        match fs::metadata(&pins) {
            Ok(_) => self.open_pinned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.refuse_other_abi()?;
                Err(NothingLoaded {
                    instance: self.instance.to_string(),
                }
                .into())
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error)
                .with_context(|| format!("read {}", pins.display()))
                .help(|| FORBIDDEN.into()),
            Err(error) => Err(error).with_context(|| format!("read {}", pins.display())),
        }
    }

    /// Opens the maps of the instance, after creating them if there is no such instance.
    ///
    /// # Errors
    ///
    /// The pins belong to another version, or cannot be made.
    pub fn open_or_create(&self, _lock: &Lock) -> Result<Maps> {
        self.check_bpffs()?;
        self.sweep()?;
        let pins = self.pins();
        if !pins.exists() {
            self.refuse_other_abi()?;
            // Made beside its place and moved there whole: a crash leaves no half of an instance.
            let unborn = self.unborn();
            let inner = unborn.join(format!("abi{ABI}"));
            fs::create_dir_all(&inner).with_context(|| format!("create {}", inner.display()))?;
            let made = Maps::create(&inner).and_then(|()| {
                remove_tree(&self.instance_pins())?;
                fs::rename(&unborn, self.instance_pins()).context("move the pins to their place")
            });
            if let Err(error) = made {
                let _ = remove_tree(&unborn);
                return Err(error);
            }
        }
        self.open_pinned()
    }

    fn open_pinned(&self) -> Result<Maps> {
        let opened = Maps::open(&self.pins());
        let is_forbidden = opened.as_ref().is_err_and(is_permission_denied);
        opened.help(|| {
            if is_forbidden {
                FORBIDDEN.into()
            } else {
                format!(
                    "portdemux --instance {} detach --all removes it",
                    self.instance
                )
            }
        })
    }

    /// Removes every pin and record of the instance, whatever is left of it. Programs are detached with
    /// it.
    ///
    /// # Errors
    ///
    /// A pin or a record cannot be removed.
    pub fn remove(&self, _lock: &Lock) -> Result<()> {
        // Moved away whole, then removed: a crash leaves no half of an instance in its place.
        match fs::rename(self.instance_pins(), self.dying()) {
            Ok(()) => {}
            // Something stands there from a crash, or the move is refused: piece by piece, then.
            Err(_) => remove_tree(&self.instance_pins())?,
        }
        self.sweep()?;
        let records = self.records();
        match fs::remove_dir_all(&records) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // A writer that waits has made a lock of its own.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) => Err(error).with_context(|| format!("remove {}", records.display())),
        }
    }

    /// Whether there are pins of the instance, of whatever version and in whatever state.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.instance_pins().exists()
    }

    /// Whether a writer that was killed while it removed the instance left pins, which can hold
    /// programs on interfaces.
    #[must_use]
    pub fn is_dying(&self) -> bool {
        self.dying().exists()
    }

    /// Takes the right to change an instance, waiting for another writer for a while.
    ///
    /// # Errors
    ///
    /// Another writer does not end; bpffs is not mounted or may not be written.
    pub fn lock(&self) -> Result<Lock> {
        self.check_bpffs()?;
        fs::create_dir_all(self.root())
            .with_context(|| format!("create {}", self.root().display()))?;
        fs::create_dir_all(&self.state)
            .with_context(|| format!("create {}", self.state.display()))?;
        let records = self.records();
        let path = records.join("lock");
        let deadline = Instant::now() + PATIENCE;
        let file = loop {
            match try_lock(&records, &path) {
                Ok(Some(file)) => break file,
                Ok(None) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("lock {}", path.display()));
                }
            }
            if Instant::now() > deadline {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                bail!(
                    "another portdemux ({}) is changing this instance and does not end",
                    holder.trim()
                );
            }
            thread::sleep(Duration::from_millis(2));
        };
        // As long whoever writes it, so that nothing of another's is left behind it.
        let holder = format!("process {:<10}\n", std::process::id());
        file.write_all_at(holder.as_bytes(), 0)?;
        Ok(Lock { _file: file })
    }

    fn unborn(&self) -> PathBuf {
        self.root().join(format!("{}~new", self.instance))
    }

    fn dying(&self) -> PathBuf {
        self.root().join(format!("{}~old", self.instance))
    }

    /// Removes what a writer that was killed left half made or half removed.
    fn sweep(&self) -> Result<()> {
        remove_tree(&self.unborn())?;
        remove_tree(&self.dying())
    }

    fn check_bpffs(&self) -> Result<()> {
        let path = self.bpffs.display();
        match rustix::fs::statfs(&self.bpffs) {
            Ok(stat) if stat.f_type.cast_unsigned() == BPF_FS_MAGIC => Ok(()),
            Ok(_) => Err(anyhow::anyhow!("no bpffs is mounted at {path}"))
                .help(|| format!("mount -t bpf bpf {path}")),
            Err(Errno::ACCESS) => Err(Errno::ACCESS)
                .with_context(|| format!("look for a bpffs at {path}"))
                .help(|| FORBIDDEN.into()),
            Err(error) => Err(error)
                .with_context(|| format!("look for a bpffs at {path}"))
                .help(|| format!("mount -t bpf bpf {path}, after making the directory")),
        }
    }

    fn refuse_other_abi(&self) -> Result<()> {
        let Ok(entries) = fs::read_dir(self.instance_pins()) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(other) = name.strip_prefix("abi")
                && other.parse::<u32>().is_ok_and(|other| other != ABI)
            {
                return Err(anyhow::anyhow!(
                    "instance {} was made by another version of portdemux (pins of ABI {other}, this \
                     one has ABI {ABI})",
                    self.instance
                ))
                .help(|| {
                    format!(
                        "use that version, or remove it with portdemux --instance {} detach --all \
                         and attach again",
                        self.instance
                    )
                });
            }
        }
        Ok(())
    }
}

fn is_permission_denied(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Locks the file at `path` in `directory`, unless another holds it. Whoever removes an instance
/// removes both, at any moment: then there is nothing to hold yet, and what was locked must still be
/// what has the name.
pub(crate) fn try_lock(directory: &Path, path: &Path) -> io::Result<Option<File>> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(is_named(&file, path).then_some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file is the one at `path`.
pub(crate) fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(named)) => (file.dev(), file.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Removes a pin or another file, if it is there.
///
/// # Errors
///
/// It cannot be removed.
pub(crate) fn unpin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a directory of bpffs with everything in it, if it is there.
fn remove_tree(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", directory.display())),
    }
}
