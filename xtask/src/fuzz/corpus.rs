//! The inputs that are kept, as text: one in a line, with an escape for what is not printable.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Target, directory, program};
use crate::{
    command::{self, Command},
    repository,
};

/// How many bytes of inputs are kept of a target, as they are written down.
const MOST: usize = 8 * 1024;

/// The file that keeps the inputs of a target.
fn kept(target: Target) -> PathBuf {
    let name = format!("{}.txt", target.name());
    repository::root().join("fuzz/corpus").join(name)
}

/// Writes the inputs that are kept where a fuzzer reads them, beside those that it found before; returns where.
pub(super) fn unpack(target: Target) -> Result<PathBuf> {
    let corpus = directory().join("corpus").join(target.name());
    fs::create_dir_all(&corpus).with_context(|| format!("create {}", corpus.display()))?;
    let file = kept(target);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    for (number, line) in text.lines().enumerate() {
        let input =
            unescaped(line).with_context(|| format!("{}:{}", file.display(), number + 1))?;
        write(&corpus.join(format!("kept-{number}")), &input)?;
    }
    Ok(corpus)
}

/// Keeps the fewest of the inputs that take all the ways that were found, the short ones first.
pub(super) fn keep(target: Target) -> Result<()> {
    let found = directory().join("corpus").join(target.name());
    let merged = directory().join("merged").join(target.name());
    // What an earlier merge left; it is not there the first time.
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged).with_context(|| format!("create {}", merged.display()))?;
    command::run(
        Command::new(program(target)?)
            .args(["-merge=1", "-verbosity=0"])
            .args([&merged, &found]),
    )?;
    let mut lines = Vec::new();
    for entry in fs::read_dir(&merged).with_context(|| format!("read {}", merged.display()))? {
        let path = entry.context("read a directory")?.path();
        let input = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        lines.push(format!("{}\n", input.escape_ascii()));
    }
    lines.sort_by_key(|line| (line.len(), line.clone()));
    let mut left = MOST;
    lines.retain(|line| {
        let fits = line.len() <= left;
        left -= if fits { line.len() } else { 0 };
        fits
    });
    write(&kept(target), lines.concat().as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// The bytes that [`u8::escape_ascii`] wrote.
fn unescaped(line: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = line.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first().context("an escape without an end")?;
        rest = after;
        bytes.push(match escape {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let (digits, after) = rest.split_at_checked(2).context("a byte of one digit")?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits)?, 16)?
            }
            other => other,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back_from_its_escape() {
        let bytes: Vec<u8> = (0..=255).chain(*b"\\x41\"'").collect();
        let line = bytes.escape_ascii().to_string();
        assert!(!line.contains('\n'));
        assert_eq!(unescaped(&line).expect("it was escaped"), bytes);
        for broken in ["\\", "\\x4", "\\xgg"] {
            assert!(unescaped(broken).is_err(), "{broken}");
        }
    }
}
