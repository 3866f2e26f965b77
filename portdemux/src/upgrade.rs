//! An instance that an older version made becomes one of this version, under traffic.
//!
//! [`takeover`] says in which order maps and programs change; here is what an instance has besides: the text of its
//! rules, a change that waits for its confirmation, and the processes that wait for it and follow sockets.

use anyhow::{Context as _, Result};
use portdemux_common::{
    ABI,
    ids::{Generation, RuleId},
};

use crate::{
    background::follower,
    change::{self, WrittenRules},
    dataplane::{
        takeover::{self, Continued},
        tracking::{self, UNRESUMED},
    },
    error::Help as _,
    image,
    instance::{AbiDirectory, Lock, Writer, pinned},
    maps::{Maps, mapped::catching},
    unconfirmed,
};

/// What became of an instance.
#[derive(Debug)]
pub struct Upgraded {
    /// The ABI that it had.
    pub from: u32,
    /// The generation in force, before as after.
    pub generation: Generation,
    /// How many rules it has.
    pub rules: usize,
    /// How many interfaces run this binary's programs.
    pub interfaces: usize,
    /// Why the text of the ruleset had to be rebuilt from the kernel, if it had to be.
    pub lost: Option<String>,
    /// What happens more slowly than it should, and what to do about it.
    pub warnings: Vec<(String, String)>,
}

/// Makes an instance one of this binary: takes it over if an older one made it, finishes that if it was begun, and
/// else gives it this binary's programs. None if there is no such instance.
///
/// # Errors
///
/// A newer version made it, or the kernel refuses; then the instance goes on as it was, or the next attempt
/// finishes what this one began.
pub fn upgrade(lock: &Lock) -> Result<Option<Upgraded>> {
    let found = lock.paths.as_found()?;
    let own = lock.own();
    let (from, lost) = match found.directory {
        AbiDirectory::Older(abi) => (abi, begin(&lock.clone().found(), abi)?),
        AbiDirectory::Own | AbiDirectory::Staged => (ABI, None),
    };
    let from = finish(lock)?.unwrap_or(from);
    if !own.paths.exists()? {
        return Ok(None);
    }
    let writer = own.open()?;
    let resumed = catching(|| tracking::resume(&writer));
    if from == ABI {
        takeover::renew(&writer)?;
    }
    let mut warnings = replace_processes(&writer)?;
    if let Err(error) = resumed {
        let help = "the next change tries it again".into();
        warnings.push((format!("{UNRESUMED}: {error:#}"), help));
    }
    let in_force = change::in_force(&writer)?;
    Ok(Some(Upgraded {
        from,
        generation: in_force.generation,
        rules: in_force.ruleset.rules().len(),
        interfaces: pinned::pinned(&own.paths)?.len(),
        lost,
        warnings,
    }))
}

/// Does what is left of an upgrade that was begun, if one was; says of which ABI the instance was.
///
/// # Errors
///
/// The kernel refuses; the next attempt goes on.
pub fn finish(lock: &Lock) -> Result<Option<u32>> {
    let begun = takeover::begun(&lock.paths).context("look whether an upgrade was begun")?;
    let Some(begun) = begun else {
        return Ok(None);
    };
    takeover::finish(lock, &begun)
        .context("finish the upgrade of the instance")
        .help(|| {
            format!(
                "every packet is decided about meanwhile; {} upgrade goes on",
                lock.paths.command()
            )
        })?;
    Ok(Some(begun.abi))
}

/// Makes the newer instance and puts it in the older one's place. Returns why the text of the rules was lost, if it
/// was.
fn begin(lock: &Lock, abi: u32) -> Result<Option<String>> {
    let older = lock.open()?;
    let WrittenRules { in_force, .. } = change::written(&older)?;
    let ruleset = continued(&older.maps, &in_force)
        .context("compile the rules in force")
        .help(|| {
            "the instance goes on as it was; the version that made it can change the rules".into()
        })?;
    let staged = takeover::stage(&older, ruleset.as_ref())
        .context("make an instance of this version")
        .help(|| "the instance goes on as it was".into())?;
    takeover::publish(lock, abi, staged)?;
    Ok(in_force.lost)
}

/// The ruleset in force as this binary compiles it; none if there are no rules.
fn continued(maps: &Maps, in_force: &change::InForce) -> Result<Option<Continued>> {
    if in_force.generation.0 == 0 {
        return Ok(None);
    }
    let ruleset = &in_force.ruleset;
    let names: Vec<&str> = ruleset.rules().iter().map(|rule| &*rule.name).collect();
    let compile = |ids: &[RuleId]| image::compile(ruleset, ids);
    let hash = maps.header().text_hash;
    Ok(Some(Continued {
        prepared: maps.prepare(&names, hash, compile)?,
        changes: in_force.changes.len() as u64,
    }))
}

/// Starts this binary's processes in the place of those of another one, which end by themselves.
fn replace_processes(writer: &Writer) -> Result<Vec<(String, String)>> {
    unconfirmed::hand_over(writer)?;
    follower::dismiss(writer.lock())?;
    let in_force = change::in_force(writer)?;
    let started = follower::start_if_needed(writer, &in_force.ruleset);
    let warning = started.err().map(|error| {
        (
            format!("{error:#}"),
            format!("{} follow", writer.paths.command()),
        )
    });
    Ok(warning.into_iter().collect())
}
