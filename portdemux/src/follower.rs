//! The process that finds sockets again which the kernel does not tell of.
//!
//! Of a TCP socket that begins to listen a program in the kernel hears by itself. Of UDP sockets, and where
//! control groups of version 2 are missing, nothing says that a process was started anew: this process
//! looks. Nothing depends on it but how soon a new socket is found, and it ends when nothing needs it. While it
//! runs it also gives packets back to interfaces that were gone and have returned.

use std::{
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use portdemux_common::{state::Generation, wire::Transport};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{
    background, change,
    dataplane::{
        destinations::{self, State},
        maps::Maps,
        pins::{Lock, Places},
        steering::{self, Followed},
    },
    error::Help as _,
    interface,
    rules::{Destination, Ruleset, destination::SocketName},
    sockets::take,
};

/// The verb that one is started with.
pub const VERB: &str = "follow";
/// What is added to that where nobody waits for it to end.
pub const IN_BACKGROUND: &str = "--background";

/// How often it looks for a socket that is not there.
const MISSING: Duration = Duration::from_millis(100);
/// How often it looks whether others have joined those that are.
const JOINING: Duration = Duration::from_secs(2);
/// How long it tries to be the only one.
const PATIENCE: Duration = Duration::from_secs(1);

/// What it looks for: an address and the protocols whose sockets listen there.
type Wanted = Vec<(SocketAddr, Vec<Transport>)>;

/// What of a ruleset only a follower finds again.
#[must_use]
pub fn wanted(ruleset: &Ruleset, followed: Followed) -> Wanted {
    let mut wanted = Wanted::new();
    for rule in ruleset.rules() {
        let Destination::Socket(SocketName::Address(address)) = rule.to else {
            continue;
        };
        let is_needed = |transport: Transport| match transport {
            Transport::Tcp => followed == Followed::No,
            Transport::Udp => true,
            Transport::Sctp => false,
        };
        let mut transports: Vec<Transport> = rule
            .ports
            .iter()
            .map(|range| range.transport)
            .filter(|&transport| is_needed(transport))
            .collect();
        transports.sort_unstable();
        transports.dedup();
        if !transports.is_empty() {
            wanted.push((address, transports));
        }
    }
    wanted
}

/// Starts a follower in the background if a ruleset needs one and none runs.
///
/// # Errors
///
/// It does not start.
pub fn start_if_needed(places: &Places, ruleset: &Ruleset) -> Result<()> {
    if wanted(ruleset, steering::followed(places)).is_empty() || is_running(places) {
        return Ok(());
    }
    background::start(places, &[VERB, IN_BACKGROUND])
        .context("start the process that follows sockets")
}

/// Whether one runs for an instance.
#[must_use]
pub fn is_running(places: &Places) -> bool {
    let Ok(file) = File::open(lock_path(places)) else {
        return false;
    };
    // It holds the lock as long as it lives; nobody else keeps it.
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

/// Follows sockets until nothing needs it.
///
/// # Errors
///
/// Another one runs, or nothing is loaded.
pub fn run(places: &Places, in_background: bool) -> Result<()> {
    let maps = places.open()?;
    drop(maps);
    if in_background {
        background::stand_alone(c"portdemux-follow")?;
    }
    let lock = only_one(places);
    if in_background {
        background::say_ready();
        if lock.is_err() {
            return Ok(());
        }
    }
    let _lock = lock?;
    follow(places);
    Ok(())
}

fn lock_path(places: &Places) -> PathBuf {
    places.records().join("follower")
}

/// Takes the right to be the follower of an instance. It ends with the process, however that ends.
fn only_one(places: &Places) -> Result<File> {
    let path = lock_path(places);
    fs::create_dir_all(places.records())?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let begun = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            // Whoever only asks has it for a moment.
            Err(Errno::WOULDBLOCK) if begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(anyhow::anyhow!(
                    "another process follows the sockets of instance {} already",
                    places.instance
                ))
                .help(|| "one is enough".into());
            }
            Err(error) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}

fn follow(places: &Places) {
    let mut seen = None;
    let mut wanted = Wanted::new();
    let mut has_interfaces = false;
    let mut looked: Option<Instant> = None;
    // A change that goes on when this begins may not be in force yet.
    let begun = Instant::now();
    while places.exists() {
        let Ok(maps) = places.open() else {
            thread::sleep(MISSING);
            continue;
        };
        let generation = maps.generation();
        if seen != Some(generation)
            && let Ok(in_force) = change::in_force(places, &maps)
        {
            wanted = self::wanted(&in_force.ruleset, steering::followed(places));
            let mut rules = in_force.ruleset.rules().iter();
            has_interfaces = rules.any(|rule| matches!(rule.to, Destination::Interface(_)));
            seen = Some(generation);
            looked = None;
        }
        if wanted.is_empty() && !has_interfaces && seen.is_some() && begun.elapsed() > PATIENCE {
            break;
        }
        let is_time = looked.is_none_or(|looked| looked.elapsed() > JOINING);
        if is_time && has_interfaces {
            // What fails is tried again.
            let _: Result<()> = give_back_interfaces(places, &maps);
        }
        if is_time || is_any_missing(&maps, &wanted) {
            look(places, generation, &wanted);
            if is_time {
                looked = Some(Instant::now());
            }
        }
        thread::sleep(MISSING);
    }
}

/// Makes interfaces that have returned destinations again.
fn give_back_interfaces(places: &Places, maps: &Maps) -> Result<()> {
    let states = destinations::states(maps)?;
    if states.iter().any(|(_, state)| *state == State::Returned) && places.exists() {
        let lock = places.lock()?;
        if !places.exists() {
            return places.remove(&lock);
        }
        destinations::reconcile(maps, &lock)?;
    }
    Ok(())
}

fn is_any_missing(maps: &Maps, wanted: &Wanted) -> bool {
    wanted.iter().any(|(address, transports)| {
        let group = maps.steering.find(&SocketName::Address(*address));
        let members = group.map(|group| maps.steering.members(group));
        let members = members.unwrap_or_default();
        transports
            .iter()
            .any(|transport| members.iter().all(|member| member.transport != *transport))
    })
}

/// Looks for sockets at all addresses that are wanted, and makes those that are there members.
///
/// Whoever changes something meanwhile looks himself, and is waited for.
fn look(places: &Places, generation: Generation, wanted: &Wanted) {
    let find = |_lock: &Lock| -> Result<()> {
        let maps = places.open()?;
        if maps.generation() != generation || maps.steering.netns().1 != interface::namespace()? {
            return Ok(());
        }
        for (address, _) in wanted {
            if let Some(group) = maps.steering.find(&SocketName::Address(*address)) {
                take::all_at(&maps.steering, group, *address)?;
            }
        }
        Ok(())
    };
    let is_any_new = || -> Result<bool> {
        let maps = places.open()?;
        for (address, _) in wanted {
            if let Some(group) = maps.steering.find(&SocketName::Address(*address))
                && take::is_any_new(&maps.steering, group, *address)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    };
    if !is_any_new().unwrap_or(false) {
        return;
    }
    // What fails is tried again.
    let _: Result<()> = places.lock().and_then(|lock| {
        if !places.exists() {
            // Taking the lock of an instance that was just removed has made its directory again.
            return places.remove(&lock);
        }
        find(&lock)
    });
}
