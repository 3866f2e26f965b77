//! System calls that nobody has a safe function for.
#![expect(unsafe_code, reason = "this is the place for them")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{BPF_NOEXIST, bpf_cmd};

#[repr(C)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct Pin {
    path: u64,
    descriptor: u32,
    flags: u32,
}

#[repr(C)]
struct Info {
    descriptor: u32,
    length: u32,
    address: u64,
}

/// What the kernel says about a link to a network namespace.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    namespace: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

/// Calls `bpf()`; returns what it returns.
fn bpf<T>(command: bpf_cmd, argument: &mut T) -> io::Result<i64> {
    // SAFETY: the argument is one of the structures above, as long as the kernel is told, and what it
    // points to is borrowed by whoever calls this.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(argument),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

/// What a program made of a context that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it returned.
    pub result: u32,
    /// How long it took each time, on average, in nanoseconds.
    pub nanoseconds: u32,
}

/// Runs a program that is asked for a socket, `repeat` times (Linux 5.12, `BPF_PROG_TEST_RUN`).
///
/// # Errors
///
/// The kernel refuses.
pub fn run_lookup(program: impl AsFd, context: &[u8], repeat: u32) -> io::Result<Ran> {
    let mut argument = TestRun {
        program: number(program.as_fd()),
        repeat,
        context_size_in: u32::try_from(context.len()).unwrap_or(u32::MAX),
        context_in: context.as_ptr() as u64,
        ..TestRun::default()
    };
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut argument)?;
    Ok(Ran {
        result: argument.result,
        nanoseconds: argument.duration,
    })
}

/// Replaces the program of a link, in one step.
///
/// # Errors
///
/// The kernel refuses: what the link was for is gone.
pub(crate) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut argument = LinkUpdate {
        link: number(link.as_fd()),
        program: number(program.as_fd()),
        flags: 0,
        old_program: 0,
    };
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut argument).map(drop)
}

/// Opens what is pinned at a path.
///
/// # Errors
///
/// Nothing is, or it may not be opened.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut argument = Pin {
        path: path.as_ptr() as u64,
        descriptor: 0,
        flags: 0,
    };
    let descriptor = bpf(bpf_cmd::BPF_OBJ_GET, &mut argument)?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The inode number of the network namespace that a link is to; 0 if that is gone.
///
/// # Errors
///
/// The kernel does not say.
pub(crate) fn link_namespace(link: impl AsFd) -> io::Result<u32> {
    let mut info = LinkInfo::default();
    let mut argument = Info {
        descriptor: number(link.as_fd()),
        length: u32::try_from(size_of::<LinkInfo>()).unwrap_or_default(),
        address: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut argument)?;
    Ok(info.namespace)
}

/// Puts a socket into a slot of a map of sockets whose values have 8 bytes.
///
/// # Errors
///
/// Another is there, or it is not one that can be there: a TCP socket that neither listens nor is connected, or a UDP socket
/// that is not bound.
pub(crate) fn put_socket(map: impl AsFd, index: u32, socket: impl AsFd) -> io::Result<()> {
    let value = u64::from(number(socket.as_fd()));
    let mut argument = Element {
        map: number(map.as_fd()),
        reserved: 0,
        key: address(&index),
        value: address(&value),
        flags: BPF_NOEXIST.into(),
    };
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut argument).map(drop)
}

/// The cookie of the socket at a slot of such a map, if there is one.
pub(crate) fn socket_cookie(map: impl AsFd, index: u32) -> Option<u64> {
    let mut value = 0_u64;
    let mut argument = Element {
        map: number(map.as_fd()),
        reserved: 0,
        key: address(&index),
        value: std::ptr::from_mut(&mut value) as u64,
        flags: 0,
    };
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut argument).ok()?;
    Some(value)
}

/// Takes the socket out of a slot of such a map, if there is one.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn take_socket(map: impl AsFd, index: u32) -> io::Result<()> {
    let mut argument = Element {
        map: number(map.as_fd()),
        reserved: 0,
        key: address(&index),
        value: 0,
        flags: 0,
    };
    match bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut argument) {
        Err(error)
            if ![libc::ENOENT, libc::EINVAL].contains(&error.raw_os_error().unwrap_or(0)) =>
        {
            Err(error)
        }
        // Nothing is there (Linux net/core/sock_map.c, `__sock_map_delete`).
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Keeps Ctrl-C and `SIGTERM` from ending this process, and returns a descriptor that can be read once one comes.
///
/// # Errors
///
/// Too many files are open.
pub fn ending_signals() -> io::Result<OwnedFd> {
    // SAFETY: a set of signals is plain memory, for which zeros are valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the set is this function's own, and the signal is one.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: the set lives while the call lasts; the kernel makes a descriptor or says why not.
    let descriptor = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above. It fails only for a way that does not exist.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The cookie of the network namespace that a socket is in.
///
/// # Errors
///
/// The kernel is older than Linux 5.14.
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = u32::try_from(size_of::<u64>()).unwrap_or_default();
    // SAFETY: the kernel writes at most as many bytes as it is told there are.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}
