//! Where an instance lies in bpffs, and who may change it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    fs::{FlockOperation, flock, fstatfs},
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::{
    abi::AbiDirectory,
    damage::is_damage,
    links,
    maps::Maps,
    trusted::{LISTED, PRIVATE, Trusted, is_there},
};
use crate::{
    bounded,
    error::{Advice, HalfRemoved, Help as _, NothingLoaded, command},
};

/// The directory of bpffs in which all instances are.
const ROOT: &str = "portdemux";

/// Type of a bpffs (Linux `include/uapi/linux/magic.h`, `BPF_FS_MAGIC`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// What helps whoever may not read the pins.
const FORBIDDEN: &str = "run it as root, or let this user read the pins";

/// What helps whoever may not change what is there.
const NOT_OWN: &str = "run it as root, or name directories that are this user's own: PORTDEMUX_BPFFS (in a bpffs) and \
                       PORTDEMUX_STATE_DIR";

/// How long a writer waits for another.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

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
pub struct InstancePaths {
    /// Its name.
    pub instance: InstanceName,
    /// Where bpffs is mounted.
    pub bpffs: PathBuf,
    /// The directory with the records of all instances.
    pub state: PathBuf,
    /// Which of its directories of pins is meant.
    pub directory: AbiDirectory,
}

