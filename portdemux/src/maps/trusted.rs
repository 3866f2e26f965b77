//! Directories that only root and this user can change.
//!
//! Where an instance lies is said by paths. A path means the same from one step to the next if nobody else can put
//! something in the place of one of its parts. So each part is opened below the one before, symbolic links are not
//! followed, and each belongs to root or to this user. Where others may write, the sticky bit keeps them from what
//! is not theirs (inode(7)). A path that was found to be so may then be used as a whole.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{self, Component, Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat,
        statat, unlinkat,
    },
    io::Errno,
    process::geteuid,
};

use crate::error::Help as _;

/// Those who are neither the owner nor root can do nothing with it.
pub(crate) const PRIVATE: Mode = Mode::RWXU;
/// Everyone can list it, and only the owner change it.
pub(crate) const LISTED: Mode = Mode::from_raw_mode(0o755);

/// A directory whose path nobody else can lead elsewhere.
#[derive(Debug)]
pub(crate) struct Trusted {
    directory: OwnedFd,
    path: PathBuf,
}

impl Trusted {
    /// Opens a directory; none if it or one above it is missing.
    ///
    /// # Errors
    ///
    /// A part of the path is not to be trusted, or cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        Self::walk(path, |directory, name| directory.child(name))
    }

    /// Opens a directory, after making it and those above it if they are missing.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], or one cannot be made.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let made = Self::walk(path, |directory, name| match directory.child(name)? {
            Some(there) => Ok(Some(there)),
            None => directory.make(name, PRIVATE).map(Some),
        })?;
        made.with_context(|| format!("create {}", path.display()))
    }

    fn walk(
        path: &Path,
        step: impl Fn(&Self, &OsStr) -> Result<Option<Self>>,
    ) -> Result<Option<Self>> {
        let path = path::absolute(path)?;
        let mut directory = Self::descend(CWD, OsStr::new("/"), "/".into())?;
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            };
            match step(&directory, name)? {
                Some(next) => directory = next,
                None => return Ok(None),
            }
        }
        Ok(Some(directory))
    }

    /// A directory in this one; none if it is missing.
    ///
    /// # Errors
    ///
    /// It is not to be trusted, or cannot be opened.
    pub(crate) fn child(&self, name: impl AsRef<OsStr>) -> Result<Option<Self>> {
        let (name, path) = (name.as_ref(), self.path.join(name.as_ref()));
        match Self::descend(&self.directory, name, path) {
            Err(error) if is_missing(&error) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// A directory in this one, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// As [`Self::child`], or it cannot be made.
    pub(crate) fn make(&self, name: impl AsRef<OsStr>, mode: Mode) -> Result<Self> {
        let (name, path) = (name.as_ref(), self.path.join(name.as_ref()));
        let is_new = match mkdirat(&self.directory, name, mode) {
            Err(Errno::EXIST) => false,
            created => {
                created.with_context(|| format!("create {}", path.display()))?;
                true
            }
        };
        let child = Self::descend(&self.directory, name, path)?;
        if is_new {
            // What the process masks is for files that it does not think about.
            child.change_mode(mode)?;
        }
        Ok(child)
    }

    fn descend(directory: impl AsFd, name: &OsStr, path: PathBuf) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match openat(&directory, name, flags, Mode::empty()) {
            Err(Errno::NOTDIR) if is_link(&directory, name) => {
                return Err(distrust(&path, "is a symbolic link"))
                    .help(|| "name the directory that it leads to, or remove it".into());
            }
            opened => opened.with_context(|| format!("open {}", path.display()))?,
        };
        let trusted = Self {
            directory: opened,
            path,
        };
        trusted.check()?;
        Ok(trusted)
    }

    fn check(&self) -> Result<()> {
        let path = &self.path;
        let stat =
            fstat(&self.directory).with_context(|| format!("ask about {}", path.display()))?;
        check_owner(path, stat.st_uid)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        let is_sticky = stat.st_mode & STICKY != 0;
        if mode.intersects(Mode::WGRP | Mode::WOTH) && !is_sticky {
            return Err(distrust(path, "can be changed by other users"))
                .help(|| format!("chmod go-w {0}, or chmod +t {0}", path.display()));
        }
        Ok(())
    }

    /// Keeps all but the owner out, where an older binary let them in.
    ///
    /// # Errors
    ///
    /// The mode cannot be changed.
    pub(crate) fn make_private(&self) -> Result<()> {
        let stat = fstat(&self.directory).with_context(|| self.about("ask about"))?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        if mode.intersects(Mode::RWXG | Mode::RWXO) {
            self.change_mode(PRIVATE)?;
        }
        Ok(())
    }

    fn change_mode(&self, mode: Mode) -> Result<()> {
        let change = || fchmod(self.readable()?, mode);
        change().with_context(|| self.about("change the mode of"))
    }

    /// The path that was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of what is here.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub(crate) fn names(&self) -> io::Result<Vec<std::ffi::OsString>> {
        use std::os::unix::ffi::OsStringExt as _;
        let mut names = Vec::new();
        for entry in Dir::read_from(self.readable()?)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(std::ffi::OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Opens a file of this user's or root's alone for reading and writing, after making it if it is missing.
    ///
    /// # Errors
    ///
    /// It is another's, is no file, or cannot be opened.
    pub(crate) fn open_private(&self, name: &str) -> Result<File> {
        let path = self.path.join(name);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = match openat(&self.directory, name, flags, mode) {
            Err(Errno::LOOP) => {
                return Err(distrust(&path, "is a symbolic link")).help(|| "remove it".into());
            }
            file => file.with_context(|| format!("open {}", path.display()))?,
        };
        let stat = fstat(&file).with_context(|| format!("ask about {}", path.display()))?;
        check_owner(&path, stat.st_uid)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(distrust(&path, "is no file")).help(|| "remove it".into());
        }
        Ok(file.into())
    }

    /// Gives what is here another name.
    ///
    /// # Errors
    ///
    /// It cannot be moved.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.directory, from, &self.directory, to)?)
    }

    /// Removes what has this name, with everything below it, if it is there. A symbolic link is removed and not
    /// followed.
    ///
    /// # Errors
    ///
    /// Something cannot be removed.
    pub(crate) fn remove(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = name.as_ref();
        let path = || format!("remove {}", self.path.join(name).display());
        remove_below(&self.directory, name).with_context(path)
    }

    fn readable(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.directory, ".", flags, Mode::empty())
    }

    fn about(&self, what: &str) -> String {
        format!("{what} {}", self.path.display())
    }
}

