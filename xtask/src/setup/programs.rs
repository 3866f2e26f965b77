//! The programs that the tests run: real servers, their clients, and tools that watch packets.

use std::env;

use anyhow::{Result, bail};

use super::{apt, debian, rust};
use crate::{command, say};

/// Each program with Debian's package for it.
const PROGRAMS: [(&str, &str); 18] = [
    ("bpftool", "bpftool"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("nft", "nftables"),
    ("nginx", "nginx-light"),
    ("nmap", "nmap"),
    ("ping", "iputils-ping"),
    ("ps", "procps"),
    ("setcap", "libcap2-bin"),
    ("socat", "socat"),
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
];
/// Those that make namespaces and enter them.
const LAB: [(&str, &str); 2] = [("ip", "iproute2"), ("nsenter", "util-linux")];
/// What unpacks other kernels, and is put into the machines.
const VM: [(&str, &str); 6] = [
    ("dpkg-deb", "dpkg"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("strip", "binutils"),
    ("xz", "xz-utils"),
];
/// For the benchmark only, and not packaged everywhere.
const MEASURED: [(&str, &str); 3] = [
    ("dnsperf", "dnsperf"),
    ("wrk", "wrk"),
    ("xdp-filter", "xdp-tools"),
];

/// Installs the missing ones.
///
/// # Errors
///
/// If some are missing and cannot be installed. On a machine without apt-get that is a warning,
/// unless `PORTDEMUX_REQUIRE_BPF` is set: then a test that cannot run is a failure.
pub(super) fn install() -> Result<()> {
    let missing: Vec<_> = PROGRAMS
        .into_iter()
        .chain(MEASURED)
        .filter(|(program, _)| command::find(program).is_none())
        .collect();
    let mut packages: Vec<String> = missing
        .iter()
        .map(|(_, package)| (*package).to_owned())
        .collect();
    if !has_clippy() {
        packages.push(debian::CLIPPY.to_owned());
    }
    if packages.is_empty() {
        say::progress("ready: every program that the tests run");
        return Ok(());
    }
    if apt::is_here() {
        return apt::provide("what the tests run", &packages);
    }
    let names: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let names = names.join(", ");
    if env::var_os("PORTDEMUX_REQUIRE_BPF").is_some() {
        bail!("the tests need programs that are missing here: {names}");
    }
    say::warning(format_args!(
        "the tests that need these programs are skipped: {names}"
    ));
    Ok(())
}

/// Installs those of the lab that are missing.
///
/// # Errors
///
/// If some are missing and cannot be installed.
pub(super) fn install_lab() -> Result<()> {
    install_all("what makes network namespaces", &LAB)
}

/// Installs what unpacks other kernels, and what is put into the machines.
///
/// # Errors
///
/// If some are missing and cannot be installed.
pub(super) fn install_vm() -> Result<()> {
    install_all("what other kernels run with", &VM)
}

fn install_all(what: &str, programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs
        .iter()
        .filter(|(program, _)| command::find(program).is_none());
    let (names, packages): (Vec<_>, Vec<_>) = missing
        .map(|(program, package)| (*program, (*package).to_owned()))
        .unzip();
    if packages.is_empty() {
        return Ok(());
    }
    if !apt::is_here() {
        bail!(
            "this needs programs that are missing here: {}",
            names.join(", ")
        );
    }
    apt::provide(what, &packages)
}

/// Says whether the toolchain for BPF can lint, or is not one to which Debian adds that.
fn has_clippy() -> bool {
    command::output(rust::command("cargo-clippy").arg("--version")).is_ok()
        || rust::Rust::find().is_ok_and(|rust| rust.builds_core)
}
