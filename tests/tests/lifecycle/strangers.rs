//! What other users of the machine can do about an instance: nothing.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    probe::Probe,
    require::{self, Need},
    run::{self, Running},
    wait::{PATIENCE, wait_until},
};

use crate::bed::{self, Rules};

/// `nobody` on every distribution.
const NOBODY: u32 = 65534;

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::symlink_metadata(path)?.permissions().mode() & 0o7777)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("change the mode of {}", path.display()))
}

fn give_away(path: &Path) -> Result<()> {
    chown(path, Some(NOBODY), Some(NOBODY)).with_context(|| format!("chown {}", path.display()))
}

/// A program run as another user.
fn as_nobody(words: &[&str]) -> std::process::Command {
    let user = NOBODY.to_string();
    let mut command = std::process::Command::new("setpriv");
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(words);
    command
}

/// Fails unless nobody but root may do anything with the records.
fn are_private(portdemux: &Portdemux) -> Result<()> {
    let records = portdemux.state().join("default");
    ensure!(mode(&records)? == 0o700, "{:o}", mode(&records)?);
    let mut seen = 0;
    for entry in fs::read_dir(&records)? {
        let path = entry?.path();
        ensure!(
            mode(&path)? == 0o600,
            "{}: {:o}",
            path.display(),
            mode(&path)?
        );
        ensure!(fs::symlink_metadata(&path)?.uid() == 0);
        seen += 1;
    }
    ensure!(seen > 1, "{seen} records");
    Ok(())
}

#[test]
fn locks_and_records_are_for_their_user_alone() -> Result<()> {
    if !require::have(&[require::WIRE, &[Need::Tool("setpriv"), Need::Tool("flock")]].concat()) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    set_mode(portdemux.state(), 0o755)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    portdemux.ok(&["add", "9/sctp", "--name", "trial", "--confirm", "1h"])?;
    are_private(&portdemux)?;
    let lock = portdemux.state().join("default/lock");
    let words = ["flock", "--nonblock", &lock.display().to_string(), "true"].map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = run::run(as_nobody(&words))?;
    ensure!(output.code() != Some(0), "another user has locked it");
    ensure!(
        output.stderr.contains("Permission denied"),
        "{}",
        output.stderr
    );
    portdemux.ok(&["confirm", "--undo"])?;
    bed::holds(&lab, &portdemux, &probe, Rules::Old)
}

#[test]
fn a_lock_that_another_user_holds_since_an_older_binary_made_it_is_made_anew() -> Result<()> {
    if !require::have(&[require::WIRE, &[Need::Tool("setpriv"), Need::Tool("flock")]].concat()) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    set_mode(portdemux.state(), 0o755)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    let records = portdemux.state().join("default");
    let lock = records.join("lock");
    set_mode(&records, 0o755)?;
    for entry in fs::read_dir(&records)? {
        set_mode(&entry?.path(), 0o644)?;
    }
    let path = lock.display().to_string();
    let _holder = Running::spawn(as_nobody(&["flock", &path, "sleep", "1000"]))?;
    wait_until("the lock to be held", PATIENCE, || {
        let lock = Flock::lock(fs::File::open(&lock)?, FlockArg::LockExclusiveNonblock);
        Ok(lock.is_err())
    })?;
    Rules::New.apply(&portdemux)?;
    are_private(&portdemux)?;
    Ok(())
}

fn remove_empty(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Something that must not be touched, in a directory that is not the instance's.
struct Elsewhere(tempfile::TempDir);

impl Elsewhere {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        for below in ["default", "default/abi5", "portdemux", "portdemux/default"] {
            fs::create_dir_all(directory.path().join(below))?;
        }
        fs::write(directory.path().join("default/precious"), "")?;
        fs::write(directory.path().join("portdemux/default/precious"), "")?;
        Ok(Self(directory))
    }

    fn is_whole(&self) -> bool {
        ["default", "portdemux/default"]
            .iter()
            .all(|below| self.0.path().join(below).join("precious").exists())
    }
}

#[test]
fn what_another_user_planted_is_refused_and_nothing_is_done_in_it() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let (bpffs, state) = (portdemux.bpffs().to_owned(), portdemux.state().to_owned());
    set_mode(&bpffs, 0o1777)?;
    set_mode(&state, 0o1777)?;
    let elsewhere = Elsewhere::new()?;
    let refused = |said: &str| -> Result<()> {
        for command in [
            &["attach", INTERFACE][..],
            &["detach", "--all"],
            &["apply", "/dev/null"],
            &["status"],
        ] {
            let output = portdemux.run(command)?;
            // Where it would be loaded there may be nothing for a noun to read.
            let is_absent = output.code() == Some(3) && command != ["attach", INTERFACE];
            ensure!(
                is_absent || output.code() == Some(1) && output.stderr.contains(said),
                "{command:?} without {said}: {}",
                output.stderr
            );
            ensure!(elsewhere.is_whole(), "{command:?} went elsewhere");
        }
        ensure!(
            bed::program_on(&lab, INTERFACE)?.is_none(),
            "{said}: attached"
        );
        Ok(())
    };

    let planted = [
        (bpffs.join("portdemux"), "portdemux"),
        (state.join("default"), "default"),
    ];
    for (path, there) in &planted {
        fs::create_dir(path)?;
        give_away(path)?;
        refused("belongs to user 65534").with_context(|| path.display().to_string())?;
        ensure!(
            fs::read_dir(path)?.next().is_none(),
            "something was made in what is another's"
        );
        fs::remove_dir(path)?;

        symlink(elsewhere.0.path().join(there), path)?;
        refused("is a symbolic link").with_context(|| path.display().to_string())?;
        fs::remove_file(path)?;
        // What the refused ones made before they came to it.
        remove_empty(&bpffs.join("portdemux"))?;
    }
    for open in [&bpffs, &state] {
        set_mode(open, 0o777)?;
        refused("can be changed by other users")?;
        set_mode(open, 0o1777)?;
    }
    // Where they may plant something and have not, nothing is amiss.
    remove_empty(&bpffs.join("portdemux"))?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    are_private(&portdemux)
}

#[test]
fn a_link_in_an_instance_is_removed_and_not_followed() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    let elsewhere = Elsewhere::new()?;
    symlink(elsewhere.0.path(), portdemux.pins().join("strange"))?;
    symlink(
        elsewhere.0.path(),
        portdemux.state().join("default/strange"),
    )?;
    portdemux.ok(&["detach", "--all"])?;
    ensure!(elsewhere.is_whole(), "a link was followed");
    // Where the instance itself should be, likewise.
    symlink(
        elsewhere.0.path().join("default"),
        portdemux.bpffs().join("portdemux/default"),
    )?;
    let said = portdemux.fails(1, &["status"])?.stderr;
    ensure!(said.contains("is a symbolic link"), "{said}");
    portdemux.ok(&["detach", "--all"])?;
    ensure!(elsewhere.is_whole(), "a link was followed");
    ensure!(!portdemux.state().join("default").exists());
    ensure!(
        fs::read_dir(portdemux.bpffs().join("portdemux"))?
            .next()
            .is_none()
    );
    Ok(())
}