/// The right to change an instance. It ends with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl InstancePaths {
    /// The places of an instance; the last two are where bpffs is mounted, and the directory of all records.
    #[must_use]
    pub const fn new(instance: InstanceName, bpffs: PathBuf, state: PathBuf) -> Self {
        Self {
            instance,
            bpffs,
            state,
            directory: AbiDirectory::Own,
        }
    }

    /// The command for the instance, as a user writes it.
    #[must_use]
    pub fn command(&self) -> String {
        command(&self.instance.0)
    }

    /// The directory of everything that is pinned.
    pub(super) fn root(&self) -> PathBuf {
        self.bpffs.join(ROOT)
    }

    /// The directory of the instance's pins, of whatever ABI.
    #[must_use]
    pub fn instance_pins(&self) -> PathBuf {
        self.root().join(&self.instance.0)
    }

    /// The directory of the instance's pins. A dot cannot stand in a name in bpffs.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.instance_pins().join(self.directory.name())
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
        let instances = below(self.root()).into_iter();
        instances.flat_map(links_of).collect()
    }

    /// Where links are pinned that whoever removed the instance left.
    pub(super) fn links_in_trash(&self) -> Vec<PathBuf> {
        links_of(self.root().join(self.trash()))
    }

    /// The instance that a link below [`Self::root`] is of, and whether that one's removal was interrupted.
    pub(super) fn owner_of(&self, link: &Path) -> Option<(InstanceName, bool)> {
        let name = link
            .strip_prefix(self.root())
            .ok()?
            .iter()
            .next()?
            .to_str()?;
        let (name, is_in_trash) = match name.split_once('~') {
            Some((name, state)) => (name, state == "old"),
            None => (name, false),
        };
        Some((name.parse().ok()?, is_in_trash))
    }

    /// Every instance of which there are pins, of whatever version and in whatever state.
    ///
    /// # Errors
    ///
    /// No bpffs is mounted, or it may not be read.
    pub fn every_instance(&self) -> Result<Vec<Self>> {
        let Some(root) = self.bpffs()?.child(ROOT)? else {
            return Ok(Vec::new());
        };
        let root = root.path();
        let entries = fs::read_dir(root).with_context(|| format!("read {}", root.display()))?;
        let mut names: Vec<String> = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", root.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What is half made or half removed belongs to the instance of the name before it.
            names.extend(name.split('~').next().map(str::to_owned));
        }
        names.sort();
        names.dedup();
        // What else lies there is none.
        let names = names.iter().filter_map(|name| name.parse().ok());
        Ok(names
            .map(|instance| Self {
                instance,
                ..self.clone()
            })
            .collect())
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
    /// another version, lies where others could change it or may not be read.
    pub fn open(&self) -> Result<Maps> {
        let instance = self
            .instance()
            .with_help_if(is_permission_denied, FORBIDDEN)?;
        let Some(instance) = instance else {
            return Err(self.nothing_loaded());
        };
        if instance
            .child(self.directory.name())
            .with_help_if(is_permission_denied, FORBIDDEN)?
            .is_none()
        {
            self.refuse_other_abi()?;
            return Err(self.nothing_loaded());
        }
        self.check_records()
            .with_help_if(is_permission_denied, FORBIDDEN)?;
        self.open_pinned()
    }

    /// That there is no such instance, or that its removal was interrupted.
    pub(crate) fn nothing_loaded(&self) -> anyhow::Error {
        // Whoever holds the lock is removing it.
        let is_interrupted = || -> Result<bool> {
            Ok(self.is_in_trash()?
                && !is_held(&self.records().join("lock")).unwrap_or(false)
                && self.is_in_trash()?)
        };
        match is_interrupted() {
            Ok(true) => self.half_removed(),
            Ok(false) | Err(_) => NothingLoaded {
                instance: self.instance.to_string(),
            }
            .into(),
        }
    }

    /// That the removal of the instance was interrupted, and what of it is left.
    fn half_removed(&self) -> anyhow::Error {
        let interfaces = links::left_in_trash(self).unwrap_or_default();
        anyhow::Error::new(HalfRemoved {
            instance: self.instance.to_string(),
            interfaces: interfaces
                .into_iter()
                .filter_map(|(_, name)| name)
                .collect(),
        })
        .context(Advice(format!(
            "{} detach --all finishes it",
            self.command()
        )))
    }

    /// Refuses an instance whose removal was interrupted.
    ///
    /// # Errors
    ///
    /// It is one.
    pub(crate) fn refuse_half_removed(&self, _lock: &Lock) -> Result<()> {
        if !self.exists()? && self.is_in_trash()? {
            return Err(self.half_removed());
        }
        Ok(())
    }

    /// Opens the maps of the instance, after creating them if there is no such instance.
    ///
    /// # Errors
    ///
    /// The pins belong to another version, or cannot be made.
    pub fn open_or_create(&self, _lock: &Lock) -> Result<Maps> {
        let root = self.bpffs()?.make(ROOT, LISTED)?;
        self.sweep(&root)?;
        let name = &self.instance.0;
        let instance = root.child(name)?;
        let pins = match &instance {
            Some(instance) => instance.child(self.directory.name())?,
            None => None,
        };
        if pins.is_none() {
            self.refuse_other_abi()?;
            // Made beside its place and moved there whole: a crash leaves no half of an instance.
            let made = self.create_in(&root).and_then(|()| {
                root.remove(name)?;
                root.rename(&self.staging(), name)
                    .context("move the pins to their place")
            });
            if let Err(error) = made {
                let _ = root.remove(self.staging());
                return Err(error);
            }
        }
        self.open_pinned()
    }

    fn create_in(&self, root: &Trusted) -> Result<()> {
        let staging = root.make(self.staging(), LISTED)?;
        Maps::create(staging.make(self.directory.name(), LISTED)?.path())
    }

    fn open_pinned(&self) -> Result<Maps> {
        let opened = Maps::open(&self.pins()).and_then(|maps| {
            let is_of_directory = maps.is_own() || matches!(self.directory, AbiDirectory::Older(_));
            ensure!(
                is_of_directory,
                "{} is not of this version",
                self.pins().display()
            );
            Ok(maps)
        });
        let error = match opened {
            Ok(maps) => return Ok(maps),
            Err(error) => error,
        };
        if is_damage(&error) && !is_there(&self.pins())? {
            // It was removed just then.
            return Err(self.nothing_loaded());
        }
        let advice = if is_damage(&error) {
            format!("{} detach --all removes it", self.command())
        } else if is_permission_denied(&error) {
            FORBIDDEN.into()
        } else {
            // What cannot be opened now may be as it should be.
            "try again once it can be opened; nothing was changed".into()
        };
        Err(error).help(|| advice)
    }

    /// Removes every pin and record of the instance, whatever is left of it. Programs are detached with
    /// it.
    ///
    /// # Errors
    ///
    /// A pin or a record cannot be removed.
    pub fn remove(&self, _lock: &Lock) -> Result<()> {
        if let Some(root) = self.bpffs()?.child(ROOT)? {
            let name = &self.instance.0;
            // Moved away whole, then removed: a crash leaves no half of an instance in its place.
            if root.rename(name, &self.trash()).is_err() {
                // Something stands there from a crash, or the move is refused: piece by piece, then.
                root.remove(name)?;
            }
            self.sweep(&root)
                .help(|| format!("{} detach --all goes on", self.command()))?;
        }
        let Some(state) = Trusted::open(&self.state)? else {
            return Ok(());
        };
        match state.remove(&self.instance.0) {
            // A writer that waits has made a lock of its own.
            Err(error) if error.downcast_ref() == Some(&Errno::NOTEMPTY) => Ok(()),
            removed => removed,
        }
    }

    /// Whether there are pins of the instance, of whatever version and in whatever state.
    ///
    /// # Errors
    ///
    /// They cannot be asked for.
    pub fn exists(&self) -> Result<bool> {
        is_there(&self.instance_pins())
    }

    /// Whether a writer that was killed while it removed the instance left pins, which can hold
    /// programs on interfaces.
    ///
    /// # Errors
    ///
    /// They cannot be asked for.
    pub fn is_in_trash(&self) -> Result<bool> {
        is_there(&self.root().join(self.trash()))
    }

    /// Takes the right to change an instance, waiting for another writer for a while.
    ///
    /// # Errors
    ///
    /// Another writer does not end; bpffs is not mounted or may not be written.
    pub fn lock(&self) -> Result<Lock> {
        self.lock_within(PATIENCE)
    }

    /// Takes the right to change an instance, waiting for another writer for so long.
    ///
    /// # Errors
    ///
    /// As [`Self::lock`].
    pub(crate) fn lock_within(&self, patience: Duration) -> Result<Lock> {
        self.bpffs()?
            .make(ROOT, LISTED)
            .with_help_if(is_permission_denied, NOT_OWN)?;
        let mut deadline = Instant::now() + patience;
        let file = loop {
            let locked = self.try_lock("lock");
            if let Some(file) = locked.with_help_if(is_permission_denied, NOT_OWN)? {
                break file;
            }
            if Instant::now() > deadline {
                let path = self.records().join("lock");
                let holder = Holder::of(&path);
                if !holder.is_non_member() {
                    bail!(
                        "another portdemux ({holder}) is changing this instance and does not end"
                    );
                }
                unpin(&path)?;
                deadline = Instant::now() + patience;
            }
            thread::sleep(Duration::from_millis(2));
        };
        Ok(Lock { _file: file })
    }

    /// Locks a file among the records, unless another process holds it. Whoever removes an instance removes
    /// both, at any moment: then there is nothing to hold yet, and what was locked must still be what has the
    /// name.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<File>> {
        let records = Trusted::create(&self.state)?.make(&self.instance.0, PRIVATE);
        let Some(records) = unless_missing(records)? else {
            return Ok(None);
        };
        records.make_private()?;
        let Some(file) = unless_missing(records.open_private(name))? else {
            return Ok(None);
        };
        let path = records.path().join(name);
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
        if !is_named(&file, &path) {
            return Ok(None);
        }
        if is_open_to_others(&file)? {
            // An older binary made it. Others may have opened it, and whoever did can lock it at any time.
            unpin(&path)?;
            return Ok(None);
        }
        // As long whoever writes it, so that nothing of another's is left behind it. It is only for those who
        // wait: where there is no room for it, the lock is held all the same.
        let holder = format!("process {:<10}\n", std::process::id());
        let _: io::Result<()> = file.write_all_at(holder.as_bytes(), 0);
        Ok(Some(file))
    }

    fn staging(&self) -> String {
        format!("{}~new", self.instance)
    }

    fn trash(&self) -> String {
        format!("{}~old", self.instance)
    }

    /// Removes what a writer that was killed left half made or half removed.
    fn sweep(&self, root: &Trusted) -> Result<()> {
        // What can hold programs on interfaces goes whether the other does or not.
        let removed = root.remove(self.trash());
        root.remove(self.staging())?;
        removed
    }

    /// The directory where bpffs is mounted, which is one.
    fn bpffs(&self) -> Result<Trusted> {
        let path = self.bpffs.display();
        let bpffs = Trusted::open(&self.bpffs)
            .with_context(|| format!("look for a bpffs at {path}"))
            .with_help_if(is_permission_denied, FORBIDDEN)?
            .with_context(|| format!("look for a bpffs at {path}: there is no such directory"))
            .help(|| format!("mount -t bpf bpf {path}, after making the directory"))?;
        let stat = fstatfs(&bpffs).with_context(|| format!("look for a bpffs at {path}"))?;
        if stat.f_type.cast_unsigned() != BPF_FS_MAGIC {
            return Err(anyhow::anyhow!("no bpffs is mounted at {path}"))
                .help(|| format!("mount -t bpf bpf {path}"));
        }
        Ok(bpffs)
    }

    /// The directory of the instance's pins, of whatever ABI; none if there is no such instance.
    pub(super) fn instance(&self) -> Result<Option<Trusted>> {
        match self.bpffs()?.child(ROOT)? {
            Some(root) => root.child(&self.instance.0),
            None => Ok(None),
        }
    }

    /// Looks whether the records, if there are any, lie where others cannot change them.
    fn check_records(&self) -> Result<()> {
        if let Some(state) = Trusted::open(&self.state)? {
            state.child(&self.instance.0)?;
        }
        Ok(())
    }
}

