//! Processes that go on when the command that started them has ended.
//!
//! Such a process belongs to no terminal and no session, and ends by itself when there is nothing left for
//! it to do.

pub mod follower;
mod need;

use std::{
    ffi::CStr,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, ensure};

pub use self::need::Need;
use crate::instance::InstancePaths;

/// What it says once nothing that ends the command ends it too.
const READY: &str = "ready\n";

/// Whether this process is the command, and no program that has the library.
static IS_COMMAND: AtomicBool = AtomicBool::new(false);

/// Says that this process is the command.
pub(crate) fn is_command() {
    IS_COMMAND.store(true, Ordering::Relaxed);
}

/// Starts the command with some words of its command line, for an instance, and waits until it stands by itself. Another
/// program than the command starts the one that is installed.
///
/// # Errors
///
/// It does not start.
pub(crate) fn start(paths: &InstancePaths, words: &[&str]) -> Result<()> {
    let program = if IS_COMMAND.load(Ordering::Relaxed) {
        "/proc/self/exe"
    } else {
        "portdemux"
    };
    let mut command = Command::new(program);
    command
        .arg0("portdemux")
        .args(words)
        .args(["--instance", &paths.instance.to_string()])
        .arg("--bpffs")
        .arg(path::absolute(&paths.bpffs)?)
        .arg("--state-dir")
        .arg(path::absolute(&paths.state)?)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = command
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let mut said = String::new();
    if let Some(pipe) = process.stdout.take() {
        BufReader::new(pipe).read_line(&mut said)?;
    }
    ensure!(said == READY, "it ended at once");
    Ok(())
}

/// Leaves the terminal and the login of whoever started this process, and takes a name.
///
/// # Errors
///
/// The kernel does not let it go.
pub(crate) fn stand_alone(name: &CStr) -> Result<()> {
    // It was just started by another process, so that it leads no group of processes.
    rustix::process::setsid().context("leave the session")?;
    rustix::thread::set_name(name)?;
    leave_login_scope();
    Ok(())
}

/// Says to whoever started this process that it stands by itself.
///
/// # Errors
///
/// It cannot be said, and whoever waits for it waits for as long as this process lives.
pub(crate) fn say_ready() -> Result<()> {
    let mut stdout = io::stdout();
    let said = stdout.write_all(READY.as_bytes());
    match said.and_then(|()| stdout.flush()) {
        // Nobody waits any more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        said => said.context("say that it is ready"),
    }
}

/// Leaves the control group of a login.
///
/// Where logind is told to (`KillUserProcesses=yes` in logind.conf(5)), it kills what is left in that
/// group when the login ends, which is what a change that cuts a session brings about.
fn leave_login_scope() {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::"));
    let is_login = path.is_some_and(|path| {
        let mut names = path.split('/');
        names.any(|name| {
            let number = name.strip_prefix("session-");
            number.is_some_and(|number| number.strip_suffix(".scope").is_some())
        })
    });
    if is_login {
        // Where this may not be done, the next command undoes what this one cannot.
        let _: io::Result<()> = fs::write("/sys/fs/cgroup/cgroup.procs", "0");
    }
}
