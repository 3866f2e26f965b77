//! The programs that count what targets do not take of the frames that are sent to them.
//!
//! They are on tracepoints of the kernel, each only while the rules in force name a target of a kind that it
//! tells of.

mod layout;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{RawTracePoint, links::FdLink},
};
use portdemux_common::redirect_drops::{TargetKind, rows};

use super::objects;
use crate::{
    dataplane::refused,
    instance::{Instance, InstancePaths, Lock, Writer},
    maps::{self, CPUS, DEVICES, pins::unpin, possible_cpus, trusted::is_there},
    rules::Ruleset,
};

/// The programs, each under the name that its link is pinned by, the tracepoint that it is on, and the kinds of
/// targets that need it.
const PROGRAMS: [(&str, &str, &[TargetKind]); 4] = [
    (
        "lost_redirect",
        "xdp_redirect_err",
        &[TargetKind::Interface, TargetKind::Cpu, TargetKind::Xsk],
    ),
    ("lost_transmit", "xdp_devmap_xmit", &[TargetKind::Interface]),
    ("lost_enqueue", "xdp_cpumap_enqueue", &[TargetKind::Cpu]),
    ("lost_take", "xdp_cpumap_kthread", &[TargetKind::Cpu]),
];

/// The programs that a ruleset needs.
fn needed(ruleset: &Ruleset) -> impl Iterator<Item = Program> {
    let mut kinds: Vec<TargetKind> = Vec::new();
    for kind in ruleset
        .rules()
        .iter()
        .filter_map(|rule| maps::redirect_drops::kind(rule.to.action()))
    {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    PROGRAMS
        .into_iter()
        .filter(move |(_, _, of)| of.iter().any(|kind| kinds.contains(kind)))
        .map(|(program, tracepoint, _)| (program, tracepoint))
}

/// Whether what the targets of a ruleset do not take is counted; nothing if it names none.
#[must_use]
pub fn are_counted(paths: &InstancePaths, ruleset: &Ruleset) -> Option<bool> {
    let pins: Vec<PathBuf> = needed(ruleset)
        .map(|(program, _)| pin(paths, program))
        .collect();
    (!pins.is_empty()).then(|| pins.iter().all(|pin| pin.exists()))
}

/// A program, by the name that its link is pinned by, and the tracepoint that it is on.
pub type Program = (&'static str, &'static str);

/// The programs that count what the targets of a ruleset do not take, as far as they do not run.
///
/// # Errors
///
/// That cannot be seen.
pub(crate) fn missing(paths: &InstancePaths, ruleset: &Ruleset) -> Result<Vec<Program>> {
    let mut missing = Vec::new();
    for program in needed(ruleset) {
        if !is_there(&pin(paths, program.0))? {
            missing.push(program);
        }
    }
    Ok(missing)
}

/// Takes programs off, those of them that run.
///
/// # Errors
///
/// A pin cannot be removed.
pub(crate) fn detach(lock: &Lock, programs: &[Program]) -> Result<()> {
    let mut programs = programs.iter();
    programs.try_for_each(|(program, _)| unpin(&pin(&lock.paths, program)))
}

/// Ends to count what no rule of a ruleset needs.
///
/// # Errors
///
/// A pin cannot be removed.
pub fn end(lock: &Lock, ruleset: &Ruleset) -> Result<()> {
    let needed: Vec<&str> = needed(ruleset).map(|(program, _)| program).collect();
    for (program, ..) in PROGRAMS {
        if !needed.contains(&program) {
            unpin(&pin(&lock.paths, program))?;
        }
    }
    Ok(())
}

/// Gives this binary's programs to an instance that counts redirect drops.
///
/// # Errors
///
/// The kernel refuses one.
pub fn refresh(writer: &Writer) -> Result<()> {
    let mut running = Vec::new();
    for (program, tracepoint, _) in PROGRAMS {
        if is_there(&pin(&writer.paths, program))? {
            running.push((program, tracepoint));
        }
    }
    attach(writer, &running)
}

/// Whether a program that counts redirect drops has this name.
pub(super) fn is_program(name: &str) -> bool {
    PROGRAMS.iter().any(|&(program, ..)| program == name)
}

/// Attaches this binary's programs in the place of those that an older instance has pinned in a directory.
pub(super) fn exchange(instance: &Instance, older: &Path) -> Result<()> {
    for (program, tracepoint, _) in PROGRAMS {
        if older.join(program).try_exists()? {
            attach(instance, &[(program, tracepoint)])?;
            // For the moment in between a loss can be counted twice: a tracepoint's link takes no other program.
            unpin(&older.join(program))?;
        }
    }
    Ok(())
}

/// Attaches programs; those that are there are taken off when the new ones count.
///
/// # Errors
///
/// The kernel refuses one; those before it count. Packets go to their targets all the same.
pub(crate) fn attach(instance: &Instance, programs: &[Program]) -> Result<()> {
    let mut object = None;
    for &(name, tracepoint) in programs {
        let object = match &mut object {
            Some(object) => object,
            None => object.insert(load(&instance.maps.directory)?),
        };
        let program: &mut RawTracePoint = object
            .program_mut(name)
            .with_context(|| format!("the object has no program {name}"))?
            .try_into()?;
        refused::load(&format!("the program {name}"), || program.load())?;
        let id = program
            .attach(tracepoint)
            .with_context(|| format!("attach to the tracepoint {tracepoint}"))?;
        let link = FdLink::from(program.take_link(id)?);
        let pin = pin(&instance.paths, name);
        unpin(&pin)?;
        link.pin(&pin)
            .with_context(|| format!("pin {}", pin.display()))?;
    }
    Ok(())
}

/// Prepares the programs for an instance.
fn load(pins: &Path) -> Result<Ebpf> {
    let offsets = layout::offsets().unwrap_or_default();
    let id = |name: &str| -> Result<u32> {
        let path = pins.join(name);
        let map = MapInfo::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(map.id())
    };
    let mut loader = EbpfLoader::new();
    for name in maps::ALL {
        loader.map_pin_path(name, pins.join(name));
    }
    let cpus = possible_cpus()?;
    objects::prepared(
        loader
            .map_max_entries(maps::REDIRECT_DROPS, u32::try_from(rows(cpus))?)
            .map_max_entries(CPUS, u32::try_from(cpus)?)
            .override_global("DEVICES_ID", &id(DEVICES)?, true)
            .override_global("CPUS_ID", &id(CPUS)?, true)
            .override_global("DEVICE_INDEX", &offsets.index, true)
            .override_global("DEVICE_NETNS", &offsets.namespace, true)
            .override_global("NETNS_INODE", &offsets.inode, true),
        objects::REDIRECT_DROPS,
        "the program that counts redirect drops",
    )
}

fn pin(paths: &InstancePaths, program: &str) -> PathBuf {
    paths.pins().join(program)
}
