//! The Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::version;
use crate::{
    command::{self, Command},
    repository, say,
};

/// Builds the package into a directory.
pub(super) fn make(directory: &Path) -> Result<PathBuf> {
    say::step("building the package");
    command::run(command::cargo("build").args(command::BUILT).args([
        "--bin",
        "portdemux",
        "--bin",
        "portdemux-reference",
    ]))?;
    let built = repository::target_dir().join("release");
    reference(&built, &built.join("dist"))?;
    let package = directory.join(format!("portdemux_{}-1_{}.deb", version(), architecture()?));
    command::run(
        command::cargo("deb")
            .args([
                "--package",
                "portdemux",
                "--no-build",
                "--strip",
                "--no-dbgsym",
            ])
            .arg("--output")
            .arg(&package),
    )?;
    Ok(package)
}

/// Writes manual pages and completions into a directory, which has nothing else.
pub(super) fn reference(built: &Path, directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("empty {}", directory.display()))?;
    }
    command::run(Command::new(built.join("portdemux-reference")).arg(directory))?;
    let mut pages: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory.join("man"))? {
        pages.push(entry?.path());
    }
    command::run(Command::new("gzip").args(["-9", "--no-name"]).args(pages))
}

/// The same package as the next revision, into a directory: to upgrade to.
pub(super) fn newer(package: &Path, directory: &Path) -> Result<PathBuf> {
    let unpacked = directory.join("newer");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).with_context(|| format!("empty {}", unpacked.display()))?;
    }
    command::run(
        Command::new("dpkg-deb")
            .arg("--raw-extract")
            .args([package, &unpacked]),
    )?;
    let control = unpacked.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let (old, new) = (
        format!("Version: {}-1", version()),
        format!("Version: {}-2", version()),
    );
    ensure!(
        text.contains(&old),
        "{} has another version",
        package.display()
    );
    fs::write(&control, text.replace(&old, &new))?;
    let newer = directory.join("newer.deb");
    let build = ["--root-owner-group", "--build"];
    command::run(
        Command::new("dpkg-deb")
            .args(build)
            .args([&unpacked, &newer]),
    )?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("remove {}", unpacked.display()))?;
    Ok(newer)
}

fn architecture() -> Result<String> {
    let said = command::output(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(said.trim().to_owned())
}
