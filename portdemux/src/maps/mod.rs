//! The maps of an instance: made, opened and asked here; the ruleset and the interfaces that they hold have
//! files of their own.

pub(crate) mod abi;
pub(crate) mod blocks;
pub mod counters;
pub(crate) mod damage;
pub mod destinations;
pub(crate) mod earlier;
pub mod flow_directory;
pub mod flows;
pub(crate) mod layout;
pub(crate) mod ledger;
pub(crate) mod mapped;
pub(crate) mod pins;
pub(crate) mod quiesce;
pub mod redirect_drops;
mod rulesets;
pub(crate) mod state;
pub mod steering;
pub(crate) mod tables;
pub mod targets;
pub(crate) mod trusted;

use std::{
    io,
    mem::offset_of,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, MapError, MapInfo};
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type};
use bytemuck::Zeroable as _;
use portdemux_common::{
    conntrack::Shape,
    fragments::Buckets,
    limits::LimitWords,
    ruleset::{LINE, Rulesets},
    state::Ledger,
};

pub(crate) use self::rulesets::{GENERATION, half, write_head};
pub use self::rulesets::{Prepared, used};
use crate::{
    error::Advice,
    maps::{
        blocks::Blocks,
        counters::Counters,
        earlier::{CounterSet, Earlier},
        flows::FlowTables,
        layout::{MapLayout, Translated},
        mapped::Mapped,
        redirect_drops::RedirectDrops,
        steering::Steering,
        targets::Targets,
        trusted::is_there,
    },
};

/// Name of the map of rulesets.
pub const RULESETS: &str = "RULESETS";
/// Name of the map of the counters that all CPUs share.
pub const COUNTERS: &str = "COUNTERS";
/// Name of the map of the counters that each CPU has for itself.
pub const OWN_COUNTERS: &str = "OWN_COUNTERS";
/// Name of the map that says what came of first fragments.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Name of the map that says when the next answer to a rejected packet is due.
pub const ANSWERS: &str = "ANSWERS";
/// Name of the map that only the control plane uses.
pub const LEDGER: &str = "LEDGER";
/// Name of the map of what is left of rates.
pub const LIMITS: &str = "LIMITS";
pub use crate::maps::{
    layout::LAYOUT,
    redirect_drops::{REDIRECT_DROPS, TARGET_PLACES},
    steering::{SOCKETS, STEERING},
    tables::TABLES,
    targets::{CPUS, DEVICES, MACS, XSKS},
};
/// Every map of an instance.
pub const ALL: [&str; 17] = [
    LAYOUT,
    RULESETS,
    COUNTERS,
    OWN_COUNTERS,
    FRAGMENTS,
    LEDGER,
    TABLES,
    LIMITS,
    ANSWERS,
    DEVICES,
    MACS,
    CPUS,
    XSKS,
    SOCKETS,
    STEERING,
    REDIRECT_DROPS,
    TARGET_PLACES,
];

/// What only the control plane reads lies in values of a page: kernels before 6.0 have none over 4 MiB
/// (`kernel/bpf/arraymap.c`, `array_map_alloc_check`).
pub(crate) const PAGE: usize = 4096;

/// The maps of an instance, shared with the kernel and with other processes.
#[derive(Debug)]
pub struct Maps {
    pub(crate) rulesets: Mapped,
    /// The tables that only some packets ask; a larger map takes the place of one that is full.
    pub(crate) tables: RwLock<Arc<Mapped>>,
    /// What only the programs read and write.
    pub(crate) fragments: Mapped,
    pub(crate) ledger: Translated,
    pub(crate) limits: Mapped,
    answers: Mapped,
    /// What stands at the slots of destinations.
    pub targets: Targets,
    /// What those did not take.
    pub redirect_drops: RedirectDrops,
    /// Which sockets get what comes for rules.
    pub steering: Steering,
    /// The counters.
    pub counters: Counters,
    pub(crate) directory: PathBuf,
    pub(crate) layout: Box<MapLayout>,
}

