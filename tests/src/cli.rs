//! The `portdemux` command, as a user runs it.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

mod stats;

pub use stats::{Count, Stats, Traffic};

use crate::{
    bpffs::Bpffs,
    lab::{INTERFACE, Lab},
    leftovers,
    netns::Netns,
    release::{Lacking, Release},
    run::{self, Output},
    wait::{PATIENCE, wait_until},
};

/// An instance of portdemux in a namespace, with a BPF file system and a state directory of its own.
///
/// On drop its interfaces are detached and everything it pinned is gone.
#[derive(Debug)]
pub struct Portdemux<'a> {
    namespace: &'a Netns,
    bpffs: Bpffs,
    state: TempDir,
    instance: String,
    release: Option<Release>,
    program: Option<PathBuf>,
    abi: u32,
}

impl<'a> Portdemux<'a> {
    /// The instance `default`, with nothing loaded.
    ///
    /// # Errors
    ///
    /// If the command cannot be built or bpffs not be mounted.
    pub fn new(namespace: &'a Netns) -> Result<Self> {
        binary()?;
        Ok(Self {
            namespace,
            bpffs: Bpffs::new()?,
            state: leftovers::directory("state")?,
            instance: "default".to_owned(),
            release: None,
            program: None,
            abi: portdemux_common::ABI,
        })
    }

    /// An instance on the client of a lab, which lets it receive what a program on the server sends back: one
    /// end of a pair is not woken for that unless it has a program of its own (Linux 6.18,
    /// `drivers/net/veth.c`, `veth_xdp_flush`).
    ///
    /// # Errors
    ///
    /// If the program cannot be attached.
    pub fn hearing_answers(lab: &'a Lab) -> Result<Self> {
        let portdemux = Self::new(&lab.client)?;
        portdemux.ok(&["attach", INTERFACE, "--mode", "native"])?;
        Ok(portdemux)
    }

