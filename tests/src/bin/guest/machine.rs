//! What the first process of a machine does: mounts, modules, and the end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::wait::wait,
    unistd::Pid,
};

use crate::say;

const MOUNTS: [(&str, &str); 8] = [
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    ("/dev", "devtmpfs"),
    ("/sys/fs/bpf", "bpf"),
    ("/sys/fs/cgroup", "cgroup2"),
    ("/sys/kernel/tracing", "tracefs"),
    ("/run", "tmpfs"),
    ("/tmp", "tmpfs"),
];

/// How many times as long as elsewhere everything may take, above all what loads programs.
const SLOWNESS: &str = "12";

/// Mounts what a system has and loads the modules that came along.
pub(crate) fn start() -> Result<()> {
    for (at, kind) in MOUNTS {
        let none: Option<&str> = None;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), none)
            .with_context(|| format!("mount {kind} on {at}"))?;
    }
    let mut modules: Vec<PathBuf> = fs::read_dir("/modules")
        .context("read /modules")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    modules.sort();
    for module in modules {
        let file = fs::File::open(&module)?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("load {}", module.display()))?;
    }
    Ok(())
}

/// Runs the checks as a process of their own, and takes up what others leave behind until it ends.
pub(crate) fn run_checks() -> Result<()> {
    let child = Command::new("/init")
        .env("PATH", "/bin")
        .env("PORTDEMUX_BIN", "/bin/portdemux")
        .env("PORTDEMUX_REQUIRE_BPF", "1")
        .env("PORTDEMUX_SLOWNESS", SLOWNESS)
        .env("RUST_BACKTRACE", "0")
        .spawn()
        .context("start the checks")?;
    let checks = Pid::from_raw(child.id().cast_signed());
    while wait().context("wait for the checks")?.pid() != Some(checks) {}
    Ok(())
}

/// Ends the machine.
pub(crate) fn power_off() -> ! {
    say("end");
    let trigger = Path::new("/proc/sysrq-trigger");
    loop {
        // The kernel powers off a moment after it is asked.
        let _ = fs::write(trigger, "o");
        thread::sleep(Duration::from_mins(1));
    }
}
