//! `cargo xtask upgrade`

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{self, Command, Stdio},
    repository, say, setup, test,
};

/// The last commit whose instances have ABI 5, the oldest that can be taken over.
const COMMIT: &str = "1c4e7691bd9d1a782bdf6031ddaa9bff30ef505f";

/// Builds the last version of ABI 5 from the repository's history, once, and runs the suite `upgrade` from it to this
/// one.
pub(crate) fn run() -> Result<()> {
    setup::toolchain()?;
    setup::tests()?;
    let older = build()?;
    test::run_suite_with("upgrade", &[("PORTDEMUX_ABI5_BIN", &older)])
}

/// Builds the older version, unless that was done before, and says where it is.
fn build() -> Result<PathBuf> {
    let directory = repository::target_dir().join("upgrade-from").join(COMMIT);
    let binary = directory.join("release/portdemux");
    if binary.is_file() {
        return Ok(binary);
    }
    let git = |words: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(repository::root())
            .args(["-c", "safe.directory=*"])
            .args(words);
        git
    };
    if command::output(&mut git(&[
        "cat-file",
        "-e",
        &format!("{COMMIT}^{{commit}}"),
    ]))
    .is_err()
    {
        bail!("this clone does not have the commit {COMMIT}: git fetch --unshallow brings it");
    }
    let source = directory.join("source");
    fs::create_dir_all(&source).with_context(|| format!("create {}", source.display()))?;
    let archive = directory.join("source.tar");
    command::run(git(&["archive", "--output"]).arg(&archive).arg(COMMIT))?;
    command::run(
        Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&source),
    )?;
    say::step(format_args!("building the last version of ABI 5"));
    command::run(
        command::cargo("build")
            .current_dir(&source)
            .args([
                "--release",
                "--package",
                "portdemux",
                "--bin",
                "portdemux",
                "--target-dir",
            ])
            .arg(&directory)
            .stdin(Stdio::null()),
    )?;
    Ok(binary)
}
