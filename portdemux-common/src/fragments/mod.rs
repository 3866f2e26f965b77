//! Fragments that go where the first one of their packet went.
//!
//! What came of a first fragment is remembered in a [`crate::bucket`]. A slot has no key besides the mark of its owner,
//! and what it does for a wrong packet is to let fragments in without a first one, which come to nothing.

#[cfg(test)]
mod tests;

use core::array;

use bytemuck::{Pod, Zeroable};

use crate::{
    bucket::{self, SLOTS, Slots, is_over, lower, upper},
    conntrack::Tuple,
    decision::{Decision, Outcome},
    ids::Generation,
    memory::{Memory, Word, ahead},
    policy::TICK_SHIFT,
    reason::Reason,
};

/// How many buckets there are: room for 32,768 packets.
pub const BUCKETS: usize = MASK as usize + 1;
/// The bits of the place of a bucket.
const MASK: u32 = (1 << 12) - 1;

/// How long a first fragment is remembered, in ticks: 30 seconds, for as long as the host's stack waits
/// for the others (Linux `include/net/ip.h`, `IP_FRAG_TIME`).
#[expect(clippy::cast_possible_truncation, reason = "223 ticks")]
pub const LIFETIME: u32 = (30_000_000_000_u64 >> TICK_SHIFT) as u32;

const REACH_SHIFT: u32 = 48;
const UNTIL_BITS: u64 = 0xffff_ffff;
const PORT_SHIFT: u32 = 32;
const PORT_BITS: u32 = (1 << 18) - 1;
const GENERATION_SHIFT: u32 = 50;

/// The buckets, and the secret that the tags are made with. All zeros: nothing is remembered.
#[derive(Debug)]
#[repr(C)]
pub struct Buckets<W> {
    /// What the hash begins with, so that nobody outside can aim at a place.
    pub seed: W,
    /// Fills the line of the cache.
    pub reserved: [W; 7],
    /// The buckets.
    pub buckets: [FragmentBucket<W>; BUCKETS],
}

/// A bucket of packets of whose first fragment it is known what came.
pub type FragmentBucket<W> = bucket::Bucket<W, [FragmentSlot<W>; SLOTS]>;

/// What came of a first fragment: two words.
///
/// The outcome: what was decided (bits 0 to 47), and how far into the packet the fragment reaches, in units
/// of 8 bytes (48 to 63). The circumstances: the tick at which it is forgotten (bits 0 to 31), the index of
/// the port that it was counted for (32 to 49), and the last bits of the generation that it was decided
/// under (50 to 63).
#[derive(Debug, Default)]
#[repr(C)]
pub struct FragmentSlot<W>(pub [W; 2]);

const _: () = assert!(size_of::<Buckets<u64>>() == 64 + BUCKETS * 192);

/// Where first fragments are remembered.
pub trait FragmentTable: Memory {
    /// The secret of the tags.
    fn seed(&self) -> u64;

    /// The bucket at a place below [`BUCKETS`].
    fn bucket(&self, at: u32) -> Option<&FragmentBucket<Self::Word>>;
}

/// A fragment on its way to what is remembered of its packet.
///
/// The kernel keeps it in a map value and takes it up anew for every step, as it does a
/// [`crate::conntrack::TrackedPacket`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Piece {
    /// Its packet; the identification stands for both ports.
    pub packet: Tuple,
    /// What came of it: [`Outcome`].
    pub outcome: u64,
    /// The generation it is decided under.
    pub generation: Generation,
    /// How far into the packet the first fragment reaches, or where a later one begins, in units of 8
    /// bytes.
    pub reach: u32,
    /// Index of the port that it is counted for; beyond all if there is none.
    pub port: u32,
}

const _: () = assert!(size_of::<Piece>() == 64);

impl Piece {
    /// A fragment of a packet, of which this came.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        packet: Tuple,
        outcome: Outcome,
        generation: Generation,
        reach: u16,
        port: u32,
    ) -> Self {
        Self {
            packet,
            outcome: outcome.0,
            generation,
            reach: reach as u32,
            port,
        }
    }

    /// The words of a place that remembers it.
    #[inline(always)]
    const fn words(&self, now: u32) -> [u64; 2] {
        let outcome = self.outcome | (self.reach as u64) << REACH_SHIFT;
        let port = ((self.port & PORT_BITS) as u64) << PORT_SHIFT;
        let generation = self.generation.0 << GENERATION_SHIFT;
        [
            outcome,
            now.wrapping_add(LIFETIME) as u64 | port | generation,
        ]
    }
}

impl<W: Word> FragmentSlot<W> {
    #[inline(always)]
    fn outcome(&self) -> u64 {
        let [outcome, _] = &self.0;
        outcome.load()
    }

    #[inline(always)]
    fn circumstances(&self) -> u64 {
        let [_, circumstances] = &self.0;
        circumstances.load()
    }

    #[inline(always)]
    fn store(&self, words: [u64; 2]) {
        let [outcome, circumstances] = &self.0;
        outcome.store(words[0]);
        // Whoever sees until when it holds sees what holds.
        circumstances.publish(words[1]);
    }