/// The links pinned in the directories of an instance.
fn links_of(instance: PathBuf) -> Vec<PathBuf> {
    let is_link = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| name.starts_with("link"))
    };
    let pins = below(instance).into_iter().flat_map(below);
    pins.filter(is_link).collect()
}

fn below(directory: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn is_permission_denied(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            || cause.downcast_ref() == Some(&Errno::ACCESS)
    })
}

/// Adds what helps against some errors.
trait HelpIf {
    fn with_help_if(self, is: impl Fn(&anyhow::Error) -> bool, help: &str) -> Self;
}

impl<T> HelpIf for Result<T> {
    fn with_help_if(self, is: impl Fn(&anyhow::Error) -> bool, help: &str) -> Self {
        if self.as_ref().is_err_and(is) {
            self.help(|| help.into())
        } else {
            self
        }
    }
}

/// Nothing if what was opened was removed just then.
fn unless_missing<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Err(error) if error.downcast_ref() == Some(&Errno::NOENT) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Whether others than the owner may open a file, for reading at least.
fn is_open_to_others(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.permissions().mode() & 0o077 != 0)
}

/// Who is said to hold a lock.
struct Holder {
    text: String,
    is_open: bool,
}

impl Holder {
    fn of(path: &Path) -> Self {
        let is_open = bounded::regular(path).and_then(|file| is_open_to_others(&file));
        Self {
            text: bounded::kept(path).unwrap_or_default(),
            is_open: is_open.unwrap_or(false),
        }
    }

    /// Whether it is held by none of those who may write it: they said who they were, and are gone.
    fn is_non_member(&self) -> bool {
        let id = self.text.trim().strip_prefix("process ");
        let id = id.and_then(|id| Pid::from_raw(id.parse().ok()?));
        self.is_open && id.is_some_and(|id| test_kill_process(id) == Err(Errno::SRCH))
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text.trim())
    }
}

/// Whether a file is the one at `path`.
pub(crate) fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(named)) => (file.dev(), file.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Whether a process holds the lock of a file, which it does for as long as it lives; not if there is no such file.
///
/// # Errors
///
/// That cannot be seen.
pub(crate) fn is_held(path: &Path) -> io::Result<bool> {
    let file = match bounded::regular(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    // Those who ask do not take each other for one that holds it.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
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
