//! Follows a program from one of its system calls to the next.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
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

/// What is done when a thread of the program stops at a system call.
pub(crate) trait Watch {
    /// Called before the call. `leader` is the program's first thread.
    fn enter(&mut self, leader: Pid, thread: Pid) -> nix::Result<()>;

    /// Called after the call.
    fn leave(&mut self, _thread: Pid) -> nix::Result<()> {
        Ok(())
    }

    /// Whether the rest of the program need not be watched: stopping takes longer than most calls.
    fn is_done(&self) -> bool {
        false
    }
}

/// Runs a command to its end and returns its exit code; nothing if a signal ended it.
///
/// System calls are watched from where the command becomes `program`. Standard input is empty.
///
/// # Errors
///
/// If it does not start, or may not be traced.
pub(crate) fn run(
    command: &Command,
    program: &Path,
    output: [Stdio; 2],
    watch: &mut (impl Watch + Send),
) -> Result<Option<i32>> {
    let program = fs::canonicalize(program)?;
    let trace = || {
        let leader = start(command, output)?;
        let end = follow(leader, &program, watch);
        if end.is_err() {
            // It has ended, or is killed with this thread.
            let _: nix::Result<()> = kill(leader, Signal::SIGKILL);
        }
        end
    };
    // A tracer is a thread: one of its own waits for nobody else's children.
    thread::scope(|scope| scope.spawn(trace).join())
        .unwrap_or_else(|_| Err(anyhow!("the tracing thread panicked")))
}

/// Starts a command through a shell that waits until it is traced.
fn start(command: &Command, [stdout, stderr]: [Stdio; 2]) -> Result<Pid> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "read _; exec \"$@\" </dev/null", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(stderr);
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
    Ok(leader)
}

/// Follows all threads to the end.
fn follow(leader: Pid, program: &Path, watch: &mut impl Watch) -> Result<Option<i32>> {
    let mut is_program = false;
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))?;
        let (thread, signal, watched) = match status {
            WaitStatus::Exited(pid, code) if pid == leader => return Ok(Some(code)),
            WaitStatus::Signaled(pid, ..) if pid == leader => return Ok(None),
            WaitStatus::PtraceEvent(thread, _, event) => {
                is_program |= event == libc::PTRACE_EVENT_EXEC
                    && fs::read_link(format!("/proc/{thread}/exe")).is_ok_and(|exe| exe == program);
                (thread, None, Ok(()))
            }
            WaitStatus::PtraceSyscall(thread) => (thread, None, stop(leader, thread, watch)),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal), Ok(())),
            WaitStatus::Exited(..)
            | WaitStatus::Signaled(..)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => continue,
        };
        let resume = if is_program && !watch.is_done() {
            ptrace::syscall
        } else {
            ptrace::cont
        };
        match watched.and_then(|()| resume(thread, signal)) {
            // It was killed meanwhile, or let go; its end comes next.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => bail!("trace {}: {error}", program.display()),
        }
    }
}

fn stop(leader: Pid, thread: Pid, watch: &mut impl Watch) -> nix::Result<()> {
    if ptrace::syscall_info(thread)?.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
        watch.enter(leader, thread)
    } else {
        watch.leave(thread)
    }
}
