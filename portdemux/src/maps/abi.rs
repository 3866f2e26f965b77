//! The names of directories of pins, which say whose layout lies in them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::trusted::Trusted;

/// How the name of a directory of pins begins; its ABI follows.
pub(crate) const ABI_PREFIX: &str = "abi";
/// How the name of an older directory begins that a newer one has taken the place of.
pub(crate) const OLDER_PREFIX: &str = "older";

/// The older directory whose place a directory of pins has taken and that is not removed yet, and its ABI.
pub(crate) fn overtaken(pins: &Path) -> Result<Option<(u32, PathBuf)>> {
    let abi = numbers(pins, OLDER_PREFIX)?.into_iter().max();
    Ok(abi.map(|abi| (abi, pins.join(format!("{OLDER_PREFIX}{abi}")))))
}

/// The ABI that the name of a directory of pins says.
pub(crate) fn abi_of(pins: &Path) -> Option<u32> {
    let name = pins.file_name()?.to_str()?;
    let number = name
        .strip_prefix(ABI_PREFIX)
        .or_else(|| name.strip_prefix(OLDER_PREFIX))?;
    number.parse().ok()
}

/// The numbers that follow a prefix in the names of directories below another one.
pub(crate) fn numbers(directory: &Path, prefix: &str) -> Result<Vec<u32>> {
    let Some(directory) = Trusted::open(directory)? else {
        return Ok(Vec::new());
    };
    let names = directory.names();
    let names = names.with_context(|| format!("list {}", directory.path().display()))?;
    let numbers = names.iter().filter_map(|name| {
        let number = name.to_str()?.strip_prefix(prefix)?;
        // What begins with a zero is on its way to its name, and with a plus is the sign of such a one.
        let is_whole = !number.starts_with(['0', '+']);
        is_whole.then(|| number.parse::<u32>().ok()).flatten()
    });
    Ok(numbers.collect())
}
