//! The package in a root of its own: installed, removed, purged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{name, version};
use crate::{command, repository, say};

/// Installs the package in a root of a Debian suite, removes and purges it, and looks for what is left.
///
/// # Errors
///
/// The root cannot be made, or something is not as it should be.
pub(super) fn test(suite: &str, package: &Path) -> Result<()> {
    say::step(format_args!("installing the package in {suite}"));
    let base = base(suite)?;
    let root = base.with_extension("test");
    let outcome = copied(&base, &root).and_then(|()| lived(&root, package));
    removed(&root)?;
    outcome
}

/// A root with nothing but what a machine needs to start, which is kept for the next time.
pub(super) fn base(suite: &str) -> Result<PathBuf> {
    let roots = repository::target_dir().join("roots");
    fs::create_dir_all(&roots).with_context(|| format!("create {}", roots.display()))?;
    let base = roots.join(suite);
    if base.join("var/lib/dpkg/status").exists() && !base.join("debootstrap").exists() {
        return Ok(base);
    }
    command::run(
        command::as_root("rm")?
            .args(["--recursive", "--force"])
            .arg(&base),
    )?;
    command::run(
        command::as_root("debootstrap")?
            .arg("--variant=minbase")
            .arg("--include=systemd,systemd-sysv,udev,iproute2,dbus,kmod")
            .arg(suite)
            .args([&base]),
    )
    .with_context(|| format!("make a root of {suite}"))?;
    Ok(base)
}

/// Copies a root to another place.
pub(super) fn copied(base: &Path, root: &Path) -> Result<()> {
    removed(root)?;
    command::run(
        command::as_root("cp")?
            .args(["--archive", "--reflink=auto"])
            .args([base, root]),
    )
}

/// Removes a root.
pub(super) fn removed(root: &Path) -> Result<()> {
    command::run(
        command::as_root("rm")?
            .args(["--recursive", "--force"])
            .arg(root),
    )
}

/// Runs something in a root and returns what it says.
pub(super) fn inside(root: &Path, words: &[&str]) -> Result<String> {
    command::output(
        command::as_root("chroot")?
            .arg(root)
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    )
}

fn lived(root: &Path, package: &Path) -> Result<()> {
    let run = |words: &[&str]| inside(root, words);
    let before = files(root)?;
    command::run(command::as_root("cp")?.arg(package).arg(root.join("root")))?;
    let inside = format!("/root/{}", name(package));
    let install = ["apt-get", "install", "--yes", &inside];
    run(&install)?;
    let said = run(&["portdemux", "--version"])?;
    ensure!(
        said.trim() == format!("portdemux {}", version()),
        "it is {said}"
    );
    ensure!(
        root.join("etc/portdemux").is_dir(),
        "there is no /etc/portdemux"
    );
    let rules = "/usr/share/doc/portdemux/examples/default.toml";
    run(&["cp", rules, "/etc/portdemux/default.toml"])?;
    let words = ["tcp", "192.0.2.1:1024", "192.0.2.2:80"];
    let said = run(&[
        &[
            "portdemux",
            "explain",
            "--rules",
            "/etc/portdemux/default.toml",
        ],
        &words[..],
    ]
    .concat())?;
    ensure!(said.contains("entry point web"), "explain says {said}");
    run(&["systemctl", "enable", "portdemux@default.service"])?;
    // Over itself, as an upgrade.
    run(&[&install[..], &["--reinstall"]].concat())?;
    // What the unit leaves.
    for directory in ["/run/portdemux", "/var/lib/portdemux"] {
        run(&["mkdir", "--parents", directory])?;
        run(&["touch", &format!("{directory}/default.toml")])?;
    }
    run(&["apt-get", "remove", "--yes", "portdemux"])?;
    ensure!(
        root.join("etc/portdemux/default.toml").exists(),
        "removing it took the rules"
    );
    run(&["apt-get", "purge", "--yes", "portdemux"])?;
    run(&["rm", &inside])?;
    let left: Vec<String> = files(root)?
        .into_iter()
        .filter(|file| before.binary_search(file).is_err() && !is_dpkg(file))
        .collect();
    if !left.is_empty() {
        bail!("after it was purged there is {}", left.join(", "));
    }
    Ok(())
}

/// What apt and dpkg keep for themselves.
fn is_dpkg(file: &str) -> bool {
    file.starts_with("var/log/")
        || file.starts_with("var/lib/apt/")
        || file.starts_with("var/lib/dpkg/")
        || file.starts_with("var/cache/")
}

fn files(root: &Path) -> Result<Vec<String>> {
    let said = command::output(
        command::as_root("find")?
            .arg(root)
            .args(["-xdev", "-printf", "%P\\n"]),
    )?;
    let mut files: Vec<String> = said.lines().map(str::to_owned).collect();
    files.sort_unstable();
    Ok(files)
}
