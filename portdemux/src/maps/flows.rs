//! The tables of flows of an instance, where they are tracked.

use std::{
    fs,
    mem::offset_of,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, MapInfo};
use bytemuck::Zeroable as _;
use portdemux_common::{
    blocks::{BYTES, Counter},
    bucket::{self, NOWHERE, SLOTS},
    capacity::PORT_COUNT,
    conntrack::{Direction, Event, Relation, Shape, Status, Tuple, Which, table::FlowBucket},
    counters::{BLOCKS, FLOW_BLOCKS, FlowLayout},
    policy::TICK_SHIFT,
};
use rustix::time::{ClockId, clock_gettime};

use super::flow_directory::Directory;
pub use super::flow_directory::{FLOW_COUNTERS, FLOWS, HALF_OPEN};
use crate::maps::{
    self,
    blocks::Blocks,
    damage::is_damage,
    earlier::{CARRIED, CounterSet, Earlier},
    layout::BucketWords,
    mapped::Mapped,
    random,
    trusted::is_there,
};

/// All of them.
pub const ALL: [&str; 3] = [FLOWS, HALF_OPEN, FLOW_COUNTERS];

/// A table has so many times the slots that are asked for: buckets fill unevenly.
const SPARE: u32 = 2;

const BUCKET: usize = size_of::<FlowBucket<u64>>();

/// The tables of flows, shared with the kernel.
#[derive(Debug)]
pub struct FlowTables {
    known: Mapped,
    half_open: Mapped,
    /// What is counted where no CPU has a block of its own for it, and those blocks; an older instance has none.
    counters: Option<(Mapped, Arc<Blocks>)>,
    /// Those of other layouts.
    earlier: Earlier,
    /// Where the words of buckets stand.
    words: BucketWords,
    /// How large the tables are.
    pub shape: Shape,
    /// The kernel's number of the map of flows.
    pub(crate) id: u32,
}

/// A flow as it stands in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its ends and its protocol.
    pub tuple: Tuple,
    /// Whether it is one that a peer has begun and that is not complete.
    pub is_half_open: bool,
    /// How far it has come.
    pub status: Status,
    /// What came of the last packet of the peer: [`portdemux_common::decision::Outcome`]; 0 if none was
    /// decided about.
    pub outcome: u64,
    /// The tick of its first packet.
    pub begun: u32,
    /// The tick at which it is forgotten.
    pub until: u32,
    /// What the peer sent.
    pub received: Counter,
    /// What this host sent.
    pub sent: Counter,
    /// Its bucket and its slot.
    stands: (u32, u32),
    mark: u64,
}

/// What is counted of the flows of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFlows {
    relations: [u64; Relation::ALL.len()],
    /// What was sent.
    pub sent: Counter,
}

impl PortFlows {
    /// How many packets came that stand to flows like this.
    #[must_use]
    pub const fn of(&self, relation: Relation) -> u64 {
        self.relations[relation as usize]
    }
}

/// How large tables for so many flows are; their hash begins with a new secret.
///
/// # Errors
///
/// The kernel gives no random number.
pub fn shape(flows: u32, half_open: u32) -> Result<Shape> {
    Ok(shape_with(flows, half_open, random()?))
}

/// How large the tables are for so many flows, with hashes that begin with this secret.
#[must_use]
pub fn shape_with(flows: u32, half_open: u32, seed: u64) -> Shape {
    let buckets = |slots: u32| (slots / NOWHERE).next_power_of_two().max(1) - 1;
    Shape {
        known: buckets(flows.saturating_mul(SPARE)),
        half_open: buckets(half_open),
        seed,
    }
}

/// The time in ticks.
#[must_use]
pub fn now() -> u32 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanoseconds = u128::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u128::try_from(now.tv_nsec).unwrap_or_default();
    u32::try_from((nanoseconds >> TICK_SHIFT) & u128::from(u32::MAX)).unwrap_or_default()
}