    /// Whether what stands here holds at a time and under a generation. Another generation's rules may
    /// say something else.
    #[inline(always)]
    fn holds(&self, now: u32, generation: Generation) -> bool {
        let circumstances = self.circumstances();
        let [_, word] = &self.0;
        if !word.acquired(circumstances) {
            return false;
        }
        let is_same = (circumstances ^ generation.0 << GENERATION_SHIFT) >> GENERATION_SHIFT == 0;
        is_same && !is_over(lower(circumstances), now)
    }

    /// Remembers one more first fragment of the same packet: the worse verdict stands, and the longest
    /// reach. One that reaches less far than another does not prolong what is remembered.
    #[inline(always)]
    fn merge(&self, [outcome, circumstances]: [u64; 2]) {
        let [first, second] = &self.0;
        let known = first.load();
        if passes(outcome) && !passes(known) {
            return;
        }
        let reaches_less = outcome >> REACH_SHIFT < known >> REACH_SHIFT;
        let reach = if reaches_less { known } else { outcome } >> REACH_SHIFT << REACH_SHIFT;
        let merged = reach | without_reach(outcome);
        if passes(outcome) {
            // Unless another CPU has just been told something worse.
            first.replace(known, merged);
        } else {
            first.store(merged);
        }
        let until = if reaches_less {
            second.load()
        } else {
            circumstances
        };
        second.store(circumstances & !UNTIL_BITS | until & UNTIL_BITS);
    }
}

impl<W: Word> Slots for [FragmentSlot<W>; SLOTS] {
    type Word = W;

    const WORDS: usize = SLOTS * 2;

    fn of(mut word: impl FnMut(usize) -> W) -> Self {
        array::from_fn(|slot| FragmentSlot(array::from_fn(|at| word(2 * slot + at))))
    }

    fn words(&self) -> impl Iterator<Item = &W> {
        self.iter().flat_map(|slot| &slot.0)
    }

    /// A packet that does not pass gives way first, and of the others the one whose time ends first.
    #[inline(always)]
    fn worth(&self, slot: u32, now: u32) -> u64 {
        let Some(slot) = self.get(slot as usize) else {
            return u64::MAX >> 4;
        };
        let until = lower(slot.circumstances());
        let left = u64::from(until.wrapping_sub(now));
        let passes = u64::from(passes(slot.outcome()));
        (left | passes << 32) & ahead::<W>(until, now)
    }
}

/// Remembers what came of a first fragment.
#[inline(always)]
pub fn note<T: FragmentTable>(table: &T, piece: &Piece, now: u32) {
    let Some((bucket, mark)) = bucket(table, piece) else {
        return;
    };
    let words = piece.words(now);
    let found = bucket::slot(table, bucket.find(mark));
    if let Some(slot) = found.and_then(|slot| bucket.slots.get(slot as usize)) {
        if slot.holds(now, piece.generation) {
            slot.merge(words);
        } else {
            slot.store(words);
        }
        return;
    }
    let (least, _) = bucket.least(now);
    if let Some(least) = bucket::slot(table, least)
        && let Some(slot) = bucket.slots.get(least as usize)
        && bucket.seize(least)
    {
        slot.store(words);
        bucket.hand_over(least, mark);
    }
}

/// Says what comes of a later fragment, and for which port and rule it counts, if its first one is known;
/// else it stays as it was decided.
///
/// One that covers bytes of the first one is dropped, and with it whatever else comes of its packet (RFC
/// 5722 §4; RFC 1858 §4).
#[inline(always)]
pub fn follow<T: FragmentTable>(table: &T, piece: &mut Piece, now: u32) {
    let Some((bucket, mark)) = bucket(table, piece) else {
        return;
    };
    let found = bucket::slot(table, bucket.find(mark));
    let Some(slot) = found.and_then(|slot| bucket.slots.get(slot as usize)) else {
        return;
    };
    if !slot.holds(now, piece.generation) {
        return;
    }
    let known = slot.outcome();
    piece.port = upper(slot.circumstances()) & PORT_BITS;
    piece.outcome = without_reach(known);
    if u64::from(piece.reach) < known >> REACH_SHIFT {
        let entry = Outcome(known).entry();
        let overlap = Decision::dropped(Reason::FragmentOverlap, entry)
            .outcome()
            .0;
        piece.outcome = overlap;
        let [outcome, _] = &slot.0;
        outcome.store(overlap | known >> REACH_SHIFT << REACH_SHIFT);
    }
}

#[inline(always)]
fn bucket<'t, T: FragmentTable>(
    table: &'t T,
    piece: &Piece,
) -> Option<(&'t FragmentBucket<T::Word>, u64)> {
    let hash = piece.packet.hash(table.seed());
    let bucket = table.bucket(bucket::index(hash, MASK))?;
    Some((bucket, bucket::mark(hash)))
}

/// Whether a first fragment of this outcome passed.
#[inline(always)]
const fn passes(outcome: u64) -> bool {
    !Outcome(outcome).is_dropped()
}

#[inline(always)]
const fn without_reach(outcome: u64) -> u64 {
    outcome & ((1 << REACH_SHIFT) - 1)
}
