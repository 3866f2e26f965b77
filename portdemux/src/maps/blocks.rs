//! The maps in which counters lie: those that all CPUs share, and the blocks that each CPU was given.

use std::{mem::offset_of, ops::Range, path::Path, sync::atomic::Ordering};

use anyhow::Result;
use portdemux_common::{
    blocks::{BYTES, OWN, Own},
    counters::BLOCKS,
};

use crate::maps::{
    COUNTERS, OWN_COUNTERS, create,
    layout::{self, MapLayout, OwnBlocks},
    mapped::Mapped,
    open,
};

const WORD: usize = size_of::<u64>();

/// The counters that all CPUs share, and the blocks of each.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Those that they share.
    pub(crate) shared: Mapped,
    own: Mapped,
    each: Each,
    cpus: usize,
}

/// Where things stand in what a CPU has of its own, in bytes.
#[derive(Clone, Copy, Debug)]
struct Each {
    bytes: usize,
    directory: usize,
    blocks: usize,
    has_offsets: bool,
}

impl Each {
    fn of(layout: &MapLayout) -> Self {
        let OwnBlocks {
            bytes,
            directory,
            blocks,
        } = layout.own_blocks;
        let [bytes, directory, blocks] = [bytes, directory, blocks].map(layout::usize_of);
        Self {
            bytes,
            directory,
            blocks,
            has_offsets: layout.directory.has_offsets != 0,
        }
    }

    /// Where the block begins of which the directory says this, if it is one.
    fn block(self, entry: u32) -> Option<usize> {
        let entry = usize::try_from(entry).ok()?;
        if self.has_offsets {
            let end = entry.checked_add(BYTES)?;
            return (entry >= self.blocks && end <= self.bytes).then_some(entry);
        }
        Some(self.blocks + entry.checked_sub(1)? * BYTES)
    }
}

impl Blocks {
    /// Creates the maps and pins them in a directory.
    pub(crate) fn create(directory: &Path, cpus: usize) -> Result<()> {
        for (name, size, count) in [
            (COUNTERS, BYTES, BLOCKS),
            (OWN_COUNTERS, size_of::<Own>(), cpus),
        ] {
            create(&directory.join(name), name, size, u32::try_from(count)?)?;
        }
        Self::open(directory, cpus)?.allot(OWN);
        Ok(())
    }

    /// Opens the maps pinned in a directory.
    pub(crate) fn open(directory: &Path, cpus: usize) -> Result<Self> {
        Self::open_of(directory, cpus, &layout::OWN)
    }

    /// Opens those of an instance of whatever layout.
    pub(crate) fn open_of(directory: &Path, cpus: usize, layout: &MapLayout) -> Result<Self> {
        let map = |name, size, count| open(&directory.join(name), size, Some(count));
        let each = Each::of(layout);
        let shared = map(COUNTERS, BYTES, layout.counter_blocks())?;
        let own = map(OWN_COUNTERS, each.bytes, cpus)?;
        Ok(Self {
            shared,
            own,
            each,
            cpus,
        })
    }

    /// Counters as they lie in memory.
    pub(crate) fn new(shared: Mapped, own: Mapped, cpus: usize) -> Self {
        Self {
            shared,
            own,
            each: Each::of(&layout::OWN),
            cpus,
        }
    }

    /// Says how many blocks each CPU can be given, [`OWN`] at most; those that it has stay.
    pub(crate) fn allot(&self, count: usize) {
        let count = u32::try_from(count.min(OWN)).unwrap_or_default();
        for cpu in 0..self.cpus {
            let word = self
                .own
                .word(cpu * size_of::<Own>() + offset_of!(Own, given));
            let [given, _]: [u32; 2] = bytemuck::cast(word.load(Ordering::Relaxed));
            word.store(bytemuck::cast([given, count]), Ordering::Relaxed);
        }
    }

    /// How much memory they take, in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.shared.bytes() + self.own.bytes()
    }

    /// Adds to each number what stands in its place from `byte` bytes on, in the blocks that all CPUs share and in
    /// their own; `first` is the number of the first of those in a directory.
    pub(crate) fn add(&self, shared: &Mapped, first: usize, byte: usize, sums: &mut [u64]) {
        shared.add(byte, sums);
        for (bytes, own) in self.given(first, byte, sums.len()) {
            let begin = (bytes.start - byte) / WORD;
            self.own.add(own, &mut sums[begin..][..bytes.len() / WORD]);
        }
    }

    /// Sets `words` words from `byte` bytes on to zero in the blocks of all CPUs. No program may count there.
    pub(crate) fn zero_own(&self, first: usize, byte: usize, words: usize) {
        for (bytes, own) in self.given(first, byte, words) {
            self.own.write(own, &vec![0; bytes.len() / WORD]);
        }
    }

    /// The parts of the `words` words from `byte` bytes on for which a CPU has a block of its own, and where they
    /// are there.
    fn given(
        &self,
        first: usize,
        byte: usize,
        words: usize,
    ) -> impl Iterator<Item = (Range<usize>, usize)> {
        let end = byte + words * WORD;
        let blocks = byte / BYTES..end.div_ceil(BYTES);
        (0..self.cpus).flat_map(move |cpu| {
            let entries = self.entries(cpu, first + blocks.start, blocks.len());
            let own = cpu * self.each.bytes;
            blocks
                .clone()
                .zip(entries)
                .filter_map(move |(block, entry)| {
                    let begin = own + self.each.block(entry)?;
                    let part = (block * BYTES).max(byte)..((block + 1) * BYTES).min(end);
                    let begin = begin + part.start % BYTES;
                    Some((part, begin))
                })
        })
    }

    /// What a CPU's directory says for `count` blocks from `first` on.
    fn entries(&self, cpu: usize, first: usize, count: usize) -> Vec<u32> {
        const HALF: usize = size_of::<u32>();
        let skipped = first % 2;
        let mut words = vec![0_u64; (skipped + count).div_ceil(2)];
        let at = cpu * self.each.bytes + self.each.directory + (first - skipped) * HALF;
        self.own.read(at, &mut words);
        let entries: &[u32] = bytemuck::cast_slice(&words);
        entries[skipped..][..count].to_vec()
    }
}
