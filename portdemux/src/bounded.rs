//! Files that others can write, read no further than they can be meant.
//!
//! A file that a command got as an argument may be anything that can be read, and may keep it waiting ([`file`]). What
//! a command looks for by itself has to be a regular file ([`open`] and what is made of it): a FIFO in its place would
//! keep it waiting for ever, and a device would never end.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::{fs::OFlags, io::Errno};

/// How many bytes a text has at most: the largest sets, written out, have half as many.
const MOST: usize = 256 << 20;
/// How many a file has that is written here: a text with what was added to it since.
const MOST_KEPT: usize = 2 * MOST;
/// How many are read at once.
const CHUNK: usize = 64 << 10;

/// Opens a regular file for reading, without waiting.
///
/// # Errors
///
/// It cannot be opened, or is something else.
pub(crate) fn regular(path: &Path) -> io::Result<File> {
    // First without opening it: that alone lets the writer of a FIFO go on, and sets some devices going.
    check(fs::metadata(path)?.file_type())?;
    open(path, File::options().read(true))
}

/// Opens a regular file to write it anew, after making it if there is none; without waiting.
///
/// # Errors
///
/// As [`regular`].
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    open(path, options.write(true).create(true).truncate(true))
}

/// Opens a regular file in this way, without waiting.
///
/// # Errors
///
/// As [`regular`].
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = flags.bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// Refuses what is no regular file.
///
/// # Errors
///
/// Says what it is.
pub(crate) fn check(found: FileType) -> io::Result<()> {
    let what = if found.is_file() {
        return Ok(());
    } else if found.is_dir() {
        return Err(Errno::ISDIR.into());
    } else if found.is_fifo() {
        "a FIFO"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(invalid(format!("it is {what} and no regular file")))
}

/// Reads a text that a command looks for by itself.
///
/// # Errors
///
/// As [`regular`] and [`file`].
pub(crate) fn kept(path: &Path) -> io::Result<String> {
    of_file(regular(path)?)
}

/// Reads such a file, whatever it says.
///
/// # Errors
///
/// As [`regular`]; it is larger than can be meant.
pub(crate) fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    bytes_within(regular(path)?, MOST_KEPT)
}

/// Whether a file says this. It is read no further than that takes.
///
/// # Errors
///
/// As [`regular`].
pub(crate) fn says(path: &Path, text: &[u8]) -> io::Result<bool> {
    let file = regular(path)?;
    let length = text.len() as u64;
    if file.metadata()?.len() != length {
        return Ok(false);
    }
    let mut found = Vec::new();
    found.try_reserve_exact(text.len())?;
    file.take(length).read_to_end(&mut found)?;
    Ok(found == text)
}

/// Reads a file that a command got as an argument.
///
/// # Errors
///
/// It cannot be read, is larger than can be meant, or is no text.
pub(crate) fn file(path: &Path) -> io::Result<String> {
    of_file(File::open(path)?)
}

fn of_file(file: File) -> io::Result<String> {
    if file.metadata()?.len() > MOST as u64 {
        return Err(too_large(MOST));
    }
    text(file)
}

/// Reads a text to its end.
///
/// # Errors
///
/// As [`file`].
pub(crate) fn text(source: impl Read) -> io::Result<String> {
    within(source, MOST)
}

fn within(mut source: impl Read, most: usize) -> io::Result<String> {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        bytes.try_reserve(CHUNK)?;
        let read = source.by_ref().take(CHUNK as u64).read_to_end(&mut bytes)?;
        let chunk = &bytes[bytes.len() - read..];
        if chunk.contains(&0) {
            return Err(invalid("it is no text: there is a zero byte in it".into()));
        }
        if bytes.len() > most {
            return Err(too_large(most));
        }
        if read < CHUNK {
            break;
        }
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        invalid(format!("it is no text: byte {} is not UTF-8", at + 1))
    })
}

fn bytes_within(source: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(too_large(most));
    }
    Ok(bytes)
}

fn too_large(most: usize) -> io::Error {
    invalid(format!("it is larger than {} MiB", most >> 20))
}

fn invalid(why: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_read_no_further_than_the_bound() {
        let read = |byte: u8| within(io::repeat(byte), 3 << 20).unwrap_err().to_string();
        assert_eq!(read(b'#'), "it is larger than 3 MiB");
        assert_eq!(read(0), "it is no text: there is a zero byte in it");
        assert_eq!(read(0xff), "it is larger than 3 MiB");
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let directory =
            std::env::temp_dir().join(format!("portdemux-files-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("file");
        let said = |path: &Path| {
            let said = regular(path).unwrap_err().to_string();
            let all = [
                kept(path).map(drop),
                bytes(path).map(drop),
                says(path, b"").map(drop),
            ];
            for result in all {
                assert_eq!(result.unwrap_err().to_string(), said);
            }
            said
        };
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(said(&path), "it is a FIFO and no regular file");
        assert_eq!(said(&directory), "Is a directory (os error 21)");
        assert_eq!(
            said(Path::new("/dev/null")),
            "it is a device and no regular file"
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(regular(&path).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(&path, "text").unwrap();
        assert_eq!(kept(&path).unwrap(), "text");
        assert_eq!(bytes(&path).unwrap(), b"text");
        let is = |text: &[u8]| says(&path, text).unwrap();
        assert_eq!([is(b"text"), is(b"tex"), is(b"tent")], [true, false, false]);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn no_more_bytes_are_read_than_the_bound() {
        let read = |length: u64, most| bytes_within(io::repeat(7).take(length), most);
        assert_eq!(read(5, 5).unwrap(), [7; 5]);
        let wrong = read(u64::MAX, 1 << 20).unwrap_err().to_string();
        assert_eq!(wrong, "it is larger than 1 MiB");
    }

    #[test]
    fn a_text_comes_whole_however_long_the_chunks_are() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let expected = "x".repeat(length);
            assert_eq!(text(expected.as_bytes()).unwrap(), expected);
        }
        let wrong = text(&b"abc\xff"[..]).unwrap_err().to_string();
        assert_eq!(wrong, "it is no text: byte 4 is not UTF-8");
    }
}
