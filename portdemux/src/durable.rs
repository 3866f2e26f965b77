//! Files that outlive the machine's power: replaced as a whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::bounded;

/// What becomes of the text before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OldText {
    /// It is kept beside the file, with ~ at the end of its name.
    Kept,
    /// It goes.
    Gone,
}

/// Refuses what is there and is no regular file: [`replace`] would put a file in the place of a device.
///
/// # Errors
///
/// Says what it is; that cannot be seen.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        found => bounded::check(found?.file_type()),
    }
}

/// Gives a file another text and keeps its mode, `mode` if there is none. Says whether there was one with another text.
///
/// # Errors
///
/// It cannot be read or written, or is no regular file; it says what it said before, or the whole new text.
pub(crate) fn replace(path: &Path, text: &str, mode: u32, before: OldText) -> io::Result<bool> {
    let old = match bounded::says(path, text.as_bytes()) {
        Ok(true) => return Ok(false),
        Ok(false) => Some(fs::metadata(path)?.permissions()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let beside = |ending: &str| {
        let mut path = path.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    // Only the package makes it, and nobody has to have installed that.
    fs::create_dir_all(directory)?;
    let unfinished = beside(".new");
    let write = || -> io::Result<()> {
        remove(&unfinished)?;
        let mode = old.as_ref().map_or(mode, PermissionsExt::mode);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(mode & 0o777)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if old.is_some() && before == OldText::Kept {
            let kept = beside("~");
            remove(&kept)?;
            fs::hard_link(path, &kept)?;
        }
        let directory = File::open(directory)?;
        fs::rename(&unfinished, path)?;
        directory.sync_all()
    };
    let written = write();
    if written.is_err() {
        // The error before is the one to tell.
        let _: io::Result<()> = remove(&unfinished);
    }
    written.map(|()| old.is_some())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_mode_and_what_it_said_before() {
        let directory = std::env::temp_dir().join(format!("portdemux-save-{}", std::process::id()));
        let path = directory.join("below").join("rules.toml");
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let replace = |text: &str, before| replace(&path, text, 0o644, before).unwrap();
        assert!(!replace("one", OldText::Kept));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(replace("two", OldText::Kept));
        assert!(!replace("two", OldText::Kept), "it says so already");
        assert!(replace("three", OldText::Kept));
        assert!(replace("four", OldText::Gone));
        let kept = path.with_extension("toml~");
        assert_eq!((read(&path), read(&kept)), ("four".into(), "two".into()));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 2, "nothing unfinished");
        fs::remove_dir_all(directory).unwrap();
    }
}
