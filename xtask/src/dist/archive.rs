//! The archive with a static binary, for machines whose libc is another.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{check, hidden, version};
use crate::{
    command::{self, Command},
    repository, say,
};

/// Builds the archive into a directory.
pub(super) fn make(directory: &Path) -> Result<PathBuf> {
    say::step("building the static binary");
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let built = repository::target_dir().join("static");
    command::run(
        command::cargo("build")
            .args(["--release", "--package", "portdemux", "--bin", "portdemux"])
            .args(["--target", &target, "--target-dir"])
            .arg(&built)
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                hidden::flags(&["-Ctarget-feature=+crt-static"])?,
            )
            // It is taken off again.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    )?;
    let name = format!("portdemux-{}-{}-linux", version(), env::consts::ARCH);
    let staged = directory.join(&name);
    if staged.exists() {
        fs::remove_dir_all(&staged).with_context(|| format!("empty {}", staged.display()))?;
    }
    fs::create_dir_all(&staged).with_context(|| format!("create {}", staged.display()))?;
    let binary = staged.join("portdemux");
    command::run(
        Command::new("strip")
            .arg("-o")
            .args([&binary, &built.join(target).join("release/portdemux")]),
    )?;
    check_static(&binary)?;
    check::binary(&binary)?;
    hidden::check(&binary)?;
    copy(&staged)?;
    let archive = directory.join(format!("{name}.tar.gz"));
    command::run(
        Command::new("tar")
            .args(["--create", "--gzip", "--owner=0", "--group=0", "--file"])
            .arg(&archive)
            .arg("--directory")
            .args([directory.as_os_str(), name.as_ref()]),
    )?;
    fs::remove_dir_all(&staged).with_context(|| format!("remove {}", staged.display()))?;
    Ok(archive)
}

/// What stands beside the binary.
fn copy(staged: &Path) -> Result<()> {
    let root = repository::root();
    let reference = super::apart().join("release/dist");
    let files = [
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "docs",
        "packaging/portdemux@.service",
        "packaging/example.toml",
    ];
    command::run(
        Command::new("cp")
            .arg("--recursive")
            .args(files.map(|file| root.join(file)))
            .args([reference.join("man"), reference.join("completions")])
            .arg(staged),
    )
}

fn check_static(binary: &Path) -> Result<()> {
    let headers = command::output(Command::new("readelf").arg("--program-headers").arg(binary))?;
    if headers.contains("INTERP") {
        bail!("{} needs a dynamic linker", binary.display());
    }
    let said = command::output(Command::new(binary).arg("--version"))?;
    if said.trim() != format!("portdemux {}", version()) {
        bail!("{} says that it is {said}", binary.display());
    }
    Ok(())
}
