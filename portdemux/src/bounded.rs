//! Text that others wrote, read no further than it can be meant.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

/// How many bytes a text has at most: the largest sets, written out, have half as many.
const MOST: usize = 256 << 20;
/// How many are read at once.
const CHUNK: usize = 64 << 10;

/// Reads a file.
///
/// # Errors
///
/// It cannot be read, is larger than can be meant, or is no text.
pub(crate) fn file(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
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
    fn a_text_comes_whole_however_long_the_chunks_are() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let expected = "x".repeat(length);
            assert_eq!(text(expected.as_bytes()).unwrap(), expected);
        }
        let wrong = text(&b"abc\xff"[..]).unwrap_err().to_string();
        assert_eq!(wrong, "it is no text: byte 4 is not UTF-8");
    }
}
