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

use anyhow::Result;
use nix::{
    libc,
    sys::{
        ptrace,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use crate::trace::{self, Watch};

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
    let mut killer = Killer { when, steps: 0 };
    let output = [Stdio::null(), Stdio::null()];
    let code = trace::run(command, program, output, &mut killer)?;
    Ok(Course {
        steps: killer.steps,
        code,
    })
}

struct Killer {
    when: Kill,
    steps: usize,
}

impl Watch for Killer {
    fn enter(&mut self, leader: Pid, thread: Pid) -> nix::Result<()> {
        if !is_step(thread) {
            return Ok(());
        }
        self.steps += 1;
        match self.when {
            // A call that a fatal signal comes before is not made.
            Kill::Before(step) if step == self.steps => kill(leader, Signal::SIGKILL),
            Kill::After(step, delay) if step == self.steps => {
                ptrace::detach(thread, None)?;
                thread::sleep(delay);
                kill(leader, Signal::SIGKILL)
            }
            Kill::Never | Kill::Before(_) | Kill::After(..) => Ok(()),
        }
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
const ENDING_WITH_THE_PROCESS: &[libc::c_long] = &[
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
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
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
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
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];
