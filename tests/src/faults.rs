//! A program of which one system call fails.
//!
//! The call is not made, and the program is told an error: what a full disk, a broken one, a limit on open files
//! or little memory can bring about at any moment. Calls are counted by name, as the n-th `openat` of a program
//! stays the n-th when others come and go. Left out are those that cannot fail, those that only end something
//! (`close`, `munmap`), the memory of the process itself (without it a program ends, as if it were killed),
//! `getrandom`, which Linux does not refuse and without which the standard library has no hash map, and all before
//! `main`. Of calls in a row that only read, those after the third are counted and not tried: the kernel's types
//! are read in 1,500 pieces, and for each interface that there may be it is asked whether its pin is there.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    process::{Command, Stdio},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{errno::Errno, libc, unistd::Pid};

use crate::{
    leftovers,
    trace::{self, Watch},
};

/// The errors that calls fail with.
pub const ERRORS: [Errno; 5] = [
    Errno::EIO,
    Errno::ENOSPC,
    Errno::EMFILE,
    Errno::EACCES,
    Errno::ENOMEM,
];

/// How many calls in a row that only read are tried.
const IN_A_ROW: usize = 3;

/// One call, and how it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which call, by its place in [`CALLS`].
    call: usize,
    /// Which of them, from 1.
    pub nth: usize,
    error: Errno,
}

impl Fault {
    /// All faults of a program that makes these calls.
    #[must_use]
    pub fn all(calls: &Calls) -> Vec<Self> {
        let each = calls
            .iter()
            .flat_map(|(&call, which)| which.iter().map(move |&nth| (call, nth)));
        each.flat_map(|(call, nth)| ERRORS.map(|error| Self { call, nth, error }))
            .collect()
    }
}

/// As in `openat 3 EIO`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, nth, error } = self;
        write!(f, "{} {nth} {error:?}", CALLS[*call].0)
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [call, nth, error] = words[..] else {
            bail!("`{text}` is no fault: write one as in `openat 3 EIO`");
        };
        let call = CALLS.iter().position(|(name, _)| *name == call);
        let error = ERRORS.iter().find(|known| format!("{known:?}") == error);
        Ok(Self {
            call: call.with_context(|| format!("no such call in `{text}`"))?,
            nth: nth.parse()?,
            error: *error.with_context(|| format!("no such error in `{text}`"))?,
        })
    }
}

/// Which of each call that a program made are tried, by the place in `CALLS`.
pub type Calls = BTreeMap<usize, Vec<usize>>;

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; nothing if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// The calls that it made, up to the one that failed.
    pub calls: Calls,
    /// Whether it came to the call that was to fail.
    pub has_failed: bool,
}

/// Runs a command that becomes `program`, with a fault or without.
///
/// # Errors
///
/// If it does not start, or may not be traced.
pub fn run(command: &Command, program: &Path, fault: Option<Fault>) -> Result<Ended> {
    let directory = leftovers::directory("faults")?;
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| directory.path().join(name));
    // Files, so that what the program leaves behind holds no pipe open.
    let files = [
        Stdio::from(fs::File::create(&stdout)?),
        fs::File::create(&stderr)?.into(),
    ];
    let mut refusal = Refusal {
        fault,
        calls: Calls::new(),
        began: false,
        counts: BTreeMap::new(),
        row: None,
        failing: None,
        has_failed: false,
    };
    let code = trace::run(command, program, files, &mut refusal)?;
    ensure!(refusal.began, "{} did not begin", program.display());
    let read = |path: &Path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok(Ended {
        code,
        stdout: read(&stdout)?,
        stderr: read(&stderr)?,
        calls: refusal.calls,
        has_failed: refusal.has_failed,
    })
}

struct Refusal {
    fault: Option<Fault>,
    calls: Calls,
    /// Whether the program is in `main`.
    began: bool,
    /// How many of each call there were, by the place in `CALLS`.
    counts: BTreeMap<usize, usize>,
    /// The last call if it only read, its descriptor or directory, and how many alike came in a row.
    row: Option<(libc::c_long, u64, usize)>,
    /// The thread whose call is being refused.
    failing: Option<Pid>,
    has_failed: bool,
}