/// Where tables of this shape are pinned: under another name if whoever replaced them was killed.
#[must_use]
pub fn directory_of(pins: &Path, shape: &Shape) -> PathBuf {
    let in_force = Directory::InForce.path(pins);
    if is_there(&in_force).unwrap_or(true) {
        return in_force;
    }
    let others = [Directory::Staging, Directory::Before];
    let mut others = others.into_iter().map(|directory| directory.path(pins));
    others
        .find(|path| {
            pinned_shape(path).is_ok_and(|pinned| pinned == (shape.known, shape.half_open))
        })
        .unwrap_or(in_force)
}

/// How large the tables in a directory are: [`Shape::known`] and [`Shape::half_open`].
fn pinned_shape(directory: &Path) -> Result<(u32, u32)> {
    let mask = |name: &str| -> Result<u32> {
        let pin = directory.join(name);
        let info = MapInfo::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
        Ok(info.max_entries().saturating_sub(1))
    };
    Ok((mask(FLOWS)?, mask(HALF_OPEN)?))
}

impl FlowTables {
    /// Creates tables and pins them in a directory that does not exist. What was counted beside the tables
    /// `before`, if there are such, goes on.
    pub(crate) fn create(directory: &Path, shape: Shape, before: Option<&Path>) -> Result<()> {
        fs::create_dir(directory).with_context(|| format!("create {}", directory.display()))?;
        for (name, count) in [(FLOWS, shape.known + 1), (HALF_OPEN, shape.half_open + 1)] {
            maps::create(&directory.join(name), name, BUCKET, count)?;
        }
        let counters = directory.join(FLOW_COUNTERS);
        let Some(before) = before else {
            let count = u32::try_from(FLOW_BLOCKS)?;
            return maps::create(&counters, FLOW_COUNTERS, BYTES, count);
        };
        for name in [FLOW_COUNTERS, CARRIED] {
            let (from, to) = (before.join(name), directory.join(name));
            // What was carried over from an older instance is there if there was one.
            if name == CARRIED && !is_there(&from)? {
                continue;
            }
            MapData::from_pin(&from)
                .with_context(|| format!("open {}", from.display()))?
                .pin(&to)
                .with_context(|| format!("pin {}", to.display()))?;
        }
        Ok(())
    }

    /// Opens the tables of an instance, whose buckets have their words there; those of an older one have counters of
    /// another layout.
    pub(crate) fn of_instance(
        pins: &Path,
        shape: Shape,
        words: BucketWords,
        blocks: Option<Arc<Blocks>>,
    ) -> Result<Self> {
        let earlier = match blocks {
            None => Earlier::of(CounterSet::Flows, pins)?,
            Some(_) => Earlier::beside(CounterSet::Flows, pins)?,
        };
        Self::open_with(&directory_of(pins, &shape), shape, words, blocks, earlier)
    }

