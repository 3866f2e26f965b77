//! What is checked of the package without installing it.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use super::MOST;
use crate::{
    command::{self, Command},
    say,
};

/// Some of what has to be in it.
const HELD: [&str; 10] = [
    "./usr/bin/portdemux",
    "./usr/lib/systemd/system/portdemux@.service",
    "./usr/share/man/man1/portdemux.1.gz",
    "./usr/share/man/man1/portdemux-attach.1.gz",
    "./usr/share/man/man1/portdemux-set-add.1.gz",
    "./usr/share/bash-completion/completions/portdemux",
    "./usr/share/zsh/vendor-completions/_portdemux",
    "./usr/share/fish/vendor_completions.d/portdemux.fish",
    "./usr/share/doc/portdemux/changelog.Debian.gz",
    "./usr/share/doc/portdemux/docs/install.md",
];

/// Checks what is in the package, what lintian says of it, and the unit.
pub(super) fn package(package: &Path) -> Result<()> {
    say::step("checking the package");
    let list = command::output(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    for held in HELD {
        let has = list.lines().any(|line| line.ends_with(&format!(" {held}")));
        ensure!(has, "{} has no {held}", package.display());
    }
    let root = env::temp_dir().join(format!("portdemux-dist-{}", std::process::id()));
    let outcome = unpacked(package, &root);
    // Nothing depends on it.
    let _ = fs::remove_dir_all(&root);
    outcome?;
    if command::find("lintian").is_none() {
        say::warning("there is no lintian here: the package is not held to Debian's policy");
        return Ok(());
    }
    command::run(
        Command::new("lintian")
            .args(["--fail-on", "error", "--allow-root"])
            .arg(package),
    )
    .context("lintian finds errors in the package")
}

fn unpacked(package: &Path, root: &Path) -> Result<()> {
    command::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([package, root]),
    )?;
    binary(&root.join("usr/bin/portdemux"))?;
    pages(&root.join("usr/share/man/man1"))?;
    completions(root)?;
    unit(root)
}

/// The binary has no more in it than what it does needs.
pub(super) fn binary(binary: &Path) -> Result<()> {
    let size = fs::metadata(binary)?.len();
    ensure!(
        size <= MOST,
        "{} has {size} bytes, {MOST} at most",
        binary.display()
    );
    let sections = command::output(
        Command::new("readelf")
            .args(["--sections", "--wide"])
            .arg(binary),
    )?;
    for section in [".symtab", ".debug_info"] {
        ensure!(
            !sections.contains(section),
            "{} is not stripped of {section}",
            binary.display()
        );
    }
    Ok(())
}

/// Every page is one that man takes without a warning.
fn pages(directory: &Path) -> Result<()> {
    if command::find("man").is_none() {
        say::warning("there is no man here: the manual pages go unchecked");
        return Ok(());
    }
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        let page = entry?.path();
        let output = Command::new("man")
            .args(["--warnings", "--local-file", "-Tutf8", "-Z"])
            .arg(&page)
            .env("LC_ALL", "C.UTF-8")
            .env("MANROFFSEQ", "")
            .output()
            .context("start man")?;
        if !output.status.success() || !output.stderr.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}", page.display(), said.trim());
        }
        count += 1;
    }
    ensure!(count > 15, "only {count} manual pages");
    Ok(())
}

fn completions(root: &Path) -> Result<()> {
    let bash = root.join("usr/share/bash-completion/completions/portdemux");
    command::run(Command::new("bash").arg("-n").arg(&bash))?;
    let said = command::output(
        Command::new("bash")
            .args(["-c", COMPLETE, "bash"])
            .arg(&bash),
    )?;
    ensure!(
        said.contains("--rules"),
        "bash completes attach with {said}"
    );
    Ok(())
}

/// Asks the completions what may follow `portdemux attach --`.
const COMPLETE: &str = r#"
. "$1"
COMP_WORDS=(portdemux attach --) COMP_CWORD=2
_portdemux portdemux -- attach
echo "${COMPREPLY[@]}"
"#;

/// The unit is one that systemd takes without a word.
fn unit(root: &Path) -> Result<()> {
    if command::find("systemd-analyze").is_none() {
        say::warning("there is no systemd-analyze here: the unit goes unchecked");
        return Ok(());
    }
    // The binary that it starts has to be there.
    let unit = root.join("usr/lib/systemd/system/portdemux@.service");
    let text = fs::read_to_string(&unit)?;
    let here = root.join("portdemux@default.service");
    let binary = root.join("usr/bin/portdemux").display().to_string();
    fs::write(&here, text.replace("/usr/bin/portdemux", &binary))?;
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&here)
        .output()
        .context("start systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let own: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("portdemux"))
        .collect();
    ensure!(
        output.status.success() && own.is_empty(),
        "systemd-analyze verify: {}",
        said.trim()
    );
    let score = command::output(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=33"])
            .arg(&here),
    )
    .context("the unit is exposed more than it was")?;
    if let Some(line) = score.lines().rfind(|line| line.contains("exposure level")) {
        say::line(line.trim());
    }
    Ok(())
}
