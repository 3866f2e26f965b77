//! `cargo xtask upgrade`

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{self, Command, Stdio},
    repository, say, setup, test,
};

/// The ABIs of older instances, the oldest that can be taken over first, and the last commit that made such.
const OLDER: [(&str, &str); 4] = [
    ("5", "1c4e7691bd9d1a782bdf6031ddaa9bff30ef505f"),
    ("6", "5b7b33136207dd0f231e68be158994c60706c06b"),
    ("7", "bd62ae2443f6694e1bf685a1896d5285bb4a25af"),
    ("8", "379fc0d55bde77d72e3bce79993059ddd5509f61"),
];

/// Builds the last version of each older ABI from the repository's history, once, and runs the suite `upgrade` from it
/// to this one.
pub(crate) fn run() -> Result<()> {
    setup::toolchain()?;
    setup::tests()?;
    for (abi, commit) in OLDER {
        let binary = build(abi, commit)?;
        say::step(format_args!("upgrading from ABI {abi}"));
        let older = [
            ("PORTDEMUX_OLDER_BIN", binary.as_path()),
            ("PORTDEMUX_OLDER_ABI", Path::new(abi)),
        ];
        test::run_suite_with("upgrade", &older)?;
    }
    Ok(())
}

/// Builds an older version, unless that was done before, and says where it is.
fn build(abi: &str, commit: &str) -> Result<PathBuf> {
    let directory = repository::target_dir().join("upgrade-from").join(commit);
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
        &format!("{commit}^{{commit}}"),
    ]))
    .is_err()
    {
        bail!("this clone does not have the commit {commit}: git fetch --unshallow brings it");
    }
    let source = directory.join("source");
    fs::create_dir_all(&source).with_context(|| format!("create {}", source.display()))?;
    let archive = directory.join("source.tar");
    command::run(git(&["archive", "--output"]).arg(&archive).arg(commit))?;
    command::run(
        Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&source),
    )?;
    say::step(format_args!("building the last version of ABI {abi}"));
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
