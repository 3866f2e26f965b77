//! The process that undoes a change which nobody confirms.
//!
//! It is started before the change is made, belongs to no terminal and no session, and outlives the
//! command that started it. It ends as soon as there is nothing to undo: because the change was
//! confirmed, followed by another, never made, or because the instance is gone.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    background, bounded,
    instance::InstancePaths,
    maps::mapped::catching,
    unconfirmed::{self, Status, Tries, UnconfirmedChange, clock},
};

/// How often it looks whether there is still something to undo.
const STEP: Duration = Duration::from_millis(200);

/// How long it waits before it tries again what failed, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Waits and, if it comes to that, undoes the change. What fails is tried again, after growing pauses.
///
/// # Errors
///
/// It cannot stand by itself, or not see what waits.
pub fn run(paths: &InstancePaths) -> Result<()> {
    background::stand_alone(c"portdemux-guard")?;
    let path = unconfirmed::path(paths);
    let file = match bounded::regular(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.with_context(|| format!("open {}", path.display()))?,
    };
    // Held for as long as this process lives: by it others see that it does.
    file.lock().context("lock the record of the change")?;
    let watched = Identity::from(&file.metadata()?);
    background::say_ready()?;
    let mut tries = Tries::default();
    let mut pause = PAUSE.0;
    loop {
        let end = match catching(|| act(paths, watched)) {
            Ok(None) => return Ok(()),
            Ok(Some(deadline)) => deadline,
            Err(error) => {
                tries.count = tries.count.saturating_add(1);
                tries.error = format!("{error:#}");
                // Who asks for the status is told; without that it is tried all the same.
                let _: io::Result<()> = tries.write(paths);
                let end = clock::now() + pause;
                pause = (pause * 2).min(PAUSE.1);
                end
            }
        };
        wait(paths, watched, end);
    }
}

/// Looks how it stands with the change, and undoes it if its time is over. Returns when to look again.
///
/// While the change is being made, this waits for the lock.
fn act(paths: &InstancePaths, watched: Identity) -> Result<Option<Duration>> {
    let lock = paths.lock()?;
    if !paths.exists()? && !paths.is_in_trash()? {
        // The instance was removed just now, and taking the lock has made its directory again.
        lock.remove()?;
        return Ok(None);
    }
    if Identity::of(paths)? != Some(watched) {
        return Ok(None);
    }
    let writer = lock.open()?;
    let Some(waiting) = UnconfirmedChange::read(paths)? else {
        return Ok(None);
    };
    if let Status::Waiting(_) = waiting.status(&writer.maps) {
        return Ok(Some(waiting.deadline));
    }
    super::settle(&writer)?;
    Ok(None)
}

/// Waits until a time, or until something else waits or nothing does.
fn wait(paths: &InstancePaths, watched: Identity, end: Duration) {
    // What cannot be seen is still there.
    while Identity::of(paths).map_or(true, |now| now == Some(watched)) {
        let left = end.saturating_sub(clock::now());
        if left.is_zero() {
            break;
        }
        // In steps, as a sleep does not go on while the machine sleeps.
        thread::sleep(left.min(STEP));
    }
}

/// What tells a file from another that has its name later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Identity {
    /// That of what waits in an instance, if something does.
    fn of(paths: &InstancePaths) -> Result<Option<Self>> {
        let path = unconfirmed::path(paths);
        match fs::metadata(&path) {
            Ok(file) => Ok(Some(Self::from(&file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
        }
    }
}

impl From<&Metadata> for Identity {
    fn from(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            seconds: file.mtime(),
            nanoseconds: file.mtime_nsec(),
        }
    }
}
