//! Where an instance lies in bpffs.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result};
use rustix::{fs::fstatfs, io::Errno};

use super::abi::AbiDirectory;
use crate::{
    error::{Help as _, command},
    maps::trusted::{Trusted, is_there},
};

/// The directory of bpffs in which all instances are.
pub(super) const ROOT: &str = "portdemux";

/// Type of a bpffs (Linux `include/uapi/linux/magic.h`, `BPF_FS_MAGIC`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// What helps whoever may not read the pins.
pub(super) const FORBIDDEN: &str = "run it as root, or let this user read the pins";

/// The name of an instance: 1 to 32 letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceName(String);

impl InstanceName {
    /// The name as it is written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

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

    /// Where the link of the interface at `slot` is pinned.
    #[must_use]
    pub fn link(&self, slot: usize) -> PathBuf {
        self.pins().join(format!("link{slot}"))
    }

    /// Where the link of the program that sees what the interface at `slot` sends is pinned.
    pub(crate) fn egress(&self, slot: usize) -> PathBuf {
        self.pins().join(format!("sent{slot}"))
    }

    /// Where links are pinned, those of all instances.
    pub(crate) fn all_links(&self) -> Vec<PathBuf> {
        let instances = below(self.root()).into_iter();
        instances.flat_map(links_of).collect()
    }

    /// Where links are pinned that whoever removed the instance left.
    pub(crate) fn links_in_trash(&self) -> Vec<PathBuf> {
        links_of(self.root().join(self.trash()))
    }

    /// The instance that a link below [`Self::root`] is of, and whether that one's removal was interrupted.
    pub(crate) fn owner_of(&self, link: &Path) -> Option<(InstanceName, bool)> {
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

    pub(super) fn staging(&self) -> String {
        format!("{}~new", self.instance)
    }

    pub(super) fn trash(&self) -> String {
        format!("{}~old", self.instance)
    }

    /// The directory where bpffs is mounted, which is one.
    pub(super) fn bpffs(&self) -> Result<Trusted> {
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
    pub(super) fn directory(&self) -> Result<Option<Trusted>> {
        match self.bpffs()?.child(ROOT)? {
            Some(root) => root.child(self.instance.as_str()),
            None => Ok(None),
        }
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

pub(super) fn is_permission_denied(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            || cause.downcast_ref() == Some(&Errno::ACCESS)
    })
}

/// Adds what helps against some errors.
pub(super) trait HelpIf {
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
