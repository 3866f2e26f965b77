//! What targets did not take of the frames that were sent to them.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use aya_obj::generated::bpf_map_type;
use portdemux_common::{
    capacity::DESTINATION_SLOTS,
    entry::Action,
    redirect_drops::{RedirectDrop, Row, TargetKey, TargetKind, row_of_cpu, rows},
    ruleset::RulesetImage,
};

use crate::{
    maps::{self, Maps, mapped::Mapped, possible_cpus, targets::Needed},
    rules::Destination,
};

/// Name of the map of what was lost.
pub const REDIRECT_DROPS: &str = "LOSSES";
/// Name of the map of the slots of targets.
pub const TARGET_PLACES: &str = "TARGET_PLACES";

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
pub(crate) fn create(directory: &Path) -> Result<()> {
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
    pub(crate) fn open(directory: &Path) -> Result<Self> {
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
    pub(crate) const fn memory(&self) -> usize {
        // An element of a hash has its key, its value and a head of 48 bytes (Linux kernel/bpf/hashtab.c, struct
        // htab_elem), and there are as many buckets as elements.
        self.rows.bytes() + DESTINATION_SLOTS * (16 + 48 + 16)
    }

    /// Begins to count anew at a slot that nobody uses.
    pub(crate) fn reset(&self, slot: u32) {
        self.rows.write(row_offset(slot), &Row::default());
    }

    /// What the targets of a ruleset did not take, most first.
    pub(crate) fn of(&self, needed: &Needed) -> Vec<Lost> {
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
            let drops = RedirectDrop::ALL
                .into_iter()
                .filter(|loss| loss.kind() == kind);
            for (loss, packets) in drops.map(|loss| (loss, counts[loss.slot()])) {
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
    pub(crate) fn know(&self, targets: &[(TargetKey, u32)]) -> Result<()> {
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
                .context("make a target known to the programs that count redirect drops")?;
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
pub(crate) const fn kind(action: Action) -> Option<TargetKind> {
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
