//! The maps in which counters lie.

use core::hint::cold_path;

use aya_ebpf::{btf_maps::Array, helpers::bpf_get_smp_processor_id, macros::btf_map};
use portdemux_common::blocks::{Block, COUNTERS as LENGTH, Own, RESERVED};

use crate::{
    verifier::{Lookup as _, within, within_mut},
    words::{Half, Shared},
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// Blocks that all CPUs share; the loader sets how many there are.
pub(crate) type Blocks = Array<Block, 1, MMAPABLE>;

/// The counters of every instance where CPUs have no block of their own for them.
#[btf_map]
static COUNTERS: Blocks = Array::new();

/// The blocks of each possible CPU.
///
/// An array and no per-CPU array, so that the control plane can map it: 200,000 counters are read without a system
/// call.
#[btf_map]
static OWN_COUNTERS: Array<Own, 1, MMAPABLE> = Array::new();

/// The blocks of this CPU.
#[derive(Clone, Copy)]
pub(crate) struct Mine(*mut Own);

/// A counter: by its block in a set of counters, and its index there.
pub(crate) type At = (usize, usize);

/// The blocks of this CPU.
#[inline(always)]
pub(crate) fn mine() -> Option<Mine> {
    // SAFETY: the helper takes nothing and cannot fail.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Some(Mine(OWN_COUNTERS.find(cpu)?))
}

impl Mine {
    /// The block of its own that stands for another; none if the CPU was not given one.
    #[inline(always)]
    pub(crate) fn block(self, block: usize) -> Option<&'static mut Block> {
        let offset = self.entry(block).load() as usize;
        if offset == 0 {
            return None;
        }
        // SAFETY: with any of the mask's bits it is a whole block before the end of what the CPU has.
        let block = unsafe { self.0.byte_add(offset & Own::OFFSET_MASK) };
        // SAFETY: a block begins there. Only this CPU's programs write its blocks, and no other program runs on the CPU
        // before this one returns, save that a socket lookup for a process can be interrupted: what it adds may then be
        // lost. The control plane reads them as they stand, and resets only those of a slot that no program uses.
        Some(unsafe { &mut *block.cast() })
    }

    /// Where the directory says which block of its own stands for another.
    #[inline(always)]
    fn entry(self, block: usize) -> &'static Half {
        // SAFETY: a map's memory stays while the program runs.
        let directory = unsafe { &(*self.0).directory };
        let entry: *const u32 = within(directory, block);
        // SAFETY: both are the same half of a word.
        unsafe { &*entry.cast() }
    }

    /// Gives the CPU a block, if one is left.
    ///
    /// By atomic operations, although all of it is this CPU's: a socket lookup for a process (`ss`) can be interrupted
    /// by a packet, and two blocks must never become one.
    #[inline(always)]
    fn give(self, block: usize, is_reserved: bool) -> Option<&'static mut Block> {
        // SAFETY: a map's memory stays while the program runs.
        let given = unsafe { &raw const (*self.0).given };
        // SAFETY: both are the same half of a word.
        let given: &Half = unsafe { &*given.cast() };
        // SAFETY: as above.
        let count = unsafe { &raw const (*self.0).count };
        // SAFETY: as above.
        let count = unsafe { count.read() };
        let rest = if is_reserved { 0 } else { RESERVED };
        if given.load().wrapping_add(rest) >= count {
            return None;
        }
        let index = given.take();
        if index < count {
            self.entry(block).fill(Own::offset(index));
        }
        self.block(block)
    }
}

/// Counters that lie in blocks one behind the other.
pub(crate) trait Set {
    /// The number of the first block in a directory.
    const FIRST: usize;

    /// Adds to a counter for which this CPU has no block: gives it one, of those that are reserved too if they are
    /// for it, or, if none is left, adds for all CPUs.
    fn count_apart(at: At, add: [u64; 2], is_reserved: bool);
}

/// The counters of every instance, by [`portdemux_common::counters::Layout`].
pub(crate) struct Frames;

impl Set for Frames {
    const FIRST: usize = 0;

    #[inline(always)]
    fn count_apart(at: At, [packets, bytes]: [u64; 2], is_reserved: bool) {
        portdemux_count(packed(at), packets, bytes, is_reserved.into());
    }
}

/// A function of its own, as all that is rare is: it is verified once, and who has a block pays nothing for it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_count(at: u64, packets: u64, bytes: u64, is_reserved: u32) -> u32 {
    let add = [packets, bytes];
    u32::from(count_rarely::<Frames>(&COUNTERS, at, add, is_reserved != 0).is_some())
}

/// A counter in one word.
#[inline(always)]
pub(crate) const fn packed((block, index): At) -> u64 {
    (block * LENGTH + index) as u64
}

/// What [`Set::count_apart`] does, where this is the map of the blocks that all CPUs share.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "registers have 64 bits, and what is too large is in no map"
)]
pub(crate) fn count_rarely<S: Set>(
    shared: &Blocks,
    at: u64,
    [packets, bytes]: [u64; 2],
    is_reserved: bool,
) -> Option<()> {
    let (block, index) = (at as usize / LENGTH, at as usize % LENGTH);
    if let Some(block) = mine()?.give(S::FIRST + block, is_reserved) {
        block.get_mut(index)?.add(packets, bytes);
        return Some(());
    }
    let block: *const [[Shared; 2]; LENGTH] = shared.find(block as u32)?.cast();
    // SAFETY: both are the same words, and a map's memory stays while the program runs.
    let [all, length] = unsafe { &*block }.get(index)?;
    all.add(packets);
    length.add(bytes);
    Some(())
}

/// Adds to a counter.
#[inline(always)]
pub(crate) fn count<S: Set>(
    mine: Mine,
    (block, index): At,
    [packets, bytes]: [u64; 2],
    is_reserved: bool,
) {
    if let Some(own) = mine.block(S::FIRST + block) {
        within_mut(own, index).add(packets, bytes);
    } else {
        cold_path();
        S::count_apart((block, index), [packets, bytes], is_reserved);
    }
}

/// Counts one packet for a counter of packets alone, of which two make one of the others.
#[inline(always)]
pub(crate) fn count_half<S: Set>(mine: Mine, (block, index): At) {
    let second = (index % 2) as u64;
    count::<S>(mine, (block, index / 2), [1 - second, second], false);
}