impl Watch for Refusal {
    fn leave(&mut self, thread: Pid) -> nix::Result<()> {
        if self.failing == Some(thread)
            && let Some(fault) = self.fault
        {
            registers::answer(thread, fault.error)?;
            self.failing = None;
        }
        Ok(())
    }

    fn enter(&mut self, _leader: Pid, thread: Pid) -> nix::Result<()> {
        let (number, arguments) = registers::call(thread)?;
        // The first thing that the command does.
        self.began |= number == libc::SYS_umask;
        let call = CALLS.iter().position(|(_, known)| *known == number);
        let Some(call) = call.filter(|_| self.began && can_fail(number, arguments)) else {
            return Ok(());
        };
        let is_tried = self.is_tried(number, arguments[0]);
        let count = self.counts.entry(call).or_default();
        *count += 1;
        if is_tried {
            self.calls.entry(call).or_default().push(*count);
        }
        let is_meant = self
            .fault
            .is_some_and(|fault| (fault.call, fault.nth) == (call, *count));
        if is_meant {
            registers::refuse(thread)?;
            self.failing = Some(thread);
            self.has_failed = true;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.has_failed && self.failing.is_none()
    }
}

impl Refusal {
    /// Whether a call is tried, being none of many in a row that only read.
    fn is_tried(&mut self, number: libc::c_long, of: u64) -> bool {
        if ![libc::SYS_read, libc::SYS_newfstatat].contains(&number) {
            self.row = None;
            return true;
        }
        let before = self
            .row
            .filter(|(last, last_of, _)| (*last, *last_of) == (number, of))
            .map_or(0, |(.., times)| times);
        self.row = Some((number, of, before + 1));
        before < IN_A_ROW
    }
}

/// What is told to standard error is lost with it, and memory of its own a program asks for all the time.
fn can_fail(number: libc::c_long, arguments: [u64; 6]) -> bool {
    let is_anonymous = || {
        let flags = u64::try_from(libc::MAP_ANONYMOUS).unwrap_or_default();
        arguments[3] & flags != 0
    };
    match number {
        libc::SYS_write => arguments[0] != 2,
        libc::SYS_mmap => !is_anonymous(),
        _ => true,
    }
}

/// The calls that fail, by name.
const CALLS: &[(&str, libc::c_long)] = &[
    ("accept4", libc::SYS_accept4),
    ("bind", libc::SYS_bind),
    ("bpf", libc::SYS_bpf),
    ("chdir", libc::SYS_chdir),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("connect", libc::SYS_connect),
    ("dup3", libc::SYS_dup3),
    ("epoll_create1", libc::SYS_epoll_create1),
    ("epoll_ctl", libc::SYS_epoll_ctl),
    ("eventfd2", libc::SYS_eventfd2),
    ("fchmod", libc::SYS_fchmod),
    ("fchmodat", libc::SYS_fchmodat),
    ("fcntl", libc::SYS_fcntl),
    ("flock", libc::SYS_flock),
    ("fstat", libc::SYS_fstat),
    ("fstatfs", libc::SYS_fstatfs),
    ("fsync", libc::SYS_fsync),
    ("ftruncate", libc::SYS_ftruncate),
    ("getcwd", libc::SYS_getcwd),
    ("getdents64", libc::SYS_getdents64),
    ("getsockname", libc::SYS_getsockname),
    ("getsockopt", libc::SYS_getsockopt),
    ("ioctl", libc::SYS_ioctl),
    ("lseek", libc::SYS_lseek),
    ("membarrier", libc::SYS_membarrier),
    ("mkdirat", libc::SYS_mkdirat),
    ("mmap", libc::SYS_mmap),
    ("newfstatat", libc::SYS_newfstatat),
    ("openat", libc::SYS_openat),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pipe2", libc::SYS_pipe2),
    ("pread64", libc::SYS_pread64),
    ("ppoll", libc::SYS_ppoll),
    ("prlimit64", libc::SYS_prlimit64),
    ("pwrite64", libc::SYS_pwrite64),
    ("read", libc::SYS_read),
    ("readlinkat", libc::SYS_readlinkat),
    ("recvfrom", libc::SYS_recvfrom),
    ("recvmsg", libc::SYS_recvmsg),
    ("renameat", libc::SYS_renameat),
    ("renameat2", libc::SYS_renameat2),
    ("sched_getaffinity", libc::SYS_sched_getaffinity),
    ("sched_setaffinity", libc::SYS_sched_setaffinity),
    ("sendmsg", libc::SYS_sendmsg),
    ("sendto", libc::SYS_sendto),
    ("setsid", libc::SYS_setsid),
    ("setsockopt", libc::SYS_setsockopt),
    ("socket", libc::SYS_socket),
    ("socketpair", libc::SYS_socketpair),
    ("statfs", libc::SYS_statfs),
    ("statx", libc::SYS_statx),
    ("symlinkat", libc::SYS_symlinkat),
    ("uname", libc::SYS_uname),
    ("unlinkat", libc::SYS_unlinkat),
    ("write", libc::SYS_write),
    ("writev", libc::SYS_writev),
    #[cfg(target_arch = "x86_64")]
    ("chmod", libc::SYS_chmod),
    #[cfg(target_arch = "x86_64")]
    ("mkdir", libc::SYS_mkdir),
    #[cfg(target_arch = "x86_64")]
    ("poll", libc::SYS_poll),
    #[cfg(target_arch = "x86_64")]
    ("readlink", libc::SYS_readlink),
    #[cfg(target_arch = "x86_64")]
    ("rename", libc::SYS_rename),
    #[cfg(target_arch = "x86_64")]
    ("rmdir", libc::SYS_rmdir),
    #[cfg(target_arch = "x86_64")]
    ("symlink", libc::SYS_symlink),
    #[cfg(target_arch = "x86_64")]
    ("unlink", libc::SYS_unlink),
    #[cfg(target_arch = "x86_64")]
    ("vfork", libc::SYS_vfork),
];

#[cfg(target_arch = "x86_64")]
mod registers {
    use nix::{errno::Errno, libc, sys::ptrace, unistd::Pid};

