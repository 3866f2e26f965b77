//! Counters that an instance has from before it was taken over: those of an older one whose programs may still
//! count, or what was carried over from it once none did.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
use portdemux_common::blocks::BYTES;

use crate::maps::{
    self, COUNTERS,
    blocks::Blocks,
    flow_directory::{self, FLOW_COUNTERS},
    layout::{MapLayout, OWN, Runs, abi5, of, usize_of},
    mapped::Mapped,
    trusted::is_there,
};

/// Name of the map of counters that were carried over.
pub(crate) const CARRIED: &str = "CARRIED";

/// How many bytes of counters stand together in that map, if any of them is not zero.
const BLOCK: usize = 4096;
const WORD: usize = size_of::<u64>();
const BLOCK_WORDS: usize = BLOCK / WORD;

/// How often what is there is looked for anew that was moved meanwhile.
const ATTEMPTS: usize = 5;

/// Which counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CounterSet {
    /// Of ports, rules and reasons.
    Traffic,
    /// Of flows.
    Flows,
}

/// Counters of other layouts, which stand where this binary's would.
#[derive(Debug, Default)]
pub(crate) struct Earlier(Vec<OlderMap>);

#[derive(Debug)]
struct OlderMap {
    memory: Mapped,
    storage: Storage,
    runs: Runs,
}

/// How sets of counters lie in a map.
#[derive(Debug)]
enum Storage {
    /// One behind the other, each of so many bytes.
    Sets { count: usize, bytes: usize },
    /// One that all CPUs share, and blocks of their own, of which the first ones have this number.
    Blocks { own: Blocks, first: usize },
    /// One of which only blocks are there that are not zero. Before them stands where each of them is: a word for
    /// each block, 0 for one that is not there.
    Sparse,
}

impl CounterSet {
    fn name(self) -> &'static str {
        match self {
            Self::Traffic => COUNTERS,
            Self::Flows => FLOW_COUNTERS,
        }
    }

    /// Where its maps are pinned, below the pins of an instance.
    pub(crate) fn directory(self, pins: &Path) -> PathBuf {
        match self {
            Self::Traffic => pins.into(),
            Self::Flows => flow_directory::directory(pins),
        }
    }

    /// How many bytes a set of this binary's has.
    pub(crate) fn own_bytes(self) -> usize {
        self.bytes(&OWN)
    }

    fn runs(self, layout: &MapLayout) -> Runs {
        match self {
            Self::Traffic => layout.counters.runs(),
            Self::Flows => layout.flow_counters.runs(),
        }
    }

    fn bytes(self, layout: &MapLayout) -> usize {
        usize_of(match self {
            Self::Traffic => layout.counters.bytes,
            Self::Flows => layout.flow_counters.bytes,
        })
    }
}

impl Earlier {
    /// What an instance of this binary's layout has besides its own counters.
    ///
    /// # Errors
    ///
    /// A map is damaged.
    pub(crate) fn beside(kind: CounterSet, pins: &Path) -> Result<Self> {
        before(kind, pins).map(Self)
    }

    /// All that an instance has counted that is of an older layout.
    ///
    /// # Errors
    ///
    /// A map is damaged.
    pub(crate) fn of(kind: CounterSet, pins: &Path) -> Result<Self> {
        all(kind, pins).map(Self)
    }

    /// Adds to each number what was counted earlier and stands in its place, from `byte` bytes on.
    pub(crate) fn add(&self, byte: usize, sums: &mut [u64]) {
        for source in &self.0 {
            for part in source.runs.parts(byte, sums.len() * WORD) {
                source.add(
                    part.from,
                    &mut sums[part.of.start / WORD..part.of.end / WORD],
                );
            }
        }
    }

    /// Sets counters to zero that were carried over. What an older instance has stays: it is gone before anything
    /// is changed.
    pub(crate) fn reset(&self, byte: usize, bytes: usize) {
        for source in &self.0 {
            if let Storage::Sparse = source.storage {
                for part in source.runs.parts(byte, bytes) {
                    source.clear(part.from, part.of.len() / WORD);
                }
            }
        }
    }

    /// How much kernel memory they take, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.0.iter().map(|source| source.memory.bytes()).sum()
    }
}

