//! The standard library for arm64, to check the code against.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{apt, debian, rust};
use crate::{
    command::{self, Command},
    repository, say,
};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Where cargo looks for options of the compiler for this target.
const OPTIONS: &str = "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS";

/// Which compiler has it.
pub(crate) enum Aarch64 {
    /// The one that compiles for this machine.
    Own,
    /// Debian's, with a sysroot of ours.
    Debian(PathBuf),
}

impl Aarch64 {
    /// Finds the library, or gets it.
    ///
    /// # Errors
    ///
    /// If neither rustup nor Debian has it.
    pub(crate) fn get() -> Result<Self> {
        if is_in_own_sysroot()? {
            return Ok(Self::Own);
        }
        if let Ok(sysroot) = Sysroot::find()
            && sysroot.is_unpacked()
        {
            return Ok(Self::Debian(sysroot.directory));
        }
        say::step(format_args!("installing the standard library for {TARGET}"));
        let rustup = command::output(Command::new("rustup").args(["target", "add", TARGET]));
        let Err(rustup) = rustup else {
            return Ok(Self::Own);
        };
        let debian = Sysroot::find().and_then(Sysroot::download);
        match debian {
            Ok(sysroot) => Ok(Self::Debian(sysroot)),
            Err(debian) => bail!(
                "the standard library for {TARGET} is not to be had, one of these must change\n  \
                 rustup:            {rustup:#}\n  \
                 Debian's packages: {debian:#}"
            ),
        }
    }

    /// A cargo command that checks for arm64.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = match self {
            Self::Own => command::cargo(subcommand),
            Self::Debian(sysroot) => {
                let mut cargo = rust::command("cargo");
                cargo
                    .current_dir(repository::root())
                    .arg(subcommand)
                    .env(OPTIONS, format!("--sysroot={}", sysroot.display()));
                cargo
            }
        };
        cargo.args(["--target", TARGET]);
        cargo
    }
}

/// Whether the compiler for this machine has the library.
fn is_in_own_sysroot() -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(repository::root())
        .args(["--target", TARGET, "--print", "target-libdir"]);
    let libraries = command::output(&mut rustc)?;
    Ok(has_std(Path::new(libraries.trim())))
}

fn has_std(libraries: &Path) -> bool {
    fs::read_dir(libraries).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().as_encoded_bytes().starts_with(b"libstd-"))
        })
    })
}

/// What Debian's package for arm64 has, unpacked below the target directory.
struct Sysroot {
    /// The version of Debian's compiler, which the library must have too.
    version: String,
    /// Where it belongs.
    directory: PathBuf,
}

impl Sysroot {
    fn find() -> Result<Self> {
        let version = command::output(Command::new("dpkg-query").args([
            "--show",
            "--showformat=${Version}",
            debian::RUSTC,
        ]))?;
        let directory = root().join(&version).join("usr");
        Ok(Self { version, directory })
    }

    fn is_unpacked(&self) -> bool {
        has_std(&self.directory.join("lib/rustlib").join(TARGET).join("lib"))
    }

    /// Downloads and unpacks the package, from where this machine has its packages.
    fn download(self) -> Result<PathBuf> {
        let root = root();
        let partial = root.join("partial");
        // What an interrupted run has left.
        let _ = fs::remove_dir_all(&partial);
        for part in ["lists/partial", "archives/partial", "partial"] {
            let part = root.join(part);
            fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        }
        let status = root.join("status");
        fs::write(&status, "").with_context(|| format!("write {}", status.display()))?;
        let apt = || {
            let mut apt = apt::apart("apt-get", &root, "arm64");
            apt.arg("-o")
                .arg(format!("Dir::State::status={}", status.display()));
            apt
        };
        command::run(apt().args(["update", "-q"]))?;
        let package = format!("{}={}", debian::STD, self.version);
        command::run(
            apt()
                .args(["download", "-q", &package])
                .current_dir(&partial),
        )?;
        apt::unpack_in(&partial)?;
        let to = root.join(&self.version);
        let _ = fs::remove_dir_all(&to);
        fs::rename(&partial, &to).with_context(|| format!("create {}", to.display()))?;
        if !self.is_unpacked() {
            bail!("{package} has no standard library for {TARGET}");
        }
        Ok(self.directory)
    }
}

fn root() -> PathBuf {
    repository::target_dir().join("aarch64-std")
}
