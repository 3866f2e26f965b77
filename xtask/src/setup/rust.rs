//! The Rust compiler for the BPF target.

use std::fmt;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::command::{self, Command};

/// The name under which rustup knows the compiler for the BPF target.
pub(crate) const TOOLCHAIN: &str = "portdemux-bpf";
/// The BPF target of this machine.
pub(crate) const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// A compiler that has, or can build, `core` for the BPF target.
pub(crate) struct Rust {
    pub(crate) version: Version,
    pub(crate) llvm: u32,
    /// `core` comes as source and is built along with the programs.
    pub(crate) builds_core: bool,
}

impl Rust {
    /// Finds the toolchain that the build uses and checks that it is fit for use.
    pub(crate) fn find() -> Result<Self> {
        let (version, llvm) = versions(&mut command("rustc"))
            .with_context(|| format!("there is no toolchain `{TOOLCHAIN}`"))?;
        if version < Version::NEEDED {
            bail!(
                "the toolchain `{TOOLCHAIN}` is Rust {version}, {} or newer is needed",
                Version::NEEDED
            );
        }
        let paths = command::output(command("rustc").args([
            "--target",
            TARGET,
            "--print",
            "target-libdir",
            "--print",
            "sysroot",
        ]))?;
        let mut paths = paths.lines().map(std::path::Path::new);
        let (Some(libraries), Some(sysroot)) = (paths.next(), paths.next()) else {
            bail!("`rustc --print` says nothing");
        };
        let has_core = libraries.read_dir().is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
            })
        });
        if !has_core && !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
            bail!("the toolchain `{TOOLCHAIN}` has no `core` for BPF, prebuilt or as source");
        }
        Ok(Self {
            version,
            llvm,
            builds_core: !has_core,
        })
    }

    /// A cargo command of this toolchain that builds or checks for BPF.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = command("cargo");
        cargo
            .current_dir(crate::repository::root())
            .args([subcommand, "--target", TARGET]);
        if self.builds_core {
            cargo.args(["-Z", "build-std=core"]);
        }
        cargo
    }
}

impl fmt::Display for Rust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = if self.builds_core {
            "as source"
        } else {
            "prebuilt"
        };
        write!(
            f,
            "Rust {} for BPF (core {core}, LLVM {})",
            self.version, self.llvm
        )
    }
}

/// A program of the toolchain; on a machine without rustup, of the only one.
pub(crate) fn command(program: &str) -> Command {
    if command::find("rustup").is_some() {
        let mut command = Command::new("rustup");
        command.args(["run", TOOLCHAIN, program]);
        command
    } else {
        Command::new(program)
    }
}

/// Asks a `rustc` for its version and the major version of its LLVM.
pub(crate) fn versions(rustc: &mut Command) -> Result<(Version, u32)> {
    let text = command::output(rustc.arg("-vV"))?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .ok_or_else(|| anyhow!("`rustc -vV` does not say its {name}"))
    };
    let release = field("release")?;
    let llvm = field("LLVM version")?;
    let version = Version::parse(release).with_context(|| format!("read version `{release}`"))?;
    let llvm = leading_number(llvm).with_context(|| format!("read LLVM version `{llvm}`"))?;
    Ok((version, llvm))
}

/// A Rust release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// The oldest release that builds this workspace.
    pub(crate) const NEEDED: Self = match Self::parse_const(env!("CARGO_PKG_RUST_VERSION")) {
        Some(version) => version,
        None => panic!("rust-version is not a version"),
    };

    /// Reads the two first numbers of `1.96.0-nightly` or `1.96.0+dfsg1-1`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::parse_const(text)
    }

    const fn parse_const(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let mut numbers = [0, 0];
        let (mut which, mut at) = (0, 0);
        while at < bytes.len() && which < numbers.len() {
            let byte = bytes[at];
            if byte.is_ascii_digit() {
                numbers[which] = numbers[which] * 10 + (byte - b'0') as u32;
            } else if byte == b'.' {
                which += 1;
            } else {
                break;
            }
            at += 1;
        }
        let [major, minor] = numbers;
        if major == 0 {
            return None;
        }
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The number that a text begins with.
pub(crate) fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_and_ignore_what_a_distribution_adds() {
        let version = |text| Version::parse(text).expect("a version");
        assert_eq!(version("1.96.0+dfsg1-1~deb12u2"), version("1.96"));
        assert!(version("1.100.0-nightly") > version("1.96.0"));
        assert!(version("1.63.0+dfsg1-2") < Version::NEEDED);
        assert_eq!(Version::parse("(none)"), None);
        assert_eq!(leading_number("22.1.8"), Some(22));
    }
}
