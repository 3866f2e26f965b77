//! Debian's kernels, from several of its releases: downloaded and unpacked, never installed.
//!
//! apt gets them with a root of its own under the target directory, so that the machine's lists and sources stay as
//! they are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{self, Command},
    say, setup,
};

/// The name of whatever is the newest.
pub(super) const NEWEST: &str = "newest";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where kernels are.
const SUITES: [(&str, &str); 8] = [
    ("debian", "bullseye"),
    ("debian-security", "bullseye-security"),
    ("debian", "bookworm"),
    ("debian-security", "bookworm-security"),
    ("debian", "bookworm-backports"),
    ("debian", "trixie"),
    ("debian-security", "trixie-security"),
    ("debian", "trixie-backports"),
];
const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";

/// An unpacked kernel.
pub(super) struct Kernel {
    /// As its package has it: `6.1.0-57`, `6.12.117+deb13`.
    pub(super) version: String,
    /// What boots.
    pub(super) image: PathBuf,
    /// Its modules, somewhere below.
    pub(super) modules: PathBuf,
}

/// The kernels that can be had.
pub(super) struct Kernels {
    directory: PathBuf,
    versions: Vec<String>,
}

impl Kernels {
    /// Reads the lists of packages; fetches them if there are none yet.
    ///
    /// # Errors
    ///
    /// If they cannot be had.
    pub(super) fn open(fetches: bool) -> Result<Self> {
        let directory = super::directory();
        for part in ["lists/partial", "archives/partial", "kernels"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("make {}", part.display()))?;
        }
        let mut kernels = Self {
            directory,
            versions: Vec::new(),
        };
        let mirror = setup::mirror()?;
        let sources = SUITES
            .map(|(archive, suite)| {
                format!("deb [signed-by={KEYRING}] {mirror}/{archive} {suite} main\n")
            })
            .concat();
        let file = kernels.directory.join("sources.list");
        fs::write(&file, sources).with_context(|| format!("write {}", file.display()))?;
        if fetches || kernels.read()?.is_empty() {
            say::step("fetching the lists of kernels");
            // Where a suite is gone, the others still have kernels.
            if let Err(err) = command::run(kernels.apt("apt-get").args(["update", "-q"])) {
                say::warning(format_args!("{err:#}"));
            }
        }
        kernels.versions = kernels.read()?;
        if kernels.versions.is_empty() {
            bail!("no list of Debian's kernels can be had: run this again with a network");
        }
        Ok(kernels)
    }

    /// The newest kernel whose version begins so, downloaded and unpacked.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(super) fn get(&self, name: &str) -> Result<Kernel> {
        let version = self
            .versions
            .iter()
            .filter(|version| name == NEWEST || begins(version, name))
            .max_by_key(|version| numbers(version))
            .with_context(|| format!("no suite of Debian has Linux {name}"))?;
        let unpacked = self.directory.join("kernels").join(version);
        if !unpacked.is_dir() {
            self.unpack(version, &unpacked)
                .with_context(|| format!("get Linux {version}"))?;
        }
        let image = find(&unpacked, &|file| file.starts_with("vmlinuz"))
            .with_context(|| format!("no kernel in {}", unpacked.display()))?;
        Ok(Kernel {
            version: version.clone(),
            image,
            modules: unpacked,
        })
    }

    fn unpack(&self, version: &str, to: &Path) -> Result<()> {
        let image = format!("{PREFIX}{version}{SUFFIX}");
        // Newer packages only name those that hold the kernel and its modules.
        let depends = command::output(self.apt("apt-cache").args(["depends", &image]))?;
        let packages = depends
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .filter(|name| name.starts_with("linux-binary-") || name.starts_with("linux-modules-"))
            .chain([image.as_str()]);
        let partial = to.with_extension("partial");
        // What an interrupted run has left.
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
        command::run(
            self.apt("apt-get")
                .args(["download", "-q"])
                .args(packages)
                .current_dir(&partial),
        )?;
        setup::unpack_in(&partial)?;
        fs::rename(&partial, to).with_context(|| format!("make {}", to.display()))
    }

    fn read(&self) -> Result<Vec<String>> {
        let names = command::output(self.apt("apt-cache").args(["pkgnames", PREFIX]))?;
        Ok(names
            .lines()
            .filter_map(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX))
            .filter(|version| numbers(version).len() > 2)
            .map(str::to_owned)
            .collect())
    }

    /// A program of apt with the root of its own.
    fn apt(&self, program: &str) -> Command {
        let mut command = setup::apart(program, &self.directory, "amd64");
        let sources = self.directory.join("sources.list");
        command
            .arg("-o")
            .arg(format!("Dir::Etc::sourcelist={}", sources.display()))
            .args(["-o", "Dir::Etc::sourceparts=-"]);
        command
    }
}

/// Whether a version begins with this one: `6.1` is not the beginning of `6.12`.
fn begins(version: &str, beginning: &str) -> bool {
    version
        .strip_prefix(beginning)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The numbers in a version, by which versions compare.
pub(super) fn numbers(version: &str) -> Vec<u32> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// A file below a directory whose name is as wanted.
pub(super) fn find(directory: &Path, is_wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            directories.push(path);
        } else if is_wanted(&entry.file_name().to_string_lossy()) {
            return Some(path);
        }
    }
    directories
        .iter()
        .find_map(|directory| find(directory, is_wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_ends_where_a_number_does() {
        assert!(begins("6.1.0-57", "6.1") && begins("6.12.117+deb13", "6.12"));
        assert!(!begins("6.12.117+deb13", "6.1") && !begins("6.1.0-57", "6.10"));
    }

    #[test]
    fn newer_versions_are_greater() {
        assert!(numbers("6.1.0-57") > numbers("6.1.0-9"));
        assert!(numbers("6.1.0-57") > numbers("6.1.0-0.deb11.52"));
        assert!(numbers("7.3.4+deb13") > numbers("6.18.15+deb13"));
    }
}