impl Maps {
    /// Creates the maps and pins them in a directory of bpffs.
    pub(crate) fn create(directory: &Path) -> Result<()> {
        for (name, size, count) in [
            (RULESETS, size_of::<Rulesets>(), 1),
            (FRAGMENTS, size_of::<Buckets<u64>>(), 1),
            (LEDGER, PAGE, size_of::<Ledger>().div_ceil(PAGE)),
            (LIMITS, size_of::<LimitWords>(), 1),
            (TABLES, tables::LINE_BYTES, tables::FEWEST_WORDS / LINE),
            (ANSWERS, size_of::<u64>(), 1),
        ] {
            create(&directory.join(name), name, size, u32::try_from(count)?)?;
        }
        layout::create(directory)?;
        Blocks::create(directory, possible_cpus()?)?;
        targets::create(directory)?;
        redirect_drops::create(directory)?;
        Steering::create(directory)?;
        let fragments = open_fragments(directory)?;
        fragments.write(offset_of!(Buckets<u64>, seed), &[random()?]);
        Ok(())
    }

    /// Opens the maps pinned in a directory, of this binary's ABI or of an older one.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let layout = layout::of(directory)?;
        let map = |name: &str, size: usize, count: usize| -> Result<Mapped> {
            open(&directory.join(name), size, Some(count))
        };
        let counters = if layout.is_own() {
            Counters {
                own: Some(Arc::new(Blocks::open(directory, possible_cpus()?)?)),
                earlier: Earlier::beside(CounterSet::Traffic, directory)?,
            }
        } else {
            Counters {
                own: None,
                earlier: Earlier::of(CounterSet::Traffic, directory)?,
            }
        };
        let (size, count) = layout.ledger_values();
        let ledger = map(LEDGER, size, count)?;
        let tables = open(
            &directory.join(layout.tables()),
            layout.table_values(),
            None,
        )?;
        Ok(Self {
            rulesets: map(RULESETS, layout.rulesets_bytes(), 1)?,
            tables: RwLock::new(Arc::new(tables)),
            fragments: open_fragments(directory)?,
            ledger: Translated::new(ledger, layout.ledger_runs()),
            limits: map(LIMITS, size_of::<LimitWords>(), 1)?,
            answers: map(ANSWERS, size_of::<u64>(), 1)?,
            targets: Targets::open(directory)?,
            redirect_drops: RedirectDrops::open(directory)?,
            steering: Steering::open(directory)?,
            counters,
            directory: directory.to_owned(),
            layout: Box::new(layout),
        })
    }

    /// Whether they are still those that are pinned in a directory, and not those of an instance that was taken over
    /// or removed.
    ///
    /// # Errors
    ///
    /// That cannot be seen.
    pub fn are_pinned(&self, directory: &Path) -> Result<bool> {
        let pin = directory.join(RULESETS);
        if !is_there(&pin)? {
            return Ok(false);
        }
        let pinned = MapInfo::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
        Ok(pinned.id() == self.rulesets.id()?)
    }

    /// Whether they are those of an instance of this binary's ABI, which alone may be changed.
    pub(crate) fn is_own(&self) -> bool {
        self.layout.is_own()
    }

    /// Whether a newer instance goes on with a map as it is.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        self.layout.keeps(name)
    }

    /// How large the tables of flows are, if flows are tracked.
    #[must_use]
    pub fn shape(&self) -> Option<Shape> {
        let mut shape = Shape::zeroed();
        let words = bytemuck::cast_slice_mut(std::slice::from_mut(&mut shape));
        self.ledger.read(offset_of!(Ledger, flows), words);
        (shape.seed != 0).then_some(shape)
    }

    /// Writes down how large the tables of flows are.
    pub(crate) fn set_shape(&self, shape: Option<Shape>) {
        let shape = shape.unwrap_or_default();
        let words = bytemuck::cast_slice(std::slice::from_ref(&shape));
        self.ledger.write(offset_of!(Ledger, flows), words);
    }

    /// The tables of flows, if flows are tracked.
    ///
    /// # Errors
    ///
    /// They should be there and cannot be opened.
    pub fn flows(&self) -> Result<Option<FlowTables>> {
        let (words, blocks) = (self.layout.bucket_words(), &self.counters.own);
        let open = |shape| FlowTables::of_instance(&self.directory, shape, words, blocks.clone());
        self.shape().map(open).transpose()
    }

    /// The previous tables of flows, if a replacement was interrupted; none if they are damaged.
    pub(crate) fn flows_before(&self) -> Result<Option<FlowTables>> {
        FlowTables::before(&self.directory, self.layout.bucket_words())
    }

    /// The tables of flows pinned in a directory.
    pub(crate) fn open_flows(&self, directory: &Path, shape: Shape) -> Result<FlowTables> {
        FlowTables::open(directory, shape, self.counters.own.clone())
    }

    /// How much kernel memory the maps take, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let tables = self.tables_of(&self.header());
        let maps = [
            &self.rulesets,
            &self.fragments,
            self.ledger.memory(),
            &self.limits,
            &self.answers,
            &tables,
        ];
        let bytes: usize = maps.iter().map(|map| map.bytes()).sum();
        let flows = self
            .flows()
            .ok()
            .flatten()
            .map_or(0, |flows| flows.memory());
        let maps = bytes
            + self.counters.memory()
            + self.targets.memory()
            + self.redirect_drops.memory()
            + self.steering.memory();
        maps as u64 + flows
    }
}

