//! Buckets of eight slots, the tables in which flows, first fragments and sources' rates are remembered.
//!
//! Programs on all CPUs and user space use a table at once, without locks. The owners of a bucket's slots stand together
//! in one line of the cache. An owner is the mark of who is remembered there: a hash with a secret, so that nobody
//! outside can aim at a slot. A slot changes hands by exchanging its owner for [`BUSY`], writing the slot, and then the
//! new owner. An entry can be reused between the look at its owner and a write: the worst is one packet counted for the
//! wrong flow. As only what was forgotten or pushed out loses its slot, this takes an entry whose time ends in the very
//! nanoseconds in which its packet comes.

use crate::memory::{Memory, Word, lesser};

/// How many slots a bucket has.
pub const SLOTS: usize = 8;
/// No slot.
pub const NOWHERE: u32 = 8;

const _: () = assert!(NOWHERE as usize == SLOTS);

/// The owner of a slot that is being written.
pub const BUSY: u64 = u64::MAX;
/// The owner of a free slot.
pub const FREE: u64 = 0;

/// No mark has this bit.
const BUSY_BIT: u64 = 1 << 1;

/// Some slots and their owners.
#[derive(Debug)]
#[repr(C)]
pub struct Bucket<W, S> {
    /// Whose the slots are: marks, [`FREE`] or [`BUSY`].
    pub owners: [W; SLOTS],
    /// What stands in them.
    pub slots: S,
}

/// What stands in the slots of a bucket.
pub trait Slots {
    /// Its words.
    type Word: Word;

    /// How many words there are.
    const WORDS: usize;

    /// The slots of these words, each given by its index.
    fn of(word: impl FnMut(usize) -> Self::Word) -> Self;

    /// The words, in the order in which they lie in memory.
    fn words(&self) -> impl Iterator<Item = &Self::Word>;

    /// How much what stands in a slot is worth at a tick, below 2⁶⁰: the least gives way first. 0 for what is over.
    fn worth(&self, slot: u32, now: u32) -> u64;
}

/// The mark for a hash, which is never [`FREE`] nor [`BUSY`].
#[inline(always)]
#[must_use]
pub const fn mark(hash: u64) -> u64 {
    (hash & !BUSY_BIT) | 1
}

/// Which bucket a hash belongs to; `mask` is the number of buckets less one.
#[inline(always)]
#[must_use]
pub const fn index(hash: u64, mask: u32) -> u32 {
    (hash >> 32) as u32 & mask
}

/// A slot by its number, if there is one of it. The kernel's verifier knows nothing of how it was found, and that it is a
/// slot.
#[inline(always)]
pub(crate) fn slot<M: Memory>(memory: &M, number: u32) -> Option<u32> {
    #[expect(clippy::cast_possible_truncation, reason = "it comes back as it went")]
    let number = memory.launder(u64::from(number)) as u32;
    #[expect(clippy::cast_possible_truncation, reason = "it comes back as it went")]
    let hidden = M::Word::hide(u64::from(number)) as u32;
    // Of a number below a power of two the compiler asks whether higher bits are set; of that the verifier learns nothing.
    (number < NOWHERE).then_some(hidden & (NOWHERE - 1))
}

impl<W: Word, S> Bucket<W, S> {
    /// Who owns a slot; [`BUSY`] for one that does not exist.
    #[inline(always)]
    #[must_use]
    pub fn owner(&self, slot: u32) -> u64 {
        match self.owners.get(slot as usize) {
            Some(owner) => owner.load(),
            None => BUSY,
        }
    }

    /// The slot of an owner; [`NOWHERE`] if it has none. What is read of the slot next is the owner's.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, mark: u64) -> u32 {
        let mut slot = 0;
        while slot < NOWHERE {
            // Else a CPU that reads ahead has the slot as it was before.
            if let Some(owner) = self.owners.get(slot as usize)
                && owner.load() == mark
                && owner.acquired(mark)
            {
                break;
            }
            slot += 1;
        }
        slot
    }

    /// Takes a slot, to be written and then handed over; returns whether nobody else was quicker.
    #[inline(always)]
    pub fn seize(&self, slot: u32) -> bool {
        let Some(owner) = self.owners.get(slot as usize) else {
            return false;
        };
        let before = owner.load();
        before != BUSY && owner.replace(before, BUSY)
    }

    /// Gives a slot that was seized to an owner.
    #[inline(always)]
    pub fn hand_over(&self, slot: u32, mark: u64) {
        if let Some(owner) = self.owners.get(slot as usize) {
            // A replace is a full barrier where a store need not be one.
            owner.replace(BUSY, mark);
        }
    }

    /// Frees a slot if it is still the owner's; returns whether it was.
    #[inline(always)]
    pub fn free(&self, slot: u32, mark: u64) -> bool {
        match self.owners.get(slot as usize) {
            Some(owner) => owner.replace(mark, FREE),
            None => false,
        }
    }
}

impl<S: Slots> Bucket<S::Word, S> {
    /// How many words a bucket has.
    pub const WORDS: usize = SLOTS + S::WORDS;

    /// The bucket of these words, each given by its index.
    #[must_use]
    pub fn of(mut word: impl FnMut(usize) -> S::Word) -> Self {
        Self {
            owners: core::array::from_fn(&mut word),
            slots: S::of(|at| word(SLOTS + at)),
        }
    }

    /// Its words, in the order in which they lie in memory.
    pub fn words(&self) -> impl Iterator<Item = &S::Word> {
        self.owners.iter().chain(self.slots.words())
    }

    /// The slot that gives way first, and what it is worth.
    #[inline(always)]
    #[must_use]
    pub fn least(&self, now: u32) -> (u32, u64) {
        const BITS: u32 = NOWHERE.trailing_zeros();
        let mut least = u64::MAX >> 1;
        let mut slot = 0;
        while slot < NOWHERE {
            let worth = self.slots.worth(slot, now);
            least = lesser::<S::Word>(worth << BITS | u64::from(slot), least);
            slot += 1;
        }
        let [slot, ..] = least.to_le_bytes();
        (u32::from(slot) & (NOWHERE - 1), least >> BITS)
    }
}

/// Whether a tick has come. One that another CPU has not come to yet is not eighteen years away.
#[inline(always)]
pub(crate) const fn is_over(until: u32, now: u32) -> bool {
    now.wrapping_sub(until) < 1 << 31
}

/// Bits 0 to 31.
#[inline(always)]
pub(crate) const fn lower(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// Bits 32 to 63.
#[inline(always)]
pub(crate) const fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}
