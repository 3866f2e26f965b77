//! The bill of materials.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{hidden, version};
use crate::{command, repository, say};

/// Writes what the command is made of, as `CycloneDX`, into a directory.
pub(super) fn make(directory: &Path) -> Result<PathBuf> {
    say::step("writing the bill of materials");
    let name = format!("portdemux-{}.cdx", version());
    let root = repository::root();
    let made = command::run(
        command::cargo("cyclonedx")
            .args(["--format", "json", "--override-filename", &name])
            .args(["--target", "x86_64-unknown-linux-gnu", "--no-build-deps"])
            .arg("--manifest-path")
            .arg(root.join("portdemux/Cargo.toml")),
    );
    let file = format!("{name}.json");
    let bill = directory.join(&file);
    let moved = made.and_then(|()| {
        let own = root.join("portdemux").join(&file);
        fs::copy(&own, &bill).with_context(|| format!("copy {}", own.display()))?;
        Ok(())
    });
    // It writes one into every package of the workspace.
    for entry in fs::read_dir(&root)?.chain(fs::read_dir(root.join("examples"))?) {
        let left = entry?.path().join(&file);
        if left.exists() {
            fs::remove_file(&left).with_context(|| format!("remove {}", left.display()))?;
        }
    }
    moved?;
    // Packages of the workspace are named by where they are.
    let text = fs::read_to_string(&bill)?.replace(&root.display().to_string(), "");
    fs::write(&bill, &text).with_context(|| format!("write {}", bill.display()))?;
    hidden::check(&bill)?;
    ensure!(
        text.contains("\"CycloneDX\"") && text.contains("\"aya-obj\""),
        "{} does not say what the command is made of",
        bill.display()
    );
    Ok(bill)
}