impl AsFd for Trusted {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Whether something is at a path, whatever it is.
///
/// # Errors
///
/// It cannot be asked for.
pub(crate) fn is_there(path: &Path) -> Result<bool> {
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look for {}", path.display())),
    }
}

const STICKY: u32 = 0o1000;

fn is_link(directory: impl AsFd, name: &OsStr) -> bool {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Errno>() == Some(&Errno::NOENT)
}

fn check_owner(path: &Path, owner: u32) -> Result<()> {
    if owner == 0 || owner == geteuid().as_raw() {
        return Ok(());
    }
    Err(distrust(path, &format!("belongs to user {owner}"))).help(|| {
        "it must belong to root or to the user that runs this: see what it is, and remove it or run this as \
         that user"
            .into()
    })
}

fn distrust(path: &Path, why: &str) -> anyhow::Error {
    anyhow::anyhow!("{} {why}, and is not used", path.display())
}

fn remove_below(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
    let directory = directory.as_fd();
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Of a directory Linux says the one, POSIX the other.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = match openat(directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR) => return Err(Errno::PERM),
        below => below?,
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&below)? {
        names.push(entry?.file_name().to_owned());
    }
    for name in names {
        use std::os::unix::ffi::OsStrExt as _;
        let name = OsStr::from_bytes(name.to_bytes());
        if name != "." && name != ".." {
            remove_below(&below, name)?;
        }
    }
    match unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}