    /// Where its BPF file system is mounted.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// Where it keeps what the kernel cannot.
    #[must_use]
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Where it looks for rules that are applied at boot; nothing is there.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.state().join("etc")
    }

    /// Where it keeps what was last in force from those.
    #[must_use]
    pub fn kept(&self) -> PathBuf {
        self.state().join("lib")
    }

    /// Says which instance later commands are for.
    pub fn set_instance(&mut self, name: &str) {
        name.clone_into(&mut self.instance);
    }

    /// Makes later commands those of another version, whose pins have this ABI.
    pub fn set_program(&mut self, program: &Path, abi: u32) {
        self.program = Some(program.to_owned());
        self.abi = abi;
    }

    /// The command that it runs.
    ///
    /// # Errors
    ///
    /// If it had to be built and could not be.
    pub fn program(&self) -> Result<&Path> {
        match &self.program {
            Some(program) => Ok(program),
            None => binary(),
        }
    }

    /// Makes the kernel say in later commands that it is of this version.
    ///
    /// # Errors
    ///
    /// If that cannot be compiled.
    pub fn pretend_kernel(&mut self, version: &str) -> Result<()> {
        self.release = Some(Release::pretend(version)?);
        Ok(())
    }

    /// Makes the kernel refuse something in later commands, as one that does not have it.
    ///
    /// # Errors
    ///
    /// If that cannot be compiled.
    pub fn pretend_lacking(&mut self, what: Lacking) -> Result<()> {
        self.release = Some(Release::lacking(what)?);
        Ok(())
    }

    /// Lets later commands meet the kernel as it is.
    pub fn pretend_nothing(&mut self) {
        self.release = None;
    }

    /// Lets later commands meet a kernel that seems another one.
    pub fn pretend(&mut self, release: Release) {
        self.release = Some(release);
    }

    /// The command with these arguments, for its instance and in its namespace.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        self.command_in(self.namespace, arguments)
    }

    /// The command with these arguments, for its instance and in another namespace.
    #[must_use]
    pub fn command_in<S: AsRef<OsStr>>(&self, namespace: &Netns, arguments: &[S]) -> Command {
        // Building it succeeded, or there would be no instance.
        let program = self.program().unwrap_or_else(|_| Path::new("portdemux"));
        self.complete(namespace.command(program), arguments)
    }

    /// The command with these arguments, started by other words: those of a program that gives
    /// privileges up, for example, and the path of the command itself.
    #[must_use]
    pub fn command_through<S: AsRef<OsStr>>(&self, words: &[S], arguments: &[S]) -> Command {
        let (program, rest) = words.split_first().map_or_else(
            || (OsStr::new("portdemux"), words),
            |(program, rest)| (program.as_ref(), rest),
        );
        let mut command = self.namespace.command(program);
        command.args(rest);
        self.complete(command, arguments)
    }

    fn complete<S: AsRef<OsStr>>(&self, mut command: Command, arguments: &[S]) -> Command {
        command
            .args(arguments)
            .args(["--instance", &self.instance])
            .env("PORTDEMUX_BPFFS", self.bpffs())
            .env("PORTDEMUX_STATE_DIR", self.state())
            .env("PORTDEMUX_CONFIG_DIR", self.config())
            .env("PORTDEMUX_KEPT_DIR", self.kept())
            .env_remove("PORTDEMUX_INSTANCE")
            .env("NO_COLOR", "1");
        if let Some(release) = &self.release {
            command.env("LD_PRELOAD", release.library());
        }
        command
    }

    /// The pins of its instance.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        let instance = self.bpffs().join("portdemux").join(&self.instance);
        instance.join(format!("abi{}", self.abi))
    }

    /// The names of its instance's records, finished or not.
    ///
    /// # Errors
    ///
    /// If they cannot be listed.
    pub fn records(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(self.state().join(&self.instance)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "lock" {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Runs the command to its end, whatever that is.
    ///
    /// # Errors
    ///
    /// If it does not start or does not end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Output> {
        run::run(self.command(arguments))
    }

    /// Runs the command, which has to succeed.
    ///
    /// # Errors
    ///
    /// With what it said, if it does not.
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Output> {
        self.run(arguments)?.success()
    }

    /// Runs the command, which has to fail with this exit code.
    ///
    /// # Errors
    ///
    /// With what it said, if it ends in another way.
    pub fn fails<S: AsRef<OsStr>>(&self, code: i32, arguments: &[S]) -> Result<Output> {
        let output = self.run(arguments)?;
        if output.code() != Some(code) {
            let Output {
                command,
                status,
                stdout,
                stderr,
            } = output;
            bail!("{command}: {status} instead of {code}\n{stdout}{stderr}");
        }
        Ok(output)
    }

    /// Runs a noun with `--json`, and returns its one document.
    ///
    /// # Errors
    ///
    /// With what it said, if it does not succeed or that is no JSON.
    pub fn json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Value> {
        let arguments: Vec<&OsStr> = arguments
            .iter()
            .map(AsRef::as_ref)
            .chain([OsStr::new("--json")])
            .collect();
        let output = self.ok(&arguments)?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("{} printed {}", output.command, output.stdout))
    }

    /// All counters.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        self.json(&["stats", "--all"]).map(Stats)
    }

    /// Writes a rules file and returns its path.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn rules_file(&self, text: &str) -> Result<PathBuf> {
        let path = self.state.path().join("rules-under-test.toml");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Writes a rules file and applies it.
    ///
    /// # Errors
    ///
    /// With what `apply` said, if it does not succeed.
    pub fn apply(&self, text: &str) -> Result<Output> {
        let path = self.rules_file(text)?;
        self.ok(&[OsStr::new("apply"), path.as_os_str()])
    }
}

