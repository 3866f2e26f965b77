//! A program that is killed before the system call of one's choice.
//!
//! Whatever a program does to the world outside of its own memory it does through system calls, save
//! for memory that it shares. Killed before each of them in turn, and at times between two, it is
//! caught in every state that it can leave behind. A call is no step if what it does ends with the
//! process, so that a kill leaves the same before it as after: reading, waiting, closing what the end of
//! the process closes, making what nothing but its descriptor holds. Calls that begin and end the sharing
//! of memory are steps, as are those by which it is waited for other CPUs: between them such memory is
//! written.

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

/// Starts a command through a shell that waits until it is traced, with its standard output and its standard error.
pub(crate) fn start(command: &Command, [stdout, stderr]: [Stdio; 2]) -> Result<Pid> {
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

fn trace(command: &Command, program: &Path, when: Kill) -> Result<Course> {
    let leader = start(command, [Stdio::null(), Stdio::null()])?;
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
        if is_entry && is_step(thread) {
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

/// Whether a kill before the system call that a stopped thread is about to make can leave another world
/// than one after it.
fn is_step(thread: Pid) -> bool {
    let call = fs::read_to_string(format!("/proc/{thread}/syscall")).unwrap_or_default();
    let mut words = call.split_whitespace();
    let Some(number) = words.next().and_then(|word| word.parse().ok()) else {
        return true;
    };
    let argument = |at: usize| {
        let word = call.split_whitespace().nth(1 + at)?.strip_prefix("0x")?;
        libc::c_long::from_str_radix(word, 16).ok()
    };
    match number {
        libc::SYS_openat => argument(2).is_none_or(|flags| flags & OPEN_CHANGES != 0),
        libc::SYS_mmap => {
            argument(3).is_none_or(|flags| flags & libc::c_long::from(libc::MAP_SHARED) != 0)
        }
        libc::SYS_bpf => argument(0).is_none_or(|command| !BPF_OF_DESCRIPTORS.contains(&command)),
        call => !ENDING_WITH_THE_PROCESS.contains(&call),
    }
}

/// Flags with which opening a file can change it.
const OPEN_CHANGES: libc::c_long =
    (libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY | libc::O_RDWR) as libc::c_long;

/// Commands of `bpf` that read, or make what only the descriptor that they return holds (Linux
/// `include/uapi/linux/bpf.h`, `enum bpf_cmd`): maps, programs, BTF and links to tracepoints, found or new.
const BPF_OF_DESCRIPTORS: [libc::c_long; 17] = [
    0, 1, 4, 5, 7, 11, 12, 13, 14, 15, 16, 17, 18, 19, 23, 30, 31,
];

/// Calls that read, wait, or do what the end of the process undoes.
const ENDING_WITH_THE_PROCESS: [libc::c_long; 49] = [
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_newfstatat,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setsockopt,
    libc::SYS_sigaltstack,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_uname,
];
