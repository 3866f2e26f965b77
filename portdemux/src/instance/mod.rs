//! An instance: its pins, its records and who may change it.
//!
//! Whoever reads has an [`Instance`], whoever changes something a [`Writer`], which only a [`Lock`] gives.

pub mod abi;
mod lock;
mod paths;
pub mod pinned;

use std::ops::Deref;

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;

pub(crate) use self::lock::{PATIENCE, is_held, is_named};
use self::paths::{FORBIDDEN, HelpIf as _, ROOT, is_permission_denied};
pub use self::{
    abi::AbiDirectory,
    lock::Lock,
    paths::{InstanceName, InstancePaths},
};
use crate::{
    error::{Advice, HalfRemoved, Help as _, NothingLoaded},
    maps::{
        Maps,
        damage::is_damage,
        trusted::{LISTED, Trusted, is_there},
    },
};

/// An instance that is open for reading.
#[derive(Debug)]
pub struct Instance {
    /// Where it lies.
    pub paths: InstancePaths,
    /// Its maps.
    pub maps: Maps,
}

/// An instance that is open for changes.
#[derive(Debug)]
pub struct Writer {
    instance: Instance,
    lock: Lock,
}

impl Instance {
    /// Opens an instance for reading.
    ///
    /// # Errors
    ///
    /// [`NothingLoaded`] if there is no such instance; another error if it is damaged, belongs to
    /// another version, lies where others could change it or may not be read.
    pub fn open(paths: &InstancePaths) -> Result<Self> {
        let directory = paths
            .directory()
            .with_help_if(is_permission_denied, FORBIDDEN)?;
        let Some(directory) = directory else {
            return Err(paths.nothing_loaded());
        };
        if directory
            .child(paths.directory.name())
            .with_help_if(is_permission_denied, FORBIDDEN)?
            .is_none()
        {
            paths.refuse_other_abi()?;
            return Err(paths.nothing_loaded());
        }
        // Where others could change them, the records are no records.
        if let Some(state) =
            Trusted::open(&paths.state).with_help_if(is_permission_denied, FORBIDDEN)?
        {
            state
                .child(paths.instance.as_str())
                .with_help_if(is_permission_denied, FORBIDDEN)?;
        }
        Self::open_pinned(paths)
    }

    fn open_pinned(paths: &InstancePaths) -> Result<Self> {
        let opened = Maps::open(&paths.pins()).and_then(|maps| {
            let is_of_directory =
                maps.is_own() || matches!(paths.directory, AbiDirectory::Older(_));
            ensure!(
                is_of_directory,
                "{} is not of this version",
                paths.pins().display()
            );
            Ok(maps)
        });
        let error = match opened {
            Ok(maps) => {
                return Ok(Self {
                    paths: paths.clone(),
                    maps,
                });
            }
            Err(error) => error,
        };
        if is_damage(&error) && !is_there(&paths.pins())? {
            // It was removed just then.
            return Err(paths.nothing_loaded());
        }
        let advice = if is_damage(&error) {
            format!("{} detach --all removes it", paths.command())
        } else if is_permission_denied(&error) {
            FORBIDDEN.into()
        } else {
            // What cannot be opened now may be as it should be.
            "try again once it can be opened; nothing was changed".into()
        };
        Err(error).help(|| advice)
    }
}

impl Writer {
    /// The right by which it may.
    #[must_use]
    pub const fn lock(&self) -> &Lock {
        &self.lock
    }
}

impl Deref for Writer {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl Lock {
    /// Opens the instance for changes.
    ///
    /// # Errors
    ///
    /// As [`Instance::open`].
    pub fn open(&self) -> Result<Writer> {
        Instance::open(&self.paths).map(|instance| self.writer(instance))
    }

    /// Opens the instance for changes, after creating it if there is no such instance.
    ///
    /// # Errors
    ///
    /// The pins belong to another version, or cannot be made.
    pub fn open_or_create(&self) -> Result<Writer> {
        let paths = &self.paths;
        let root = paths.bpffs()?.make(ROOT, LISTED)?;
        self.sweep(&root)?;
        let name = paths.instance.as_str();
        let pins = match root.child(name)? {
            Some(instance) => instance.child(paths.directory.name())?,
            None => None,
        };
        if pins.is_none() {
            paths.refuse_other_abi()?;
            // Made beside its place and moved there whole: a crash leaves no half of an instance.
            let made = self.create_in(&root).and_then(|()| {
                root.remove(name)?;
                root.rename(&paths.staging(), name)
                    .context("move the pins to their place")
            });
            if let Err(error) = made {
                let _ = root.remove(paths.staging());
                return Err(error);
            }
        }
        Instance::open_pinned(paths).map(|instance| self.writer(instance))
    }

    fn writer(&self, instance: Instance) -> Writer {
        Writer {
            instance,
            lock: self.clone(),
        }
    }

    fn create_in(&self, root: &Trusted) -> Result<()> {
        let staging = root.make(self.paths.staging(), LISTED)?;
        Maps::create(staging.make(self.paths.directory.name(), LISTED)?.path())
    }

    /// Removes every pin and record of the instance, whatever is left of it. Programs are detached with
    /// it.
    ///
    /// # Errors
    ///
    /// A pin or a record cannot be removed.
    pub fn remove(&self) -> Result<()> {
        let paths = &self.paths;
        let name = paths.instance.as_str();
        if let Some(root) = paths.bpffs()?.child(ROOT)? {
            // Moved away whole, then removed: a crash leaves no half of an instance in its place.
            if root.rename(name, &paths.trash()).is_err() {
                // Something stands there from a crash, or the move is refused: piece by piece, then.
                root.remove(name)?;
            }
            self.sweep(&root)
                .help(|| format!("{} detach --all goes on", paths.command()))?;
        }
        let Some(state) = Trusted::open(&paths.state)? else {
            return Ok(());
        };
        match state.remove(name) {
            // A writer that waits has made a lock of its own.
            Err(error) if error.downcast_ref() == Some(&Errno::NOTEMPTY) => Ok(()),
            removed => removed,
        }
    }

    /// Removes what a writer that was killed left half made or half removed.
    fn sweep(&self, root: &Trusted) -> Result<()> {
        // What can hold programs on interfaces goes whether the other does or not.
        let removed = root.remove(self.paths.trash());
        root.remove(self.paths.staging())?;
        removed
    }

    /// Refuses an instance whose removal was interrupted.
    ///
    /// # Errors
    ///
    /// It is one.
    pub(crate) fn refuse_half_removed(&self) -> Result<()> {
        if !self.paths.exists()? && self.paths.is_in_trash()? {
            return Err(self.paths.half_removed());
        }
        Ok(())
    }
}

impl InstancePaths {
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
        let interfaces = pinned::left_in_trash(self).unwrap_or_default();
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
}