impl OlderMap {
    fn add(&self, from: usize, sums: &mut [u64]) {
        match self.storage {
            Storage::Sets { count, bytes } => {
                for set in 0..count {
                    self.memory.add(set * bytes + from, sums);
                }
            }
            Storage::Blocks { ref own, first } => own.add(&self.memory, first, from, sums),
            Storage::Sparse => self.blocks(from, sums.len(), |at, range| {
                self.memory.add(at, &mut sums[range]);
            }),
        }
    }

    fn clear(&self, from: usize, words: usize) {
        self.blocks(from, words, |at, range| {
            self.memory.write(at, &vec![0; range.len()]);
        });
    }

    /// Says of the blocks of a range of words where they stand, and which of the words they are.
    fn blocks(
        &self,
        from: usize,
        words: usize,
        mut act: impl FnMut(usize, std::ops::Range<usize>),
    ) {
        let mut done = 0;
        while done < words {
            let at = from + done * WORD;
            let count = (BLOCK_WORDS - at % BLOCK / WORD).min(words - done);
            let mut block = [0];
            self.memory.read(at / BLOCK * WORD, &mut block);
            if block[0] != 0 {
                act(usize_of(block[0]) * BLOCK + at % BLOCK, done..done + count);
            }
            done += count;
        }
    }
}

/// All counters of an instance, as sources.
fn all(kind: CounterSet, pins: &Path) -> Result<Vec<OlderMap>> {
    let layout = of(pins)?;
    let path = kind.directory(pins).join(kind.name());
    let mut sources = Vec::new();
    if is_there(&path)? {
        let (count, bytes) = (maps::possible_cpus()?, kind.bytes(&layout));
        let runs = kind.runs(&layout);
        sources.push(if layout.abi == u64::from(abi5::ABI) {
            OlderMap {
                memory: maps::open(&path, bytes, Some(count))?,
                storage: Storage::Sets { count, bytes },
                runs,
            }
        } else {
            OlderMap {
                memory: maps::open(&path, BYTES, Some(bytes / BYTES))?,
                storage: Storage::Blocks {
                    own: Blocks::open_of(pins, count, &layout)?,
                    first: match kind {
                        CounterSet::Traffic => 0,
                        CounterSet::Flows => layout.counter_blocks(),
                    },
                },
                runs,
            }
        });
    }
    sources.extend(before(kind, pins)?);
    Ok(sources)
}

/// What an instance has from before it was taken over.
fn before(kind: CounterSet, pins: &Path) -> Result<Vec<OlderMap>> {
    let carried = kind.directory(pins).join(CARRIED);
    let mut attempt = 1;
    loop {
        // First this: it has its name before the older instance goes.
        if is_there(&carried)? {
            let layout = of(pins)?;
            return Ok(vec![open_carried(&carried, kind.runs(&layout))?]);
        }
        let Some((_, older)) = maps::abi::overtaken(pins)? else {
            return if is_there(&carried)? && attempt < ATTEMPTS {
                attempt += 1;
                continue;
            } else {
                Ok(Vec::new())
            };
        };
        match all(kind, &older) {
            Err(_) if attempt < ATTEMPTS && !is_there(&older)? => attempt += 1,
            sources => return sources,
        }
    }
}

fn open_carried(path: &Path, runs: Runs) -> Result<OlderMap> {
    let info = MapInfo::from_pin(path).with_context(|| format!("open {}", path.display()))?;
    let count = info.max_entries() as usize;
    Ok(OlderMap {
        memory: maps::open(path, BLOCK, Some(count))?,
        storage: Storage::Sparse,
        runs,
    })
}

/// Pins a map of counters at a path where nothing is: those of a set of this binary's layout that are not zero.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn write_carried(path: &Path, set: &[u64]) -> Result<()> {
    let blocks = set.chunks(BLOCK_WORDS);
    let head = (blocks.len() * WORD).div_ceil(BLOCK);
    let taken = blocks
        .clone()
        .filter(|block| block.iter().any(|&word| word != 0));
    let count = head + taken.count();
    maps::create(path, CARRIED, BLOCK, u32::try_from(count)?)?;
    let map = maps::open(path, BLOCK, Some(count))?;
    let mut next = head;
    for (number, block) in blocks.enumerate() {
        if block.iter().any(|&word| word != 0) {
            map.write(next * BLOCK, block);
            map.write(number * WORD, &[next as u64]);
            next += 1;
        }
    }
    Ok(())
}
