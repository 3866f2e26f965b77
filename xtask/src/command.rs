//! Running other programs.

pub(crate) use std::process::{Child, Command, Stdio};
use std::{
    env,
    ffi::OsStr,
    fs,
    io::IsTerminal as _,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{repository, say};

/// Everything that is built for this machine, for release.
///
/// Every chore selects it as a whole and then, if it likes, some targets of it. Cargo unites the features that
/// the selected packages ask of others: with another selection it would build most of them once more, and the
/// BPF programs with them.
pub(crate) const BUILT: [&str; 4] = ["--release", "--workspace", "--exclude", "portdemux-ebpf"];

/// The options that make cargo run what it has built as root.
const RUN_AS_ROOT: [&str; 2] = ["--config", r#"target."cfg(all())".runner=["sudo","-E"]"#];

/// The cargo that runs this program, in the repository.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository::root()).arg(subcommand);
    cargo
}

/// As [`cargo`], for a subcommand that runs what it builds, as root.
///
/// # Errors
///
/// If this user is not root and there is no sudo.
pub(crate) fn cargo_as_root(subcommand: &str) -> Result<Command> {
    let mut cargo = cargo(subcommand);
    if !is_root()? {
        if find("sudo").is_none() {
            bail!("this needs root: run it as root, or install sudo");
        }
        cargo.args(RUN_AS_ROOT);
    }
    Ok(cargo)
}

/// A program that cargo has built, as root and with this process's environment.
///
/// # Errors
///
/// If this user is not root and there is no sudo.
pub(crate) fn built_as_root(program: &Path) -> Result<Command> {
    if is_root()? {
        return Ok(Command::new(program));
    }
    let mut sudo = as_root("-E")?;
    sudo.arg(program);
    Ok(sudo)
}

/// A command that runs as root, through sudo if need be.
///
/// # Errors
///
/// If this user is not root and there is no sudo.
pub(crate) fn as_root(program: &str) -> Result<Command> {
    if is_root()? {
        return Ok(Command::new(program));
    }
    if find("sudo").is_none() {
        bail!("`{program}` needs root: run this as root, or install sudo");
    }
    let mut sudo = Command::new("sudo");
    if !std::io::stdin().is_terminal() {
        // Nobody is there to type a password.
        sudo.arg("-n");
    }
    sudo.arg(program);
    Ok(sudo)
}

/// Says whether this process runs as root.
pub(crate) fn is_root() -> Result<bool> {
    // The owner of a process's directory is its effective user.
    let process = fs::metadata("/proc/self").context("read /proc/self")?;
    Ok(process.uid() == 0)
}

/// Shows a command and runs it.
///
/// # Errors
///
/// If it cannot be started or fails; its own output has said why.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = text(command);
    say::progress(format_args!("$ {text}"));
    let status = command
        .status()
        .with_context(|| format!("start `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed ({status})");
    }
    Ok(())
}

/// Shows a command and starts it.
///
/// # Errors
///
/// If it cannot be started.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    let text = text(command);
    say::progress(format_args!("$ {text}"));
    command.spawn().with_context(|| format!("start `{text}`"))
}

/// Shows a command and becomes it, so that signals and the exit status are its own.
///
/// # Errors
///
/// If it cannot be started.
pub(crate) fn become_it(command: &mut Command) -> Result<()> {
    let text = text(command);
    say::progress(format_args!("$ {text}"));
    let err = command.exec();
    Err(anyhow!(err).context(format!("start `{text}`")))
}

/// Runs a command without showing it and returns its standard output.
///
/// # Errors
///
/// If it cannot be started or fails; the error holds the last line of what it complained about.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let text = text(command);
    let output = command
        .output()
        .with_context(|| format!("start `{text}`"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        match complaint.lines().rfind(|line| !line.trim().is_empty()) {
            Some(complaint) => bail!("`{text}` failed: {}", complaint.trim()),
            None => bail!("`{text}` failed ({})", output.status),
        }
    }
    String::from_utf8(output.stdout).with_context(|| format!("read what `{text}` says"))
}

/// Finds a program in `PATH`, where cargo installs programs, and where root has them.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Where cargo keeps what it installs.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        env::var_os("HOME").map(|home| {
            let mut home = PathBuf::from(home);
            home.push(".cargo");
            home
        })
    })
}

fn text(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let quoted = |word: &OsStr| {
        let word = word.to_string_lossy();
        if word.contains('\n') {
            "'…'".to_owned()
        } else if word.is_empty()
            || word.contains(|c: char| c.is_whitespace() || "\"'$;*".contains(c))
        {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    };
    std::iter::once(name)
        .chain(command.get_args())
        .map(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}
