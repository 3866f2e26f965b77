//! The file system that a guest starts with: the programs, what they are linked to, and the kernel's modules.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    Programs,
    kernels::{self, Kernel},
};
use crate::command::{self, Command};

/// What tests run in a guest.
const TOOLS: [&str; 4] = ["ip", "tc", "nsenter", "ethtool"];
/// What the tests need of a kernel and Debian's have not built in, in this order: what others need stands first.
const MODULES: [&str; 14] = [
    "llc",
    "psnap",
    "stp",
    "garp",
    "mrp",
    "8021q",
    "veth",
    "dummy",
    "tun",
    "sch_ingress",
    "cls_bpf",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
];
const DIRECTORIES: [&str; 9] = [
    "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "modules",
];

/// Writes the archive.
///
/// # Errors
///
/// If a part is missing.
pub(super) fn build(to: &Path, kernel: &Kernel, programs: &Programs) -> Result<()> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.directory(Path::new(directory));
    }
    archive.program(Path::new("init"), &programs.guest)?;
    for program in &programs.others {
        archive.program(&in_bin(program), program)?;
    }
    for tool in TOOLS {
        let program = command::find(tool).with_context(|| format!("no program `{tool}`"))?;
        archive.program(&in_bin(&program), &program)?;
    }
    for object in &programs.objects {
        let name = Path::new("objects").join(object.file_name().unwrap_or_default());
        archive.file(&name, 0o644, &read(object)?);
    }
    for (index, name) in MODULES.iter().enumerate() {
        let is_it = |file: &str| {
            file.split_once(".ko")
                .is_some_and(|(stem, _)| stem == *name)
        };
        // What is missing is built in, or not needed by this kernel.
        let Some(module) = kernels::find(&kernel.modules, &is_it) else {
            continue;
        };
        let name = format!("modules/{index:02}-{name}.ko");
        archive.file(Path::new(&name), 0o644, &unpacked(&module)?);
    }
    fs::write(to, archive.finish()).with_context(|| format!("write {}", to.display()))
}

fn in_bin(program: &Path) -> PathBuf {
    Path::new("bin").join(program.file_name().unwrap_or_default())
}

/// A module as the kernel takes it.
fn unpacked(module: &Path) -> Result<Vec<u8>> {
    if module.extension().is_none_or(|extension| extension != "xz") {
        return read(module);
    }
    let output = Command::new("xz")
        .arg("-dc")
        .arg(module)
        .output()
        .context("start `xz`")?;
    anyhow::ensure!(
        output.status.success(),
        "cannot unpack {}",
        module.display()
    );
    Ok(output.stdout)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}

/// An archive as the kernel reads it (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<PathBuf>,
}

impl Archive {
    /// Adds a program and all libraries that it is linked to.
    fn program(&mut self, name: &Path, program: &Path) -> Result<()> {
        let content = super::stripped(program)?;
        self.file(name, 0o755, &content);
        // One that is linked to nothing is an error to it.
        let libraries = command::output(Command::new("ldd").arg(program)).unwrap_or_default();
        for library in libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            let library = Path::new(library);
            let name = library.strip_prefix("/").unwrap_or(library);
            if !self.names.contains(name) {
                self.file(name, 0o755, &read(library)?);
            }
        }
        Ok(())
    }

    fn directory(&mut self, name: &Path) {
        if name.as_os_str().is_empty() || !self.names.insert(name.to_owned()) {
            return;
        }
        if let Some(parent) = name.parent() {
            self.directory(parent);
        }
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &Path, mode: u32, content: &[u8]) {
        if let Some(parent) = name.parent() {
            self.directory(parent);
        }
        if self.names.insert(name.to_owned()) {
            self.entry(name, 0o100_000 | mode, content);
        }
    }

    fn entry(&mut self, name: &Path, mode: u32, content: &[u8]) {
        let name = name.to_string_lossy();
        let number = self.names.len();
        let (size, length) = (content.len(), name.len() + 1);
        // Magic, inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum.
        let _ = write!(
            self.bytes,
            "070701{number:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{length:08x}{0:08x}{name}\0",
            0, 1
        );
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, &[]);
        self.bytes
    }
}
