//! The package in a machine that boots: the unit, a reboot with rules in force, an upgrade under traffic, removal.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::roots;
use crate::{
    command::{self, Command, Stdio},
    say, setup,
};

/// What runs in the machine.
const GUEST: &str = include_str!("guest.sh");
/// The rules that it boots with.
const RULES: &str = "[attach]\ninterface = [\"ens5\", \"late0\"]\n\n[[rule]]\nname = \"no\"\nport = \"7/udp\"\nto = \"drop\"\n";
const UNIT: &str = "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nTimeoutStartSec=infinity\n\
                    ExecStart=/bin/bash /root/guest.sh\n[Install]\nWantedBy=multi-user.target\n";
/// How long both boots may take together, under software emulation on a busy machine.
const PATIENCE: &str = "1800";

/// Boots a root of a suite, in which the package is installed, with the suite's kernel or that of its backports.
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
        unfinished.join("etc/apt/sources.list.d/backports.list"),
        format!("deb {}/debian {suite}-backports main\n", setup::mirror()?),
    )?;
    fs::write(
        unfinished.join("usr/sbin/policy-rc.d"),
        "#!/bin/sh\nexit 101\n",
    )?;
    roots::inside(&unfinished, &["chmod", "755", "/usr/sbin/policy-rc.d"])?;
    roots::inside(&unfinished, &["apt-get", "update", "-q"])?;
    let install = ["apt-get", "install", "-y", "--no-install-recommends"];
    let backports = format!("{suite}-backports");
    let kernel = ["-t", &backports, "linux-image-cloud-amd64"];
    roots::inside(
        &unfinished,
        &[&install[..], &kernel, &["initramfs-tools", "busybox"]].concat(),
    )?;
    fs::rename(&unfinished, &bootable).context("keep the root")?;
    Ok(bootable)
}

fn prepare(root: &Path, package: &Path, newer: &Path) -> Result<()> {
    fs::copy(package, root.join("root/package.deb"))?;
    fs::copy(newer, root.join("root/newer.deb"))?;
    roots::inside(root, &["dpkg", "--install", "/root/package.deb"])?;
    fs::write(root.join("etc/portdemux/default.toml"), RULES)?;
    fs::write(root.join("root/guest.sh"), GUEST)?;
    fs::write(root.join("etc/systemd/system/guest.service"), UNIT)?;
    fs::write(root.join("etc/fstab"), "/dev/vda / ext4 defaults 0 0\n")?;
    let units = [
        "portdemux@default.service",
        "guest.service",
        "systemd-networkd.service",
    ];
    roots::inside(root, &[&["systemctl", "enable"], &units[..]].concat())?;
    Ok(())
}

fn boot(base: &Path, image: &Path) -> Result<()> {
    let file =
        |name: &str| fs::canonicalize(base.join(name)).with_context(|| format!("find {name}"));
    let (kernel, initrd) = (file("vmlinuz")?, file("initrd.img")?);
    let mut machine = command::spawn(
        Command::new("timeout")
            .args([
                PATIENCE,
                "qemu-system-x86_64",
                "-nographic",
                "-nodefaults",
                "-serial",
                "stdio",
            ])
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
            .args([
                "-netdev",
                "user,id=n,restrict=on",
                "-device",
                "virtio-net-pci,netdev=n,addr=5",
            ])
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
        boots == 2,
        "the machine does not say that boot {} is well",
        boots + 1
    );
    Ok(())
}
