//! A kernel that says it is an older one.
//!
//! What older kernels lack a program asks their version for. Told of an old one on a new kernel, which has
//! all that the old one had, it goes the old one's way.

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

/// A library that, loaded before others, makes the kernel's version another one.
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
        let directory = leftovers::directory("release")?;
        let source = directory.path().join("uname.c");
        let library = directory.path().join("uname.so");
        fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(format!("-DRELEASE=\"{version}\""))
            .arg("-DVERSION=\"#1 SMP\"")
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
