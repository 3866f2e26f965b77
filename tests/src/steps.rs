//! A program that is killed before the system call of one's choice.
//!
//! Whatever a program does to the world outside of its own memory it does through system calls, save
//! for memory that it shares. Killed before each of them in turn, and at times between two, it is
//! caught in every state that it can leave behind. Reading a file is no step: it changes nothing, and
//! some files are read in thousands of pieces.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// When to kill a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// Not at all.
    Never,
    /// Before its n-th step, counted from 1.
    Before(usize),
    /// So long after the n-th began, if it still runs then.
    After(usize, Duration),
}

/// How far a program came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// How many steps it began, the one that it was killed before included.
    pub steps: usize,
    /// Its exit code; nothing if it was killed.
    pub code: Option<i32>,
}

/// Runs a command until `kill` says; steps count from where it becomes `program`.
///
/// What it prints is lost.
///
/// # Errors
///
/// If it does not start, or may not be traced.
pub fn run(command: &Command, program: &Path, when: Kill) -> Result<Course> {
    let program = fs::canonicalize(program)?;
    // A tracer is a thread: one of its own waits for nobody else's children.
    thread::scope(|scope| scope.spawn(|| trace(command, &program, when)).join())
        .unwrap_or_else(|_| Err(anyhow!("the tracing thread panicked")))
}

fn trace(command: &Command, program: &Path, when: Kill) -> Result<Course> {
    // The shell waits until it is traced.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "read _; exec \"$@\" </dev/null", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let mut child = shell.spawn().context("start a shell")?;
    let leader = Pid::from_raw(i32::try_from(child.id())?);
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(leader, options).context("trace a program")?;
    drop(child.stdin.take());

    let mut tracer = Tracer {
        leader,
        program,
        when,
        steps: 0,
        is_counting: false,
    };
    let end = tracer.follow();
    if end.is_err() {
        // It has ended, or is killed with this thread.
        let _: nix::Result<()> = kill(leader, Signal::SIGKILL);
    }
    Ok(Course {
        steps: tracer.steps,
        code: end?,
    })
}

struct Tracer<'a> {
    leader: Pid,
    program: &'a Path,
    when: Kill,
    steps: usize,
    is_counting: bool,
}

impl Tracer<'_> {
    /// Follows all threads to the end and returns the exit code.
    fn follow(&mut self) -> Result<Option<i32>> {
        loop {
            let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))?;
            let tolerated = match status {
                WaitStatus::Exited(pid, code) if pid == self.leader => return Ok(Some(code)),
                WaitStatus::Signaled(pid, ..) if pid == self.leader => return Ok(None),
                WaitStatus::PtraceEvent(thread, _, event) => {
                    if event == libc::PTRACE_EVENT_EXEC && self.is_program(thread) {
                        self.is_counting = true;
                    }
                    self.resume(thread, None)
                }
                WaitStatus::PtraceSyscall(thread) => self.step(thread),
                WaitStatus::Stopped(thread, signal) => self.resume(thread, Some(signal)),
                WaitStatus::Exited(..)
                | WaitStatus::Signaled(..)
                | WaitStatus::Continued(_)
                | WaitStatus::StillAlive => Ok(()),
            };
            match tolerated {
                // It was killed meanwhile; its end comes next.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => bail!("trace {}: {error}", self.program.display()),
            }
        }
    }

    fn is_program(&self, thread: Pid) -> bool {
        fs::read_link(format!("/proc/{thread}/exe")).is_ok_and(|exe| exe == self.program)
    }

    fn resume(&self, thread: Pid, signal: Option<Signal>) -> nix::Result<()> {
        if self.is_counting {
            ptrace::syscall(thread, signal)
        } else {
            ptrace::cont(thread, signal)
        }
    }

    fn step(&mut self, thread: Pid) -> nix::Result<()> {
        let is_entry = ptrace::syscall_info(thread)?.op == libc::PTRACE_SYSCALL_INFO_ENTRY;
        if is_entry && !is_read(thread) {
            self.steps += 1;
            match self.when {
                // A call that a fatal signal comes before is not made.
                Kill::Before(step) if step == self.steps => {
                    return kill(self.leader, Signal::SIGKILL);
                }
                Kill::After(step, delay) if step == self.steps => {
                    ptrace::detach(thread, None)?;
                    thread::sleep(delay);
                    return kill(self.leader, Signal::SIGKILL);
                }
                Kill::Never | Kill::Before(_) | Kill::After(..) => {}
            }
        }
        self.resume(thread, None)
    }
}

/// Whether the system call that a stopped thread is about to make is `read`.
fn is_read(thread: Pid) -> bool {
    fs::read_to_string(format!("/proc/{thread}/syscall"))
        .ok()
        .and_then(|call| call.split(' ').next()?.parse().ok())
        == Some(libc::SYS_read)
}
