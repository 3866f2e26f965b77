//! What makes and checks packages.

use anyhow::{Result, bail};

use super::apt;
use crate::{command, say};

/// Subcommands of cargo, with their versions.
const TOOLS: [(&str, &str); 2] = [("cargo-cyclonedx", "0.5.9"), ("cargo-deb", "3.8.0")];
/// The one that looks at dependencies.
const DENY: (&str, &str) = ("cargo-deny", "0.20.2");
/// The one that changes the code.
const MUTANTS: (&str, &str) = ("cargo-mutants", "27.1.0");
/// Programs, with Debian's packages for them.
const PROGRAMS: [(&str, &str); 7] = [
    ("debootstrap", "debootstrap"),
    ("dpkg-deb", "dpkg"),
    ("lintian", "lintian"),
    ("man", "man-db"),
    ("mke2fs", "e2fsprogs"),
    ("readelf", "binutils"),
    ("systemd-analyze", "systemd"),
];

/// Installs the missing ones.
///
/// # Errors
///
/// If some are missing and cannot be installed.
pub(super) fn install() -> Result<()> {
    let missing = PROGRAMS
        .into_iter()
        .filter(|(program, _)| command::find(program).is_none());
    let (names, packages): (Vec<_>, Vec<_>) = missing
        .map(|(program, package)| (program, package.to_owned()))
        .unzip();
    if !packages.is_empty() {
        if !apt::is_here() {
            bail!(
                "packages are made on Debian; this is missing here: {}",
                names.join(", ")
            );
        }
        apt::provide("what makes packages", &packages)?;
    }
    for (program, version) in TOOLS {
        tool(program, version)?;
    }
    Ok(())
}

/// Installs what looks at dependencies.
///
/// # Errors
///
/// If it cannot be built.
pub(super) fn install_deny() -> Result<()> {
    let (program, version) = DENY;
    tool(program, version)
}

/// Installs what changes the code.
///
/// # Errors
///
/// If it cannot be built.
pub(super) fn install_mutants() -> Result<()> {
    let (program, version) = MUTANTS;
    tool(program, version)
}

/// Installs a subcommand of cargo unless it is there.
fn tool(program: &str, version: &str) -> Result<()> {
    if command::find(program).is_some() {
        return Ok(());
    }
    say::step(format_args!("building {program} {version} (some minutes)"));
    command::run(
        command::cargo("install")
            .args([program, "--version", version, "--locked"])
            // Nobody debugs it, and it builds faster without; it runs for a moment.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            // What it is built from would stay there for nothing.
            .env_remove("CARGO_TARGET_DIR"),
    )
}
