//! bpf-linker: links LLVM bitcode to BPF objects.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::rust::{self, TARGET};
use crate::{
    command::{self, Command},
    say,
};

const PROGRAM: &str = "bpf-linker";
const VERSION: &str = "0.13.0";
/// The LLVM releases that this version of bpf-linker can be built with.
pub(super) const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Enough that bitcode which an older LLVM cannot read contains some of what is new.
const TRIAL: &[u8] = br"
#![no_std]
#[unsafe(no_mangle)]
pub fn highest(from: &[u8], count: usize) -> Option<u8> {
    let mut bytes = [0; 64];
    bytes.get_mut(..count)?.copy_from_slice(from.get(..count)?);
    bytes.iter().copied().max()
}
";

/// Checks that the linker starts and reads what the compiler writes; returns its version.
pub(super) fn check() -> Result<String> {
    let Some(linker) = command::find(PROGRAM) else {
        bail!("there is no {PROGRAM}");
    };
    let version = command::output(Command::new(&linker).arg("--version"))
        .with_context(|| format!("the {PROGRAM} here does not start"))?;
    let directory = env::temp_dir().join(format!("portdemux-setup-{}", std::process::id()));
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let outcome = link_trial(&linker, &directory);
    // Nothing depends on it.
    let _ = fs::remove_dir_all(&directory);
    outcome
        .with_context(|| format!("the {PROGRAM} here does not read what the compiler writes"))?;
    Ok(version.trim().to_owned())
}

/// Compiles for the host, whose `core` every toolchain has, and links that bitcode for BPF: the
/// linker of an LLVM older than the compiler's fails to read it.
fn link_trial(linker: &Path, directory: &Path) -> Result<()> {
    let (source, bitcode) = (directory.join("trial.rs"), directory.join("trial.bc"));
    fs::write(&source, TRIAL).with_context(|| format!("write {}", source.display()))?;
    command::output(
        rust::command("rustc")
            .args(["--edition", "2024", "--crate-type", "lib", "-O", "-g"])
            .args(["-C", "panic=abort", "--emit", "llvm-bc", "-o"])
            .args([&bitcode, &source]),
    )?;
    let read = Command::new(linker)
        .args([&format!("--target={TARGET}"), "--emit=llvm-bc", "-o"])
        .args([&directory.join("trial.out"), &bitcode])
        .output()
        .context("start it")?;
    if !read.status.success() {
        bail!("it is built with an older LLVM");
    }
    Ok(())
}

/// Builds the linker with the LLVM installed under a prefix and installs it with cargo.
pub(super) fn build(llvm: u32, prefix: &Path) -> Result<()> {
    say::step(format_args!(
        "building {PROGRAM} {VERSION} with LLVM {llvm} (a minute or more)"
    ));
    let path = env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(prefix.join("bin")).chain(env::split_paths(&path));
    let feature = format!("llvm-{llvm}");
    command::run(
        command::cargo("install")
            .args([PROGRAM, "--version", VERSION, "--locked", "--force"])
            .args(["--no-default-features", "--features", &feature])
            .env("PATH", env::join_paths(path).context("extend PATH")?)
            .env("LLVM_PREFIX", prefix)
            .env(format!("LLVM_SYS_{llvm}1_PREFIX"), prefix)
            .env("LIBRARY_PATH", prefix.join("lib"))
            // Nobody debugs it, and it builds faster without.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            // What it is built from would stay there for nothing.
            .env_remove("CARGO_TARGET_DIR"),
    )
}

/// Installs the linker that its authors have built.
pub(super) fn download() -> Result<()> {
    if command::find("cargo-binstall").is_some() {
        let package = format!("{PROGRAM}@{VERSION}");
        return command::run(command::cargo("binstall").args(["--no-confirm", &package]));
    }
    for program in ["curl", "tar", "zstd"] {
        if command::find(program).is_none() {
            bail!("{PROGRAM} cannot be downloaded: `{program}` is missing");
        }
    }
    let bin: PathBuf = command::cargo_home()
        .context("neither CARGO_HOME nor HOME is set")?
        .join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
    let arch = env::consts::ARCH;
    let archive = format!("{PROGRAM}-{arch}-unknown-linux-musl.tar.zst");
    let url = format!("https://github.com/aya-rs/{PROGRAM}/releases/download/v{VERSION}/{archive}");
    let file = env::temp_dir().join(format!("{}-{archive}", std::process::id()));
    let fetched = command::run(
        Command::new("curl")
            .args(["--proto", "=https", "--fail", "--location", "--show-error"])
            .args(["--connect-timeout", "20", "--output"])
            .args([file.as_os_str(), url.as_ref()]),
    );
    let unpacked = fetched.and_then(|()| {
        command::run(
            Command::new("tar")
                .args(["--zstd", "--extract", "--file"])
                .arg(&file)
                .arg("--directory")
                .arg(&bin),
        )
    });
    // Nothing depends on it.
    let _ = fs::remove_file(&file);
    unpacked
}
