//! bpf-linker: links LLVM bitcode to BPF objects.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Rust,
    rust::{self, TARGET},
};
use crate::{
    command::{self, Command, Stdio},
    say,
};

const PROGRAM: &str = "bpf-linker";
const VERSION: &str = "0.13.0";
/// The LLVM releases that this version of bpf-linker can be built with.
pub(super) const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// The least that exercises compiler, `core` and linker.
const TRIAL: &[u8] = br#"
#![no_std]
#![no_main]
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
fn pass(_: *mut core::ffi::c_void) -> u32 { 2 }
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }
"#;

/// Checks that the linker starts and understands what the compiler makes; returns its version.
pub(super) fn check(rust: &Rust) -> Result<String> {
    let Some(linker) = command::find(PROGRAM) else {
        bail!("there is no {PROGRAM}");
    };
    let version = command::output(Command::new(&linker).arg("--version"))
        .with_context(|| format!("the {PROGRAM} here does not start"))?;
    // Without a prebuilt `core`, a trial would have to build one.
    if !rust.builds_core {
        link_trial(&linker)?;
    }
    Ok(version.trim().to_owned())
}

fn link_trial(linker: &Path) -> Result<()> {
    let directory = env::temp_dir().join(format!("portdemux-setup-{}", std::process::id()));
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let outcome = compile_trial(linker, &directory.join("trial"));
    // Nothing depends on it.
    let _ = fs::remove_dir_all(&directory);
    outcome.with_context(|| format!("the {PROGRAM} here does not fit the compiler"))
}

fn compile_trial(linker: &Path, object: &Path) -> Result<()> {
    let mut rustc = rust::command("rustc");
    rustc
        .args(["--edition", "2024", "--target", TARGET, "-O"])
        // Without it the linker optimizes the whole of `core`, ten times slower.
        .args(["-C", "lto=fat", "-C"])
        .arg(format!("linker={}", linker.display()))
        .arg("-o")
        .arg(object)
        .arg("-");
    let mut child = rustc
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start rustc")?;
    if let Some(mut source) = child.stdin.take() {
        source.write_all(TRIAL).context("write to rustc")?;
    }
    let output = child.wait_with_output().context("wait for rustc")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = complaint
            .lines()
            .find(|line| line.starts_with("error"))
            .unwrap_or("rustc failed");
        bail!("{complaint}");
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
