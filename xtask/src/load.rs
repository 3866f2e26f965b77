//! `cargo xtask load`

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{self, Command, Stdio},
    repository, say, setup,
};

/// Builds the BPF programs, then loads and checks them.
pub(crate) fn run() -> Result<()> {
    setup::toolchain()?;
    load(&objects()?)
}

/// Loads and checks objects.
pub(crate) fn load(objects: &[PathBuf]) -> Result<()> {
    say::step("BPF programs");
    let program = repository::target_dir().join("release/examples/load");
    command::run(command::built_as_root(&program)?.args(objects))
}

/// The objects that the build script of the control plane left: those that it has inside.
pub(crate) fn objects() -> Result<Vec<PathBuf>> {
    objects_of(
        command::cargo("build")
            .args(command::BUILT)
            .args(["--lib", "--example", "load"]),
    )
}

/// The objects that the build script leaves in a run of cargo.
pub(crate) fn objects_of(cargo: &mut Command) -> Result<Vec<PathBuf>> {
    let messages = command::output(
        cargo
            .args(["--message-format", "json-render-diagnostics"])
            .stderr(Stdio::inherit()),
    )?;
    let out_dir = messages
        .lines()
        .filter(|line| line.contains(r#""reason":"build-script-executed""#))
        .filter(|line| line.contains("/portdemux#") || line.contains("portdemux@"))
        .find_map(|line| line.split_once(r#""out_dir":""#)?.1.split_once('"'))
        .map(|(out_dir, _)| PathBuf::from(out_dir))
        .context("cargo does not say where the BPF programs are")?;
    let mut objects = Vec::new();
    let entries = fs::read_dir(&out_dir).with_context(|| format!("read {}", out_dir.display()))?;
    for entry in entries {
        let path = entry.context("read a directory")?.path();
        if path.is_file() && fs::read(&path).is_ok_and(|content| content.starts_with(b"\x7fELF")) {
            objects.push(path);
        }
    }
    if objects.is_empty() {
        bail!("no BPF program in {}", out_dir.display());
    }
    objects.sort();
    Ok(objects)
}