/// Creates an array that can be mapped, and pins it.
pub(crate) fn create(path: &Path, name: &str, size: usize, count: u32) -> Result<()> {
    new(
        name,
        bpf_map_type::BPF_MAP_TYPE_ARRAY,
        [4, size],
        count,
        BPF_F_MMAPABLE,
    )?
    .pin(path)
    .with_context(|| format!("pin {}", path.display()))?;
    Ok(())
}

/// Creates a map of `count` keys and values of so many bytes.
///
/// # Errors
///
/// The kernel does not make it.
pub(crate) fn new(
    name: &str,
    kind: bpf_map_type,
    [key, value]: [usize; 2],
    count: u32,
    flags: u32,
) -> Result<MapData> {
    let map = aya_obj::Map::new_from_params(
        kind as u32,
        u32::try_from(key)?,
        u32::try_from(value)?,
        count,
        flags,
    );
    MapData::create(map, name, None).map_err(|error| {
        if let MapError::CreateError { io_error, .. } = error {
            not_created(io_error, asked_for(name, value, count))
        } else {
            error.into()
        }
    })
}

/// What the kernel was asked for, as whoever has too little memory must know which map is how large and why.
pub(crate) fn asked_for(name: &str, size: usize, count: u32) -> String {
    let bytes = size as u64 * u64::from(count);
    let cpus = possible_cpus().map_or_else(
        |_| String::new(),
        |cpus| format!(" (this machine can have {cpus} CPUs)"),
    );
    format!(
        "create the map {name}: {} KiB of kernel memory, {count} values of {size} bytes{cpus}",
        bytes.div_ceil(1 << 10)
    )
}

/// Why there is no map that was asked for like this.
pub(crate) fn not_created(error: io::Error, asked_for: String) -> anyhow::Error {
    let is_memory = error.raw_os_error() == Some(libc::ENOMEM);
    let error = anyhow::Error::new(error).context(asked_for);
    if !is_memory {
        return error;
    }
    error.context(Advice(
        "free memory, or raise the limit of the control group that this runs in (memory.max), which maps count \
         against; nothing was changed"
            .into(),
    ))
}

fn open_fragments(directory: &Path) -> Result<Mapped> {
    open(
        &directory.join(FRAGMENTS),
        size_of::<Buckets<u64>>(),
        Some(1),
    )
}

/// A number that nobody can guess.
///
/// # Errors
///
/// The kernel gives none.
pub(crate) fn random() -> Result<u64> {
    let mut number = [0; 8];
    rustix::rand::getrandom(&mut number[..], rustix::rand::GetRandomFlags::empty())
        .context("ask the kernel for a random number")?;
    Ok(u64::from_ne_bytes(number))
}

/// Opens a pinned map of values of this size, of this many if that is known.
pub(crate) fn open(path: &Path, size: usize, count: Option<usize>) -> Result<Mapped> {
    let data = MapData::from_pin(path)
        .with_context(|| format!("open the pinned map {}", path.display()))?;
    let info = data
        .info()
        .with_context(|| format!("ask about {}", path.display()))?;
    if info.value_size() as usize != size {
        bail!(
            "{} holds values of {} bytes and not of {size}: it is not a map of this version",
            path.display(),
            info.value_size()
        );
    }
    let entries = info.max_entries() as usize;
    if let Some(count) = count.filter(|&count| count != entries) {
        bail!(
            "{} has {entries} entries and not {count}: it is not a map of this version and machine",
            path.display(),
        );
    }
    Mapped::new(data.fd(), size * entries)
        .with_context(|| format!("map {} into memory", path.display()))
}

/// A text padded with zeros.
#[must_use]
pub fn text(padded: &[u8]) -> String {
    let end = padded
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(padded.len());
    String::from_utf8_lossy(&padded[..end]).into_owned()
}

/// How many CPUs this machine can have, online or not.
pub(crate) fn possible_cpus() -> Result<usize> {
    aya::util::nr_cpus()
        .map_err(|(path, error)| anyhow::Error::new(error).context(format!("read {path}")))
}
