//! The process that finds again what was gone: sockets, interfaces, and what stands on interfaces.
//!
//! Of a TCP socket that begins to listen a program in the kernel hears by itself. Of UDP sockets, and where
//! control groups of version 2 are missing, nothing says that a process was started anew: this process
//! looks. Of interfaces the kernel tells this process: one that rules name gets its packets back when it is
//! made anew, and socket lookups are told of VLANs on attached interfaces. Nothing depends on it but how soon
//! that is, and it ends when nothing needs it.

use std::{
    fs::File,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use portdemux_common::{ids::Generation, wire::Transport};

use crate::{
    background::{self, Need, follower},
    bounded, change,
    dataplane::{
        destinations,
        steering::{self, joining},
    },
    error::Advice,
    instance::{Instance, InstancePaths, Lock, is_named},
    interface::{self, Changes},
    maps::{Maps, destinations::is_any_stale, mapped::catching, trusted::is_there},
    rules::{
        Ruleset,
        destination::{ListenAddress, SocketName},
    },
};

/// How often it looks for a socket that is not there.
const MISSING: Duration = Duration::from_millis(100);
/// How often it looks at the rules where they name none.
const RULES: Duration = Duration::from_secs(1);
/// How often it looks at everything, whether anything was heard of it or not.
const EVERYTHING: Duration = Duration::from_secs(2);
/// How long it tries to be the only one, and how long it stays at least.
const PATIENCE: Duration = Duration::from_secs(1);

/// Follows what rules name until nothing needs it.
///
/// # Errors
///
/// Another one runs, or nothing is loaded.
pub fn run(paths: &InstancePaths, in_background: bool) -> Result<()> {
    Instance::open(paths)?;
    if in_background {
        background::stand_alone(c"portdemux-follow")?;
    }
    let mut right = only_one(paths)?;
    if in_background {
        background::say_ready()?;
    } else if right.is_none() {
        return Err(another_runs(paths));
    }
    // Where there is none, another one looks.
    while let Some(held) = right {
        follow(paths, &held);
        if !held.is_valid() {
            // Of its instance, or of its version. Whoever made another one has started who follows that.
            break;
        }
        drop(held);
        // Whoever changed the rules just before saw that it ran and has started no other.
        right = again(paths);
    }
    if !paths.exists()? && is_there(&paths.records())? {
        remove_records(&paths.lock()?)?;
    }
    Ok(())
}

/// The right to be the follower of an instance. It ends with the process, however that ends.
struct Right {
    file: File,
    path: PathBuf,
}

impl Right {
    /// Whether it is one for the instance that there is, and not for one of the same name that was removed.
    fn is_valid(&self) -> bool {
        is_named(&self.file, &self.path)
    }
}

/// Takes the right; none if another process has it.
fn only_one(paths: &InstancePaths) -> Result<Option<Right>> {
    let path = follower::lock_path(paths);
    let begun = Instant::now();
    loop {
        match paths.try_lock(follower::LOCK)? {
            Some(file) => return Ok(Some(Right { file, path })),
            // Whoever only asks has it for a moment.
            None if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
            None => return Ok(None),
        }
    }
}

/// Takes the right once more if something needs it; what fails is tried again for as long as it does.
fn again(paths: &InstancePaths) -> Option<Right> {
    let is_needed = || -> Result<bool> {
        let instance = Instance::open(paths)?;
        let in_force = change::in_force(&instance)?;
        Ok(!Need::of(&instance, &in_force.ruleset).is_none())
    };
    // Where that cannot be seen, an instance that is there may need it.
    while catching(is_needed)
        .or_else(|_| paths.exists())
        .unwrap_or(true)
    {
        match only_one(paths) {
            Ok(right) => return right,
            Err(_) => thread::sleep(RULES),
        }
    }
    None
}

fn another_runs(paths: &InstancePaths) -> anyhow::Error {
    let holder = bounded::kept(&follower::lock_path(paths)).unwrap_or_default();
    let error = anyhow::anyhow!(
        "another portdemux follow ({}) runs for instance {}",
        holder.trim(),
        paths.instance
    );
    error.context(Advice("one is enough".into()))
}

fn follow(paths: &InstancePaths, right: &Right) {
    let changes = Changes::listen();
    let mut known: Option<(Generation, Ruleset)> = None;
    // When it looked at everything, and whether an interface changed since.
    let (mut looked, mut is_changed): (Option<Instant>, bool) = (None, true);
    // A change that goes on when this begins may not be in force yet.
    let begun = Instant::now();
    let mut round = || -> Result<bool> {
        let mut pause = MISSING;
        let instance = Instance::open(paths)?;
        let generation = instance.maps.generation();
        if known.as_ref().is_none_or(|(known, _)| *known != generation)
            && let Ok(in_force) = change::in_force(&instance)
        {
            known = Some((generation, in_force.ruleset));
            looked = None;
        }
        if let Some((_, ruleset)) = &known {
            let need = Need::of(&instance, ruleset);
            if need.is_none() && begun.elapsed() > PATIENCE {
                return Ok(false);
            }
            if !need.is_none() && !need.finds_sockets() {
                pause = RULES;
            }
            let is_time = looked.is_none_or(|looked| looked.elapsed() > EVERYTHING);
            if is_time || is_changed {
                // What fails is tried again in time.
                let _: Result<()> = tend_interfaces(&instance, &need);
                is_changed = false;
            }
            if is_time || is_any_missing(&instance.maps, &need) {
                look(paths, generation, &need);
            }
            if is_time {
                looked = Some(Instant::now());
            }
        }
        drop(instance);
        is_changed |= changes.wait(pause);
        Ok(true)
    };
    while paths.exists().unwrap_or(true) && right.is_valid() {
        match catching(&mut round) {
            Ok(true) => {}
            Ok(false) => break,
            // What cannot be looked at now is looked at again.
            Err(_) => thread::sleep(MISSING),
        }
    }
}

/// Makes interfaces that have returned destinations again, and tells socket lookups of those that stand on
/// attached ones.
fn tend_interfaces(instance: &Instance, need: &Need) -> Result<()> {
    let is_any_back = need.interfaces && is_any_stale(&instance.maps)?;
    let is_stale = need.guarded && !steering::is_guard_current(instance)?;
    if !is_any_back && !is_stale {
        return Ok(());
    }
    let lock = instance.paths.lock()?;
    if !instance.paths.exists()? {
        return remove_records(&lock);
    }
    let writer = lock.open()?;
    if is_any_back {
        destinations::reconcile(&writer)?;
    }
    if is_stale {
        steering::guard(&writer)?;
    }
    Ok(())
}

/// Taking a lock of an instance that was just removed has made its directory again.
fn remove_records(lock: &Lock) -> Result<()> {
    if lock.paths.exists()? {
        return Ok(());
    }
    lock.remove()
}

fn is_any_missing(maps: &Maps, need: &Need) -> bool {
    need.sockets.iter().any(|(address, transports)| {
        let group = maps.steering.find(&SocketName::Address(*address));
        let members = group.map(|group| maps.steering.members(group));
        let members = members.unwrap_or_default();
        let is_missing =
            |transport: &Transport| members.iter().all(|member| member.transport != *transport);
        transports.iter().any(is_missing)
    })
}

/// Looks for sockets at all addresses that are wanted, and makes those that are there members.
///
/// Whoever changes something meanwhile looks himself, and is waited for.
fn look(paths: &InstancePaths, generation: Generation, need: &Need) {
    let groups = |maps: &Maps| -> Vec<(u32, ListenAddress)> {
        let wanted = need.sockets.iter().map(|&(address, _)| address);
        wanted
            .filter_map(|address| {
                Some((maps.steering.find(&SocketName::Address(address))?, address))
            })
            .collect()
    };
    let is_any_new = || -> Result<bool> {
        let instance = Instance::open(paths)?;
        for (group, address) in groups(&instance.maps) {
            if joining::is_any_new(&instance.maps.steering, group, address)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let take_all = || -> Result<()> {
        let lock = paths.lock()?;
        if !paths.exists()? {
            return remove_records(&lock);
        }
        let writer = lock.open()?;
        if writer.maps.generation() != generation
            || writer.maps.steering.netns().1 != interface::namespace()?
        {
            return Ok(());
        }
        for (group, address) in groups(&writer.maps) {
            joining::all_at(&writer.maps.steering, group, address)?;
        }
        Ok(())
    };
    if is_any_new().unwrap_or(false) {
        // What fails is tried again.
        let _: Result<()> = take_all();
    }
}
