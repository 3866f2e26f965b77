//! Who may change an instance.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::{
    InstancePaths,
    paths::{HelpIf as _, ROOT, is_permission_denied},
};
use crate::{
    bounded,
    maps::{
        pins::unpin,
        trusted::{LISTED, PRIVATE, Trusted},
    },
};

/// What helps whoever may not change what is there.
const NOT_OWN: &str = "run it as root, or name directories that are this user's own: PORTDEMUX_BPFFS (in a bpffs) and \
                       PORTDEMUX_STATE_DIR";

/// How long a writer waits for another.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The right to change an instance. It ends with its last copy, or with the process, however that ends.
#[derive(Clone, Debug)]
pub struct Lock {
    /// Where the instance is.
    pub(crate) paths: InstancePaths,
    _file: Arc<File>,
}

impl Lock {
    /// The same right, with the pins of this binary's ABI.
    #[must_use]
    pub(crate) fn own(&self) -> Self {
        Self {
            paths: self.paths.own(),
            ..self.clone()
        }
    }

    /// The same right, with the directory of pins that there is, if that can be seen.
    #[must_use]
    pub(crate) fn found(self) -> Self {
        match self.paths.as_found() {
            Ok(paths) => Self { paths, ..self },
            Err(_) => self,
        }
    }
}

impl InstancePaths {
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
                let holder = LockHolder::of(&path);
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
        Ok(Lock {
            paths: self.clone(),
            _file: Arc::new(file),
        })
    }

    /// Locks a file among the records, unless another process holds it. Whoever removes an instance removes
    /// both, at any moment: then there is nothing to hold yet, and what was locked must still be what has the
    /// name.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<File>> {
        let records = Trusted::create(&self.state)?.make(self.instance.as_str(), PRIVATE);
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
struct LockHolder {
    text: String,
    is_open: bool,
}

impl LockHolder {
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

impl std::fmt::Display for LockHolder {
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
