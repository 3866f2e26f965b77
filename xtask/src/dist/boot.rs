//! The package in a machine that boots: the unit before there is a network, a reboot with rules in force, an upgrade
//! under traffic to another ABI, a boot with a mistake in the rules, removal.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{roots, wire::Wire};
use crate::{
    command::{self, Command, Stdio},
    say, setup,
};

/// What runs in the machine, and rules of every kind.
const PROGRAMS: [(&str, &str); 4] = [
    ("guest.sh", include_str!("guest.sh")),
    ("every.toml", include_str!("every.toml")),
    ("receive.pl", include_str!("receive.pl")),
    ("send.pl", include_str!("send.pl")),
];
/// The rules that it boots with.
const RULES: &str = "[attach]\ninterface = [\"ens5\", \"late0\"]\n\n[[rule]]\nname = \"no\"\nport = \"7/udp\"\nto = \"drop\"\n";
/// Its only other interface that is there at boot.
const NETWORK: &str = "[Match]\nName=ens5\n[Network]\nAddress=192.0.2.2/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n";
/// What looks, once everything is up.
const LOOKS: &str = "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\n\
                     ExecStart=/bin/bash /root/guest.sh\n[Install]\nWantedBy=multi-user.target\n";
/// What listens, before anything is up.
const LISTENS: &str = "[Unit]\nDefaultDependencies=no\nBefore=portdemux@default.service network-pre.target\n\
                       RequiresMountsFor=/run\n[Service]\nType=forking\nTimeoutStartSec=infinity\n\
                       ExecStart=/usr/bin/perl /root/receive.pl 7 8 9 10\n[Install]\nWantedBy=sysinit.target\n";
/// How often it boots.
const BOOTS: u32 = 3;
/// How many seconds all boots may take together, under software emulation on a busy machine.
const PATIENCE: &str = "1800";

/// Boots a root of a suite, in which the package is installed, with the suite's kernel. `newer` is a package of a version
/// with another ABI.
///
/// # Errors
///
/// Something is not as it should be; what the machine said was shown.
pub(super) fn test(suite: &str, package: &Path, newer: &Path) -> Result<()> {
    say::step(format_args!("booting the package in {suite}"));
    let base = bootable(suite)?;
    let root = base.with_extension("test");
    let image = base.with_extension("ext4");
    let prepared = roots::copied(&base, &root).and_then(|()| prepare(&root, package, newer));
    let made = prepared.and_then(|()| {
        command::run(
            command::as_root("mke2fs")?
                .args(["-q", "-F", "-t", "ext4", "-d"])
                .args([&root, &image])
                .arg("2G"),
        )
    });
    roots::removed(&root)?;
    made?;
    boot(&base, &image)
}

/// A root with a kernel, which is kept for the next time.
fn bootable(suite: &str) -> Result<PathBuf> {
    let base = roots::base(suite)?;
    let bootable = base.with_extension("boot");
    if bootable.join("initrd.img").exists() {
        return Ok(bootable);
    }
    let unfinished = base.with_extension("new");
    roots::copied(&base, &unfinished)?;
    fs::write(
        unfinished.join("usr/sbin/policy-rc.d"),
        "#!/bin/sh\nexit 101\n",
    )?;
    roots::inside(&unfinished, &["chmod", "755", "/usr/sbin/policy-rc.d"])?;
    roots::inside(&unfinished, &["apt-get", "update", "-q"])?;
    let install = ["apt-get", "install", "-y", "--no-install-recommends"];
    let kernel = ["linux-image-cloud-amd64", "initramfs-tools", "busybox"];
    roots::inside(&unfinished, &[&install[..], &kernel].concat())?;
    fs::rename(&unfinished, &bootable).context("keep the root")?;
    Ok(bootable)
}

fn prepare(root: &Path, package: &Path, newer: &Path) -> Result<()> {
    fs::copy(package, root.join("root/package.deb"))?;
    fs::copy(newer, root.join("root/newer.deb"))?;
    roots::inside(root, &["dpkg", "--install", "/root/package.deb"])?;
    fs::write(root.join("etc/portdemux/default.toml"), RULES)?;
    for (name, text) in PROGRAMS {
        fs::write(root.join("root").join(name), text)?;
    }
    let network = root.join("etc/systemd/network");
    fs::write(network.join("ens5.network"), NETWORK)?;
    let units = root.join("etc/systemd/system");
    fs::write(units.join("looks.service"), LOOKS)?;
    fs::write(units.join("listens.service"), LISTENS)?;
    fs::write(root.join("etc/fstab"), "/dev/vda / ext4 defaults 0 0\n")?;
    let units = [
        "portdemux@default.service",
        "looks.service",
        "listens.service",
        "systemd-networkd.service",
    ];
    roots::inside(root, &[&["systemctl", "enable"], &units[..]].concat())?;
    // It would hang up what looks.
    let login = ["systemctl", "mask", "serial-getty@ttyS0.service"];
    roots::inside(root, &login)?;
    Ok(())
}

fn boot(base: &Path, image: &Path) -> Result<()> {
    let file =
        |name: &str| fs::canonicalize(base.join(name)).with_context(|| format!("find {name}"));
    let (kernel, initrd) = (file("vmlinuz")?, file("initrd.img")?);
    let wire = Wire::begin()?;
    let mut machine = command::spawn(
        Command::new("timeout")
            .arg(PATIENCE)
            .arg(setup::qemu()?)
            .args(["-nographic", "-nodefaults", "-serial", "stdio"])
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max,-cx16",
                "-smp",
                "2",
                "-m",
                "1024",
            ])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .args([
                "-append",
                "root=/dev/vda rw console=ttyS0 panic=-1 systemd.show_status=0 quiet",
            ])
            .arg("-drive")
            .arg(format!(
                "file={},format=raw,if=virtio,cache=unsafe",
                image.display()
            ))
            .args(wire.options())
            .stdin(Stdio::null())
            .stdout(Stdio::piped()),
    )?;
    let mut boots = 0;
    if let Some(stdout) = machine.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("read what the machine says")?;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            say::line(line);
            boots += u32::from(line.ends_with(&format!("guest: boot {} ok", boots + 1)));
        }
    }
    machine.wait().context("wait for the machine")?;
    ensure!(
        boots == BOOTS,
        "the machine does not say that boot {} is well",
        boots + 1
    );
    Ok(())
}
