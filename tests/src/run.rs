//! Programs that are run to their end or until they are no longer needed.

use std::{
    io::Read,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::wait::{PATIENCE, wait_for, wait_until};

/// What a program said and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code; nothing if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Itself, if the program succeeded.
    ///
    /// # Errors
    ///
    /// With everything it said, if it did not.
    pub fn success(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        bail!(
            "{}: {}\n{}{}",
            self.command,
            self.status,
            self.stdout,
            self.stderr
        );
    }
}

/// Runs a program to its end, or kills it after [`PATIENCE`].
///
/// # Errors
///
/// If it does not start or does not end.
pub fn run(command: Command) -> Result<Output> {
    Running::spawn(command)?.wait(PATIENCE)
}

/// Runs `ip` in the namespace of the test itself.
///
/// # Errors
///
/// With what it said, if it does not succeed.
pub fn ip(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command)?.success()
}

/// A program that runs, with a process group of its own. The whole group is killed on drop.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

impl Running {
    /// Starts a program whose standard input is empty unless `command` says otherwise.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let line = describe(&command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {line}"))?;
        let stdout = Captured::from(child.stdout.take());
        let stderr = Captured::from(child.stderr.take());
        Ok(Self {
            command: line,
            child,
            stdout,
            stderr,
        })
    }

    /// Its process id, which is also its group's.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    ///
    /// If its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal to it alone.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("send {signal} to {}", self.command))
    }

    /// Waits for its end; kills it if that takes longer than `timeout` times
    /// [`slowness`](crate::wait::slowness).
    ///
    /// # Errors
    ///
    /// If it did not end by itself, with what it said.
    pub fn wait(mut self, timeout: Duration) -> Result<Output> {
        let ended = wait_for("its end", timeout, || Ok(self.child.try_wait()?));
        let status = match ended {
            Ok(status) => status,
            Err(err) => {
                let said = format!("{}{}", self.stdout(), self.stderr());
                return Err(err.context(format!("{}\n{said}", self.command)));
            }
        };
        // A child of the program may hold the pipes open for longer than the program lives.
        self.kill_group();
        Ok(Output {
            command: self.command.clone(),
            status,
            stdout: self.stdout.finish(),
            stderr: self.stderr.finish(),
        })
    }

    fn kill_group(&self) {
        // It fails if nobody is left in the group.
        let _: nix::Result<()> = killpg(self.pid(), Signal::SIGKILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
        // It fails if the program was waited for already.
        let _: std::io::Result<ExitStatus> = self.child.wait();
    }
}

/// What comes out of a pipe, collected by a thread so that the writer never blocks.
#[derive(Debug)]
pub(crate) struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl<R: Read + Send + 'static> From<Option<R>> for Captured {
    fn from(pipe: Option<R>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let Some(mut pipe) = pipe else {
                return;
            };
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut piece) {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                sink.extend_from_slice(&piece[..length]);
            }
        });
        Self { bytes, reader }
    }
}

impl Captured {
    pub(crate) fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn finish(&self) -> String {
        // A daemon that the program left behind may hold the pipe open for ever.
        let _: Result<()> = wait_until("the end of a pipe", Duration::from_secs(2), || {
            Ok(self.reader.is_finished())
        });
        self.text()
    }
}

fn describe(command: &Command) -> String {
    let program = command.get_program();
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
