//! Builds the programs of `portdemux-ebpf` for the BPF target into `OUT_DIR`, one object each.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// The name under which `cargo xtask setup` gives rustup a compiler for the BPF target.
const TOOLCHAIN: &str = "portdemux-bpf";
const LINKER: &str = "bpf-linker";
const PACKAGE: &str = "portdemux-ebpf";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match build() {
        Ok(true) => ExitCode::SUCCESS,
        // Cargo shows what a script that fails has written to standard error: the compiler's errors.
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            // Cargo shows this directive, and nothing else, as one line, and fails the build for it.
            say(&format!("cargo::error={err}"));
            ExitCode::SUCCESS
        }
    }
}

/// Builds the programs; returns whether they compile.
fn build() -> Result<bool> {
    for path in [
        "build.rs",
        "../Cargo.lock",
        "../Cargo.toml",
        "../portdemux-common/Cargo.toml",
        "../portdemux-common/src",
        "../portdemux-ebpf",
    ] {
        say(&format!("cargo::rerun-if-changed={path}"));
    }
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    if env::var_os("CARGO_FEATURE_PROGRAMS").is_none() {
        return Ok(true);
    }
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let path = search_path()?;
    let toolchain = Toolchain::find(target, &path)?;
    let linker = linker(&path)?;
    for used in [&toolchain.core, &linker] {
        say(&format!("cargo::rerun-if-changed={}", used.display()));
    }

    // A target directory of its own: cargo holds the lock of the other one while this script runs.
    let target_dir = out_dir.join("bpf");
    let mut cargo = command("cargo", &path);
    cargo
        .args(["build", "--quiet", "--release", "--bins"])
        .args(["--package", PACKAGE, "--target", target, "--target-dir"])
        .arg(&target_dir)
        .args(env::var_os("CARGO_FEATURE_NEXT_LAYOUT").map(|_| "--features=next-layout"))
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags()?)
        // Otherwise the linker optimizes the whole of `core` once more for each program.
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
    if toolchain.builds_core {
        cargo.args(["-Z", "build-std=core"]);
    }
    // What cargo and clippy set for the host's compiler does not hold for this one.
    for name in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(name);
    }
    if !cargo.status()?.success() {
        return Ok(false);
    }
    for program in copy_programs(&target_dir.join(target).join("release"), &out_dir)? {
        strip(&program, &path)?;
    }
    Ok(true)
}

/// Takes from a program what only a debugger reads, four fifths of it: what the kernel and its verifier's log name lines
/// by is its BTF. Without an LLVM that can do that it stays.
fn strip(program: &Path, path: &OsString) -> Result<()> {
    let Some(strip) = llvm_strip(path) else {
        return Ok(());
    };
    let output = Command::new(&strip)
        .arg("--strip-debug")
        .arg(program)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", strip.display(), said.trim()).into())
}

/// Finds `llvm-strip`, which Debian installs for each LLVM in a directory of its own.
fn llvm_strip(path: &OsString) -> Option<PathBuf> {
    const NAME: &str = "llvm-strip";
    let versions = || {
        let entries = fs::read_dir("/usr/lib").ok()?;
        let directories = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            let version: u32 = name.to_str()?.strip_prefix("llvm-")?.parse().ok()?;
            let program = entry.path().join("bin").join(NAME);
            program.is_file().then_some((version, program))
        });
        directories.max().map(|(_, program)| program)
    };
    versions().or_else(|| find(NAME, path))
}

/// The compiler for the BPF target and where its `core` is.
struct Toolchain {
    core: PathBuf,
    builds_core: bool,
}

impl Toolchain {
    fn find(target: &str, path: &OsString) -> Result<Self> {
        let print = |what: &str| -> Option<PathBuf> {
            let output = command("rustc", path)
                .args(["--target", target, "--print", what])
                .stderr(Stdio::null())
                .output()
                .ok()
                .filter(|output| output.status.success())?;
            Some(String::from_utf8(output.stdout).ok()?.trim().into())
        };
        let prebuilt = || print("target-libdir").filter(|directory| has_core(directory));
        let source = || {
            print("sysroot")
                .map(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core/src"))
                .filter(|directory| directory.is_dir())
        };
        if let Some(core) = prebuilt() {
            Ok(Self {
                core,
                builds_core: false,
            })
        } else if let Some(core) = source() {
            Ok(Self {
                core,
                builds_core: true,
            })
        } else {
            Err(format!("no Rust toolchain `{TOOLCHAIN}` for BPF: run `cargo xtask setup`").into())
        }
    }
}

fn has_core(directory: &Path) -> bool {
    directory.read_dir().is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                entry
                    .file_name()
                    .as_encoded_bytes()
                    .starts_with(b"libcore-")
            })
        })
    })
}

/// Finds a linker for BPF that starts: one whose LLVM library was removed does not.
fn linker(path: &OsString) -> Result<PathBuf> {
    find(LINKER, path)
        .filter(|linker| {
            Command::new(linker)
                .arg("--version")
                .output()
                .is_ok_and(|output| output.status.success())
        })
        .ok_or_else(|| format!("no working `{LINKER}`: run `cargo xtask setup`").into())
}

/// A program of the BPF toolchain; on a machine without rustup, of the only one.
fn command(program: &str, path: &OsString) -> Command {
    let mut command = if let Some(rustup) = find("rustup", path) {
        let mut command = Command::new(rustup);
        command.args(["run", TOOLCHAIN, program]);
        command
    } else {
        Command::new(program)
    };
    command.env("PATH", path);
    command
}

fn rustflags() -> Result<String> {
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let mut flags = vec![
        // The layout of a kernel's structures depends on the machine that the program runs on, and so does the
        // order in which it loads and stores.
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // 32-bit registers and comparisons: every kernel since 5.1 has them.
        "-Ctarget-cpu=v3".to_owned(),
        // A header's fields are read in one load each, wherever they stand. The kernels of machines
        // that need aligned loads would refuse the program; x86-64 and arm64 do not.
        "-Ctarget-feature=+allows-misaligned-mem-access".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    // What hides where the command was built hides it in the programs, too.
    let given = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let remaps = given.split('\x1f');
    flags.extend(
        remaps
            .filter(|flag| flag.starts_with("--remap-path-prefix="))
            .map(str::to_owned),
    );
    Ok(flags.join("\x1f"))
}

/// Cargo links every program to a file without an extension. Returns where the copies are.
fn copy_programs(from: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    let mut copies = Vec::new();
    for entry in from.read_dir()? {
        let program = entry?.path();
        let is_hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
        if let Some(name) = program.file_name()
            && program.is_file()
            && program.extension().is_none()
            && !is_hidden(name)
        {
            let copy = to.join(name);
            fs::copy(&program, &copy)?;
            copies.push(copy);
        }
    }
    Ok(copies)
}

/// `PATH` with the places where cargo installs programs at its end: a `PATH` that sudo or a
/// service has set may lack them.
fn search_path() -> Result<OsString> {
    let mut directories: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    let homes = [
        env::var_os("CARGO_HOME").map(PathBuf::from),
        env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")),
    ];
    for directory in homes.into_iter().flatten().map(|home| home.join("bin")) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    Ok(env::join_paths(directories)?)
}

fn find(program: &str, path: &OsString) -> Option<PathBuf> {
    env::split_paths(path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|err| format!("{name}: {err}").into())
}

fn say(directive: &str) {
    // Cargo reads this pipe until the script ends, so that a write fails only with cargo itself.
    let _ = writeln!(std::io::stdout(), "{directive}");
}