impl Portdemux<'_> {
    /// Which process finds again what was gone, if one ever did.
    ///
    /// # Errors
    ///
    /// Its record says something else.
    pub fn follower(&self) -> Result<Option<Pid>> {
        let record = self.state().join(&self.instance).join("follower");
        let Ok(text) = fs::read_to_string(&record) else {
            return Ok(None);
        };
        let number = text.trim().strip_prefix("process ");
        let number = number.with_context(|| format!("{text:?} in {}", record.display()))?;
        Ok(Some(Pid::from_raw(number.parse()?)))
    }

    /// Kills that process, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// There is none, or it does not end.
    pub fn kill_follower(&self) -> Result<()> {
        kill(self.follower()?.context("no follower")?, Signal::SIGKILL)?;
        wait_until("the end of the follower", PATIENCE, || {
            Ok(self.json(&["status"])?["sockets"]["follower_runs"] == false)
        })
    }

    /// The processes that watch over changes that wait.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub fn guardians(&self) -> Result<Vec<Pid>> {
        let state = self.state().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some(id) = id else { continue };
            // It may have ended meanwhile.
            let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&str> = line.split('\0').collect();
            if words.contains(&"guard") && words.contains(&state.as_str()) {
                found.push(Pid::from_raw(id));
            }
        }
        Ok(found)
    }

    /// Waits until no such process is left.
    ///
    /// # Errors
    ///
    /// One does not end.
    pub fn wait_for_no_guardian(&self) -> Result<()> {
        wait_until("the end of the guardian", PATIENCE, || {
            Ok(self.guardians()?.is_empty())
        })
    }

    /// Kills them, and waits until they are gone.
    ///
    /// # Errors
    ///
    /// One does not end.
    pub fn kill_guardians(&self) -> Result<()> {
        for guardian in self.guardians()? {
            // It may have ended meanwhile.
            let _: nix::Result<()> = kill(guardian, Signal::SIGKILL);
        }
        self.wait_for_no_guardian()
    }
}

impl Drop for Portdemux<'_> {
    fn drop(&mut self) {
        // A test that detached everything, or never attached, is no failure; nor can one be
        // reported from here.
        let _: Result<Output> = self.run(&["detach", "--all"]);
    }
}

/// Where the command is.
///
/// # Errors
///
/// If it had to be built and could not be.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| match env::var_os("PORTDEMUX_BIN") {
            Some(path) => Ok(PathBuf::from(path)),
            None => build("portdemux", &[]).map_err(|err| format!("{err:#}")),
        })
        .as_deref()
        .map_err(|err| anyhow!("{err}"))
}

/// Where the example is that takes raw frames.
///
/// # Errors
///
/// If it had to be built and could not be.
pub fn xsk_echo() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| build("xsk-echo", &[]).map_err(|err| format!("{err:#}")))
        .as_deref()
        .map_err(|err| anyhow!("{err}"))
}

/// Where the example is that has portdemux as a library.
///
/// # Errors
///
/// If it had to be built and could not be.
pub fn embed() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| build("embed", &[]).map_err(|err| format!("{err:#}")))
        .as_deref()
        .map_err(|err| anyhow!("{err}"))
}

/// Builds a program of this workspace, with some more options of cargo.
pub(crate) fn build(program: &str, options: &[&str]) -> Result<PathBuf> {
    // A test is TARGET/PROFILE/deps/NAME, a program TARGET/PROFILE/NAME.
    let this = env::current_exe()?;
    let target = this
        .ancestors()
        .skip(1)
        .find(|directory| !directory.ends_with("deps"))
        .and_then(Path::parent)
        .context("find the target directory")?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            // As everything else is built, or the features of dependencies differ.
            "--workspace",
            "--exclude",
            "portdemux-ebpf",
            "--bin",
            program,
            "--target-dir",
        ])
        .arg(target)
        .args(options)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().context("start cargo")?;
    if !output.status.success() {
        bail!(
            "build {program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(target.join("release").join(program))
}