    /// The system call that a thread is about to make, with its arguments.
    pub(super) fn call(thread: Pid) -> nix::Result<(libc::c_long, [u64; 6])> {
        let all = ptrace::getregs(thread)?;
        let arguments = [all.rdi, all.rsi, all.rdx, all.r10, all.r8, all.r9];
        Ok((all.orig_rax.cast_signed(), arguments))
    }

    /// Makes it none.
    pub(super) fn refuse(thread: Pid) -> nix::Result<()> {
        let mut all = ptrace::getregs(thread)?;
        all.orig_rax = u64::MAX;
        ptrace::setregs(thread, all)
    }

    /// Says what came of it.
    pub(super) fn answer(thread: Pid, error: Errno) -> nix::Result<()> {
        let mut all = ptrace::getregs(thread)?;
        all.rax = (-i64::from(error as i32)).cast_unsigned();
        ptrace::setregs(thread, all)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod registers {
    use nix::{errno::Errno, libc, unistd::Pid};

    pub(super) fn call(_thread: Pid) -> nix::Result<(libc::c_long, [u64; 6])> {
        Err(Errno::ENOSYS)
    }

    pub(super) fn refuse(_thread: Pid) -> nix::Result<()> {
        Err(Errno::ENOSYS)
    }

    pub(super) fn answer(_thread: Pid, _error: Errno) -> nix::Result<()> {
        Err(Errno::ENOSYS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_calls_in_a_row_that_only_read_the_first_are_tried() {
        let mut refusal = Refusal {
            fault: None,
            calls: Calls::new(),
            began: true,
            counts: BTreeMap::new(),
            row: None,
            failing: None,
            has_failed: false,
        };
        let mut tried = |number, of: &[u64]| {
            let each = of.iter().map(|&of| refusal.is_tried(number, of));
            each.collect::<Vec<_>>()
        };
        assert_eq!(
            tried(libc::SYS_read, &[3, 3, 3, 3, 3, 4]),
            [true, true, true, false, false, true]
        );
        assert_eq!(
            tried(libc::SYS_newfstatat, &[4; 4]),
            [true, true, true, false]
        );
        assert_eq!(tried(libc::SYS_unlinkat, &[4; 5]), [true; 5]);
        assert_eq!(tried(libc::SYS_read, &[4]), [true]);
    }

    #[test]
    fn a_fault_is_read_as_it_is_written() {
        for fault in Fault::all(&Calls::from([(0, vec![1, 2]), (CALLS.len() - 1, vec![1])])) {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault);
        }
        for text in ["openat", "openat x EIO", "open 1 EIO", "openat 1 EPERM"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
