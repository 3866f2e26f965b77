//! The Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{hidden, version};
use crate::{
    build,
    command::{self, Command},
    repository, say,
};

/// Builds the package into a directory. The one to be given to others is built apart from everything else, so that it
/// does not say where.
pub(super) fn make(directory: &Path, is_for_others: bool) -> Result<PathBuf> {
    say::step("building the package");
    let target = if is_for_others {
        super::apart()
    } else {
        repository::target_dir()
    };
    let mut cargo = command::cargo("build");
    cargo
        .args(command::BUILT)
        .args(["--bin", "portdemux", "--bin", "portdemux-reference"]);
    if is_for_others {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", hidden::flags(&[])?);
        // It is taken off again.
        cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    }
    command::run(cargo.arg("--target-dir").arg(&target))?;
    let built = target.join("release");
    reference(&built, &built.join("dist"))?;
    if is_for_others {
        hidden::check(&built.join("portdemux"))?;
    }
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
            .arg(&package)
            .env("CARGO_TARGET_DIR", &target),
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

/// The package as the next revision with a binary of another ABI, into a directory: to upgrade to.
pub(super) fn newer(package: &Path, directory: &Path) -> Result<PathBuf> {
    let next = build::next()?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
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
    command::run(
        Command::new("strip")
            .arg("-o")
            .arg(unpacked.join("usr/bin/portdemux"))
            .arg(next),
    )?;
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