    /// The previous tables, if a replacement was interrupted; none if they are damaged.
    pub(crate) fn before(pins: &Path, words: BucketWords) -> Result<Option<Self>> {
        let directory = Directory::Before.path(pins);
        let opened = pinned_shape(&directory).and_then(|(known, half_open)| {
            let shape = Shape {
                known,
                half_open,
                ..Shape::zeroed()
            };
            Self::open_with(&directory, shape, words, None, Earlier::default())
        });
        match opened {
            Err(error) if is_damage(&error) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Opens the tables pinned in a directory.
    pub(crate) fn open(
        directory: &Path,
        shape: Shape,
        blocks: Option<Arc<Blocks>>,
    ) -> Result<Self> {
        Self::open_with(directory, shape, |own| own, blocks, Earlier::default())
    }

    fn open_with(
        directory: &Path,
        shape: Shape,
        words: BucketWords,
        blocks: Option<Arc<Blocks>>,
        earlier: Earlier,
    ) -> Result<Self> {
        let map =
            |name, size, count: u32| maps::open(&directory.join(name), size, Some(count as usize));
        let id = MapData::from_pin(directory.join(FLOWS))?.info()?.id();
        Ok(Self {
            id,
            known: map(FLOWS, BUCKET, shape.known + 1)?,
            half_open: map(HALF_OPEN, BUCKET, shape.half_open + 1)?,
            counters: match blocks {
                None => None,
                Some(blocks) => {
                    let count = u32::try_from(FLOW_BLOCKS)?;
                    Some((map(FLOW_COUNTERS, BYTES, count)?, blocks))
                }
            },
            earlier,
            words,
            shape,
        })
    }

    /// How much kernel memory the tables take, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let maps = [&self.known, &self.half_open].into_iter();
        let counters = self.counters.iter().map(|(counters, _)| counters);
        let own: usize = maps.chain(counters).map(Mapped::bytes).sum();
        (own + self.earlier.memory()) as u64
    }

    /// How many flows there is room for.
    #[must_use]
    pub const fn room(&self, which: Which) -> u64 {
        match which {
            Which::Known => (self.shape.known as u64 + 1) * NOWHERE as u64 / SPARE as u64,
            Which::HalfOpen => (self.shape.half_open as u64 + 1) * NOWHERE as u64,
        }
    }

    fn buckets(&self, which: Which) -> u32 {
        match which {
            Which::Known => self.shape.known + 1,
            Which::HalfOpen => self.shape.half_open + 1,
        }
    }

    const fn table(&self, which: Which) -> &Mapped {
        match which {
            Which::Known => &self.known,
            Which::HalfOpen => &self.half_open,
        }
    }

    /// Whether no slot of a bucket has an owner: most buckets, most of the time.
    fn is_empty(&self, which: Which, at: u32) -> bool {
        let mut owners = [bucket::FREE; SLOTS];
        self.table(which).read(at as usize * BUCKET, &mut owners);
        owners == [bucket::FREE; SLOTS]
    }

    fn word(&self, which: Which, at: u32, word: usize) -> &AtomicU64 {
        let byte = at as usize * BUCKET + (self.words)(word) * size_of::<u64>();
        self.table(which).word(byte)
    }

    fn bucket(&self, which: Which, at: u32) -> FlowBucket<&AtomicU64> {
        FlowBucket::of(|word| self.word(which, at, word))
    }

    /// A copy of a bucket.
    pub(crate) fn copy(&self, which: Which, at: u32) -> FlowBucket<AtomicU64> {
        FlowBucket::of(|word| AtomicU64::new(self.word(which, at, word).load(Ordering::Acquire)))
    }

    /// The flows that are remembered, in no order.
    pub fn all(&self) -> impl Iterator<Item = Flow> {
        let now = now();
        [Which::Known, Which::HalfOpen]
            .into_iter()
            .flat_map(move |which| (0..self.buckets(which)).map(move |at| (which, at)))
            .filter(|&(which, at)| !self.is_empty(which, at))
            .flat_map(move |(which, at)| {
                let bucket = self.bucket(which, at);
                (0..NOWHERE).filter_map(move |slot| read(&bucket, which, at, slot, now))
            })
    }

    /// How many flows each table holds.
    #[must_use]
    pub fn fill(&self) -> (u64, u64) {
        let now = now();
        let count = |which| {
            let buckets = 0..self.buckets(which);
            let count = buckets.map(|at| {
                if self.is_empty(which, at) {
                    return 0;
                }
                let bucket = self.bucket(which, at);
                let lives = |slot: &u32| {
                    let owner = bucket.owner(*slot);
                    owner != bucket::FREE
                        && owner != bucket::BUSY
                        && bucket.entry(*slot).is_some_and(|entry| !entry.is_over(now))
                };
                (0..NOWHERE).filter(lives).count() as u64
            });
            count.sum()
        };
        (count(Which::Known), count(Which::HalfOpen))
    }

    /// Forgets a flow; returns whether it was there still.
    #[must_use]
    pub fn forget(&self, flow: &Flow) -> bool {
        let which = if flow.is_half_open {
            Which::HalfOpen
        } else {
            Which::Known
        };
        let (at, slot) = flow.stands;
        self.bucket(which, at).forget(slot, flow.mark, now())
    }

    /// Remembers a flow that is established; returns whether there was room for it.
    #[must_use]
    pub fn remember(&self, key: &Tuple, status: Status, until: u32) -> bool {
        let hash = key.hash(self.shape.seed);
        let bucket = self.bucket(Which::Known, bucket::index(hash, self.shape.known));
        let mark = bucket::mark(hash);
        if bucket.find_tuple(key, mark).is_some() {
            return true;
        }
        let now = now();
        let (slot, _) = bucket.victim(now, 1);
        bucket.begin(slot, key, mark, status, [now, until])
    }

    /// Remembers the flows of other tables that are complete and not there yet, with what is known of them.
    pub(crate) fn adopt(&self, others: &Self) {
        for flow in others.all().filter(|flow| !flow.is_half_open) {
            let (hash, now) = (flow.tuple.hash(self.shape.seed), now());
            let bucket = self.bucket(Which::Known, bucket::index(hash, self.shape.known));
            let mark = bucket::mark(hash);
            if let Some(slot) = bucket.find_tuple(&flow.tuple, mark) {
                if bucket.entry(slot).is_some_and(|known| !known.is_over(now)) {
                    continue;
                }
                // The flow went on in the other tables.
                let _ = bucket.forget(slot, mark, now);
            }
            let (at, other_slot) = flow.stands;
            let other = others.bucket(Which::Known, at);
            if other.owner(other_slot) == flow.mark {
                let (slot, _) = bucket.victim(now, 1);
                let times = [now, flow.until];
                let _ = bucket.begin_as(
                    slot,
                    &flow.tuple,
                    mark,
                    flow.status,
                    times,
                    Some((&other, other_slot)),
                );
            }
        }
    }

    /// What is counted of the flows of every port, by [`portdemux_common::wire::Port::index`].
    #[must_use]
    pub fn ports(&self) -> Vec<PortFlows> {
        let mut relations = vec![[0; Relation::ALL.len()]; PORT_COUNT];
        let mut sent = vec![Counter::default(); PORT_COUNT];
        self.sum(
            offset_of!(FlowLayout, relations),
            relations.as_flattened_mut(),
        );
        self.sum(
            offset_of!(FlowLayout, sent),
            bytemuck::cast_slice_mut(&mut sent),
        );
        let ports = relations.into_iter().zip(sent);
        ports
            .map(|(relations, sent)| PortFlows { relations, sent })
            .collect()
    }

    /// How often something happened to flows.
    #[must_use]
    pub fn events(&self, event: Event) -> u64 {
        let mut count = [0];
        let offset = offset_of!(FlowLayout, events) + event as usize * size_of::<u64>();
        self.sum(offset, &mut count);
        count[0]
    }

    fn sum(&self, offset: usize, sums: &mut [u64]) {
        if let Some((counters, blocks)) = &self.counters {
            blocks.add(counters, BLOCKS, offset, sums);
        }
        self.earlier.add(offset, sums);
    }

    /// Sets to zero what the blocks hold that CPUs were given for the tables before; the one that they share is
    /// new. No program may track flows.
    pub(crate) fn reset_counters(&self) {
        let words = size_of::<FlowLayout>() / size_of::<u64>();
        if let Some((_, blocks)) = &self.counters {
            blocks.zero_own(BLOCKS, 0, words);
        }
    }
}

impl Flow {
    /// A flow of no table.
    #[cfg(test)]
    pub(crate) const fn known(key: Tuple, status: Status, begun: u32, received: Counter) -> Self {
        Self {
            tuple: key,
            is_half_open: false,
            status,
            outcome: 0,
            begun,
            until: begun,
            received,
            sent: Counter {
                packets: 0,
                bytes: 0,
            },
            stands: (0, 0),
            mark: 0,
        }
    }
}

fn read(
    bucket: &FlowBucket<&AtomicU64>,
    which: Which,
    at: u32,
    slot: u32,
    now: u32,
) -> Option<Flow> {
    let mark = bucket.owner(slot);
    if mark == bucket::FREE || mark == bucket::BUSY {
        return None;
    }
    let known = bucket.entry(slot)?;
    let counter = |direction| {
        let [packets, bytes] = bucket.counts(slot, direction)?.load();
        Some(Counter { packets, bytes })
    };
    let flow = Flow {
        tuple: known.tuple(),
        is_half_open: which == Which::HalfOpen,
        status: known.status(),
        outcome: known.outcome(),
        begun: known.begun(),
        until: known.until(),
        received: counter(Direction::Received)?,
        sent: counter(Direction::Sent)?,
        stands: (at, slot),
        mark,
    };
    // It may have gone over to another flow meanwhile.
    (!known.is_over(now) && bucket.owner(slot) == mark).then_some(flow)
}
