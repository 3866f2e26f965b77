//! What targets did not take of the frames that were sent to them, and the programs that count it.
//!
//! These are on tracepoints of the kernel, each only while the rules in force name a target of a kind that it
//! tells of.

mod layout;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapInfo},
    programs::{RawTracePoint, links::FdLink},
};
use aya_obj::generated::bpf_map_type;
use portdemux_common::{
    capacity::DESTINATION_SLOTS,
    entry::Action,
    redirect_drops::{RedirectDrop, Row, TargetKey, TargetKind, row_of_cpu, rows},
    ruleset::RulesetImage,
};

use super::{
    mapped::Mapped,
    maps::{self, CPUS, DEVICES, Maps, possible_cpus},
    objects,
    pins::unpin,
    targets::Needed,
    trusted::is_there,
};
use crate::{
    dataplane::refused,
    instance::{Instance, InstancePaths, Lock, Writer},
    rules::{Destination, Ruleset},
};

/// Name of the map of what was lost.
pub const REDIRECT_DROPS: &str = "LOSSES";
/// Name of the map of the slots of targets.
pub const TARGET_PLACES: &str = "TARGET_PLACES";

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

/// What targets did not take, shared with the kernel and with other processes.
#[derive(Debug)]
pub struct RedirectDrops {
    directory: PathBuf,
    rows: Mapped,
}

/// Frames that a target did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The target as rules name it; of several CPUs one of them.
    pub to: Destination,
    /// Why it did not take them.
    pub loss: RedirectDrop,
    /// How many.
    pub packets: u64,
}

/// Creates the maps and pins them in a directory of bpffs.
pub(super) fn create(directory: &Path) -> Result<()> {
    let rows = u32::try_from(rows(possible_cpus()?))?;
    maps::create(
        &directory.join(REDIRECT_DROPS),
        REDIRECT_DROPS,
        size_of::<Row>(),
        rows,
    )?;
    let slots = u32::try_from(DESTINATION_SLOTS)?;
    let path = directory.join(TARGET_PLACES);
    maps::new(
        TARGET_PLACES,
        bpf_map_type::BPF_MAP_TYPE_HASH,
        [8, 8],
        slots,
        0,
    )?
    .pin(&path)
    .with_context(|| format!("pin {}", path.display()))
}

impl RedirectDrops {
    /// Opens the maps that are pinned in a directory.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(TARGET_PLACES);
        // Opened again when it is used; that it is there is to be known before.
        MapData::from_pin(&path)
            .with_context(|| format!("open the pinned map {}", path.display()))?;
        let count = rows(possible_cpus()?);
        Ok(Self {
            rows: maps::open(
                &directory.join(REDIRECT_DROPS),
                size_of::<Row>(),
                Some(count),
            )?,
            directory: directory.to_owned(),
        })
    }

    /// How much kernel memory they take, in bytes.
    pub(super) const fn memory(&self) -> usize {
        // An element of a hash has its key, its value and a head of 48 bytes (Linux kernel/bpf/hashtab.c, struct
        // htab_elem), and there are as many buckets as elements.
        self.rows.bytes() + DESTINATION_SLOTS * (16 + 48 + 16)
    }

    /// Begins to count anew at a slot that nobody uses.
    pub(super) fn reset(&self, slot: u32) {
        self.rows.write(row_offset(slot), &Row::default());
    }

    /// What the targets of a ruleset did not take, most first.
    pub(super) fn of(&self, needed: &Needed) -> Vec<Lost> {
        let slots = needed.destinations.iter();
        let slots = slots.map(|(&slot, destination)| (slot, destination.clone()));
        let cpus = needed.cpus.keys().filter_map(|&cpu| {
            let destination = Destination::Cpus(cpu.to_string().parse().ok()?);
            Some((row_of_cpu(cpu.into()), destination))
        });
        let mut lost = Vec::new();
        for (row, to) in slots.chain(cpus) {
            let Some(kind) = kind(to.action()) else {
                continue;
            };
            let mut counts = Row::default();
            self.rows.read(row_offset(row), &mut counts);
            let losses = RedirectDrop::ALL
                .into_iter()
                .filter(|loss| loss.kind() == kind);
            for (loss, packets) in losses.map(|loss| (loss, counts[loss.slot()])) {
                if packets != 0 {
                    let to = to.clone();
                    lost.push(Lost { to, loss, packets });
                }
            }
        }
        lost.sort_by_key(|lost| (std::cmp::Reverse(lost.packets), lost.loss));
        lost
    }

    /// Says by what the kernel knows the targets at some slots; `targets` are all that can be met.
    ///
    /// # Errors
    ///
    /// The map cannot be changed.
    pub(super) fn know(&self, targets: &[(TargetKey, u32)]) -> Result<()> {
        let path = self.directory.join(TARGET_PLACES);
        let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
        let mut map: HashMap<MapData, u64, u64> = HashMap::try_from(Map::HashMap(data))
            .with_context(|| format!("use {}", path.display()))?;
        let known: Vec<u64> = map.keys().collect::<Result<_, _>>().context("read keys")?;
        let keys: HashSet<u64> = targets.iter().map(|(key, _)| key.0).collect();
        for key in known.iter().filter(|key| !keys.contains(key)) {
            map.remove(key).context("forget a target")?;
        }
        for &(key, slot) in targets {
            map.insert(key.0, u64::from(slot), 0)
                .context("make a target known to the programs that count losses")?;
        }
        Ok(())
    }
}

impl Maps {
    /// What the targets that the rules in force name did not take, most first.
    #[must_use]
    pub fn lost(&self) -> Vec<Lost> {
        self.redirect_drops.of(&self.needed_in_force())
    }

    /// What those did not take that an image names which is in force.
    #[must_use]
    pub fn lost_of(&self, image: &RulesetImage) -> Vec<Lost> {
        self.redirect_drops
            .of(&Needed::of(image, &self.destinations(image)))
    }
}

/// Of which kind the targets of rules with this action are.
const fn kind(action: Action) -> Option<TargetKind> {
    match action {
        Action::Interface => Some(TargetKind::Interface),
        Action::Cpu => Some(TargetKind::Cpu),
        Action::Xsk => Some(TargetKind::Xsk),
        Action::Local | Action::Drop | Action::Reject | Action::Socket => None,
    }
}

const fn row_offset(row: u32) -> usize {
    row as usize * size_of::<Row>()
}

/// The programs that a ruleset needs.
fn needed(ruleset: &Ruleset) -> impl Iterator<Item = Program> {
    let mut kinds: Vec<TargetKind> = Vec::new();
    for kind in ruleset
        .rules()
        .iter()
        .filter_map(|rule| kind(rule.to.action()))
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

/// Gives this binary's programs to an instance that counts losses.
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

/// Whether a program that counts losses has this name.
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
    maps::prepared(
        loader
            .map_max_entries(REDIRECT_DROPS, u32::try_from(rows(cpus))?)
            .map_max_entries(CPUS, u32::try_from(cpus)?)
            .override_global("DEVICES_ID", &id(DEVICES)?, true)
            .override_global("CPUS_ID", &id(CPUS)?, true)
            .override_global("DEVICE_INDEX", &offsets.index, true)
            .override_global("DEVICE_NETNS", &offsets.namespace, true)
            .override_global("NETNS_INODE", &offsets.inode, true),
        objects::REDIRECT_DROPS,
        "the program that counts losses",
    )
}

fn pin(paths: &InstancePaths, program: &str) -> PathBuf {
    paths.pins().join(program)
}
