//! Network namespaces that are gone when the test is.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

pub use crate::leftovers::namespaces as all;
use crate::{
    leftovers,
    run::{Output, Running, ip, run},
};

static COUNTER: AtomicU32 = AtomicU32::new(0);
/// `ip netns add` mounts its directory when it is first used, which two must not do at once.
static CREATION: Mutex<()> = Mutex::new(());

/// A named network namespace. On drop its processes are killed and it is removed, with all
/// interfaces in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with a loopback interface that is up; `label` becomes part of its name.
    ///
    /// # Errors
    ///
    /// If the kernel or the privileges do not allow it.
    pub fn new(label: &str) -> Result<Self> {
        leftovers::sweep_once();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{number}-{label}", leftovers::prefix());
        {
            let _one_at_a_time = CREATION.lock().unwrap_or_else(PoisonError::into_inner);
            ip(&["netns", "add", &name])?;
        }
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(leftovers::NAMESPACES).join(&self.name)
    }

    /// A command that will run in it, in the mount namespace of the test, so that bpffs is visible.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a program in it to its end.
    ///
    /// # Errors
    ///
    /// If it does not start or does not end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(program);
        command.args(arguments);
        run(command)
    }

    /// Starts a program in it.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Running> {
        let mut command = self.command(program);
        command.args(arguments);
        Running::spawn(command)
    }

    /// Runs `ip` on it.
    ///
    /// # Errors
    ///
    /// With what it said, if it does not succeed.
    pub fn ip(&self, arguments: &[&str]) -> Result<Output> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    /// Calls a function on a thread that is in it: sockets opened there belong to it.
    ///
    /// # Errors
    ///
    /// If the thread cannot enter it, or what `function` returns.
    pub fn enter<T: Send>(&self, function: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        let inside = || {
            let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
            function()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|_| Err(anyhow!("a thread in {} panicked", self.name)))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        leftovers::remove_namespace(&self.name);
    }
}
