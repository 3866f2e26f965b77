//! Debian's package manager.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    command::{self, Command},
    say,
};

/// Says whether this machine has it.
pub(super) fn is_here() -> bool {
    command::find("apt-get").is_some() && command::find("apt-cache").is_some()
}

/// Fetches the lists of packages.
///
/// # Errors
///
/// If this user cannot become root. A list that cannot be fetched is none: what is needed may well
/// be in the others.
pub(super) fn update() -> Result<()> {
    say::step("fetching the package lists");
    if let Err(err) = command::run(command::as_root("apt-get")?.args(["update", "-q"])) {
        say::warning(format_args!(
            "{err:#}; going on with the lists that are here"
        ));
    }
    Ok(())
}

/// Where this machine has its packages from: the address below which Debian's archives stand.
///
/// # Errors
///
/// If it has none of Debian's archives.
pub(crate) fn mirror() -> Result<String> {
    let sites =
        command::output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
    sites
        .lines()
        .find_map(|site| site.trim_end_matches('/').strip_suffix("/debian"))
        .map(str::to_owned)
        .context("apt is told of no archive of Debian")
}

/// A program of apt for packages of an architecture, with lists and archives of its own in `directory`: the machine's
/// stay as they are.
pub(crate) fn apart(program: &str, directory: &Path, architecture: &str) -> Command {
    let mut command = Command::new(program);
    for (option, value) in [
        ("Dir::State::lists", directory.join("lists")),
        ("Dir::Cache", directory.to_owned()),
        ("APT::Architecture", architecture.into()),
        ("APT::Architectures", architecture.into()),
        ("APT::Sandbox::User", "root".into()),
        ("Acquire::Languages", "none".into()),
    ] {
        command
            .arg("-o")
            .arg(format!("{option}={}", value.display()));
    }
    command
}

/// Unpacks the packages that lie in a directory, there, and removes them.
///
/// # Errors
///
/// If it holds anything else.
pub(crate) fn unpack_in(directory: &Path) -> Result<()> {
    let archives: Vec<PathBuf> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    ensure!(!archives.is_empty(), "apt-get downloaded nothing");
    for archive in archives {
        command::output(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(&archive)
                .arg(directory),
        )?;
        fs::remove_file(&archive)?;
    }
    Ok(())
}

/// The version of a package that would be installed, if there is any.
pub(super) fn candidate(package: &str) -> Result<Option<String>> {
    let policy = command::output(
        Command::new("apt-cache")
            .args(["policy", package])
            .env("LC_ALL", "C"),
    )?;
    Ok(policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
        .map(str::to_owned))
}

/// The names of all packages that come with a package.
pub(super) fn closure(package: &str) -> Result<Vec<String>> {
    let depends = command::output(Command::new("apt-cache").args([
        "depends",
        "--recurse",
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
        "--no-breaks",
        "--no-replaces",
        "--no-enhances",
        package,
    ]))?;
    Ok(depends
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(str::to_owned)
        .collect())
}

/// What an installation would do.
pub(super) struct Simulation {
    pub(super) installs: Vec<String>,
    pub(super) removes: Vec<String>,
}

/// Asks what an installation would do, without doing it.
pub(super) fn simulate(packages: &[String]) -> Result<Simulation> {
    let text = command::output(
        Command::new("apt-get")
            .args(["install", "--simulate", "--no-install-recommends"])
            .args(packages)
            .env("LC_ALL", "C"),
    )?;
    let with = |action: &str| {
        text.lines()
            .filter_map(|line| line.strip_prefix(action)?.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    };
    Ok(Simulation {
        installs: with("Inst "),
        removes: with("Remv "),
    })
}

/// Installs packages, without a question, without removing any and without starting a service.
pub(super) fn install(packages: &[String]) -> Result<()> {
    let attempt = || {
        command::run(
            command::as_root("sh")?
                .args(["-eu", "-c", INSTALL, "install"])
                .args(packages),
        )
    };
    if attempt().is_ok() {
        return Ok(());
    }
    // Most likely the lists are older than what the server still has.
    update()?;
    attempt().context("install Debian packages")
}

/// The same, with new lists if those that are here do not know a package.
pub(super) fn simulate_anew(packages: &[String]) -> Result<Simulation> {
    simulate(packages).or_else(|_| update().and_then(|()| simulate(packages)))
}

/// Installs packages, and says before what that adds.
///
/// # Errors
///
/// They cannot be had, or would remove another one: then nothing was touched.
pub(super) fn provide(what: &str, packages: &[String]) -> Result<()> {
    announce(what, packages, &simulate_anew(packages)?)?;
    install(packages)
}

/// Checks that an installation removes nothing, and says what it adds.
pub(super) fn announce(what: &str, packages: &[String], simulation: &Simulation) -> Result<()> {
    if !simulation.removes.is_empty() {
        bail!("they would remove {}", simulation.removes.join(" "));
    }
    say::step(format_args!(
        "installing {what} with apt-get: {} ({} packages in all)",
        packages.join(" "),
        simulation.installs.len()
    ));
    Ok(())
}

/// Debian starts a server when its package is installed, and whenever the machine starts. A
/// `policy-rc.d` forbids the first while this script runs, and whatever it newly enabled is
/// disabled: setting up for tests must not open a port on someone's machine.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
mark='written by the set-up of portdemux, removed when it is done'
units='nginx.service dnsmasq.service ssh.service ssh.socket'
if [ ! -e "$policy" ] || grep -q "$mark" "$policy"; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi
new=
if command -v systemctl >/dev/null; then
    for unit in $units; do
        [ -e "/lib/systemd/system/$unit" ] || new="$new $unit"
    done
fi
DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends --no-remove \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null
for unit in $new; do
    [ ! -e "/lib/systemd/system/$unit" ] || systemctl --quiet disable "$unit"
done
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_of_a_machine_with_debian_is_an_address() {
        if !is_here() {
            return;
        }
        let mirror = mirror().unwrap();
        assert!(mirror.contains("://") && !mirror.ends_with('/'), "{mirror}");
    }
}
