//! A kernel that says it is an older one, or that it lacks something.
//!
//! What older kernels lack a program asks their version for. Told of an old one on a new kernel, which has
//! all that the old one had, it goes the old one's way. What has no version it asks for, and is refused.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use tempfile::TempDir;

use crate::{leftovers, run};

/// Takes the place of the C library's function.
const SOURCE: &str = r"
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>
int uname(struct utsname *names) {
    long result = syscall(SYS_uname, names);
    if (result == 0) {
        strcpy(names->release, RELEASE);
        strcpy(names->version, VERSION);
    }
    return result;
}
";

/// Takes the place of the C library's function, which all calls of `bpf` go through.
const LACKING: &str = r"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>
long syscall(long number, ...) {
    static long (*next)(long, ...);
    long words[6];
    va_list list;
    va_start(list, number);
    for (int word = 0; word < 6; word++)
        words[word] = va_arg(list, long);
    va_end(list);
    if (number == SYS_bpf && words[0] == COMMAND && *(unsigned *)words[1] == TYPE) {
        sleep(SECONDS);
        if (ERROR != 0) {
            errno = ERROR;
            return -1;
        }
    }
    if (next == 0)
        next = (long (*)(long, ...))dlsym(RTLD_NEXT, SYSCALL);
    return next(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}
";

/// What a kernel can be without, have no memory for, or be slow with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// Maps of this type (Linux `include/uapi/linux/bpf.h`, `enum bpf_map_type`).
    Maps(u32),
    /// Programs of this type (`enum bpf_prog_type`).
    Programs(u32),
}

/// A library that, loaded before others, makes the kernel seem another one.
#[derive(Debug)]
pub struct Release {
    library: PathBuf,
    _directory: TempDir,
}

impl Release {
    /// Compiles one for a version such as `6.1.0`; this needs a C compiler called `cc`.
    ///
    /// # Errors
    ///
    /// With what the compiler said.
    pub fn pretend(version: &str) -> Result<Self> {
        let names = [
            format!("-DRELEASE=\"{version}\""),
            "-DVERSION=\"#1 SMP\"".into(),
        ];
        Self::compile(SOURCE, &names)
    }

    /// Compiles one for a kernel that lacks something.
    ///
    /// # Errors
    ///
    /// With what the compiler said.
    pub fn lacking(what: Lacking) -> Result<Self> {
        Self::changed(what, "EINVAL", 0)
    }

    /// Compiles one for a kernel that has no memory for something.
    ///
    /// # Errors
    ///
    /// With what the compiler said.
    pub fn without_memory(what: Lacking) -> Result<Self> {
        Self::changed(what, "ENOMEM", 0)
    }

    /// Compiles one for a kernel that makes something so many seconds later.
    ///
    /// # Errors
    ///
    /// With what the compiler said.
    pub fn slow(what: Lacking, seconds: u32) -> Result<Self> {
        Self::changed(what, "0", seconds)
    }

    fn changed(what: Lacking, error: &str, seconds: u32) -> Result<Self> {
        // `BPF_MAP_CREATE` and `BPF_PROG_LOAD`, whose attributes both begin with the type.
        let (command, kind) = match what {
            Lacking::Maps(kind) => (0, kind),
            Lacking::Programs(kind) => (5, kind),
        };
        let names = [
            format!("-DCOMMAND={command}"),
            format!("-DTYPE={kind}"),
            format!("-DERROR={error}"),
            format!("-DSECONDS={seconds}"),
            "-DSYSCALL=\"syscall\"".into(),
        ];
        Self::compile(LACKING, &names)
    }

    fn compile(text: &str, names: &[String]) -> Result<Self> {
        let directory = leftovers::directory("release")?;
        let source = directory.path().join("before.c");
        let library = directory.path().join("before.so");
        fs::write(&source, text)?;
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-o"])
            .arg(&library)
            .args(names)
            .arg(&source);
        run::run(compiler)?.success()?;
        Ok(Self {
            library,
            _directory: directory,
        })
    }

    /// The library.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }
}
