//! QEMU, which boots other kernels: the machine's, or, where that could only be installed in the place of something else,
//! one that is unpacked below the target directory.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::{
    command::{self, Command},
    repository, say,
};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// What unpacked packages have for this architecture stands there, some of it below `/usr`.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// The files of QEMU and of its firmware.
const FILES: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// The program to run.
///
/// # Errors
///
/// If [`install`] was not called.
pub(crate) fn program() -> Result<PathBuf> {
    let unpacked = directory().join(PROGRAM);
    command::find(PROGRAM)
        .or_else(|| unpacked.is_file().then_some(unpacked))
        .with_context(|| format!("{PROGRAM} is missing here"))
}

/// Installs or unpacks it if it is missing.
///
/// # Errors
///
/// If it cannot be had.
pub(super) fn install() -> Result<()> {
    if program().is_ok() {
        return Ok(());
    }
    if !apt::is_here() {
        bail!("this needs a program that is missing here: {PROGRAM}");
    }
    let packages = [PACKAGE.to_owned()];
    let simulation = apt::simulate_anew(&packages)?;
    if simulation.removes.is_empty() {
        apt::announce("what boots other kernels", &packages, &simulation)?;
        return apt::install(&packages);
    }
    say::step(format_args!(
        "unpacking {PACKAGE}, which could be installed only without {}",
        simulation.removes.join(" ")
    ));
    unpack(&simulation.installs)
}

fn directory() -> PathBuf {
    repository::target_dir().join("qemu")
}

/// Downloads packages and unpacks them beside each other, with a script that starts the program among them.
fn unpack(packages: &[String]) -> Result<()> {
    let directory = directory();
    // What an interrupted run has left.
    let _ = fs::remove_dir_all(&directory);
    let root = directory.join("root");
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    command::run(
        Command::new("apt-get")
            .args(["download", "-q"])
            .args(packages)
            .current_dir(&root),
    )?;
    apt::unpack_in(&root)?;
    let script = directory.join(PROGRAM);
    let partial = directory.join("partial");
    fs::write(&partial, starting(&root))
        .and_then(|()| fs::set_permissions(&partial, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&partial, &script))
        .with_context(|| format!("write {}", script.display()))
}

fn starting(root: &Path) -> String {
    let (root, files) = (
        root.display(),
        FILES.map(|files| format!("-L \"$root/{files}\"")),
    );
    format!(
        "#!/bin/sh\n\
         root='{root}'\n\
         export LD_LIBRARY_PATH=\"$root/usr/{LIBRARIES}:$root/{LIBRARIES}\"\n\
         export QEMU_MODULE_DIR=\"$root/usr/{LIBRARIES}/qemu\"\n\
         exec \"$root/usr/bin/{PROGRAM}\" {} \"$@\"\n",
        files.join(" ")
    )
}
