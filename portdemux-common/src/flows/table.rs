//! A table of flows: buckets of eight places.
//!
//! The owners of a bucket's places stand together in one line of the cache, each place in one of its own, and what is
//! counted in others, of each direction apart: packets in and out are mostly seen by different CPUs, and a line that one
//! of them writes has to be fetched by the other. Of a flow that goes on, both write nothing but their counters. A place
//! belongs to the flow whose mark its owner's word bears. Programs on all CPUs and user space use a table at once without
//! locks: a place changes hands by exchanging its owner's word for [`BUSY`], writing the place, and then
//! the new owner's word. Whoever reads compares the whole key. What is left to chance is a place that
//! changes hands between that comparison and a write: the packet's count then falls on the new flow. Only
//! a flow that was forgotten or pushed out loses its place, so this takes a flow whose time ends in the
//! very nanoseconds in which its packet comes.

use core::array;

use super::{
    key::FlowKey,
    stage::{Direction, State},
};
use crate::memory::{Word, ahead, lesser};

/// How many places a bucket has.
pub const WAYS: usize = 8;
/// How many words a place has.
pub const PLACE_WORDS: usize = 8;
/// How many words a bucket has.
pub const BUCKET_WORDS: usize = WAYS * (1 + PLACE_WORDS + 2 + 2);

/// The owner of a place that is being written.
pub const BUSY: u64 = u64::MAX;
/// The owner of a free place.
pub const FREE: u64 = 0;

/// The place of [`State`].
const STATE: usize = 5;
/// The place of the tick at which it is forgotten (bits 0 to 31), and of that of its first packet (32 to 63).
const TIMES: usize = 6;
/// The place of the rule's entry (bits 0 to 31), and of the reason of the last packet that came in (32 to 39)
/// and its verdict (40 to 47).
const OUTCOME: usize = 7;

/// Some places and their owners.
#[derive(Debug)]
#[repr(C)]
pub struct Bucket<W> {
    /// Whose the places are: marks of flows, [`FREE`] or [`BUSY`].
    pub owners: [W; WAYS],
    /// The flows.
    pub places: [Place<W>; WAYS],
    /// Packets and bytes of each that its peer sent.
    pub received: [Counts<W>; WAYS],
    /// The same of this host.
    pub sent: [Counts<W>; WAYS],
}

/// A flow's place: its key, and what is known of it.
#[derive(Debug)]
#[repr(C)]
pub struct Place<W>(pub [W; PLACE_WORDS]);

/// Packets, and bytes of their frames.
#[derive(Debug)]
#[repr(C)]
pub struct Counts<W>(pub [W; 2]);

/// A line of the cache, in words.
const LINE: usize = 8;

const _: () = assert!(size_of::<Bucket<u64>>() == BUCKET_WORDS * size_of::<u64>());
// Buckets begin where lines do, as their map does.
const _: () = assert!(PLACE_WORDS == LINE && BUCKET_WORDS.is_multiple_of(LINE));

/// The mark of a flow: its hash, which is never [`FREE`] nor [`BUSY`].
#[inline(always)]
#[must_use]
pub const fn mark(hash: u64) -> u64 {
    (hash & !BUSY_BIT) | 1
}

/// No mark has this bit.
const BUSY_BIT: u64 = 1 << 1;

/// Which bucket a flow belongs to; `mask` is the number of buckets less one.
#[inline(always)]
#[must_use]
pub const fn bucket(hash: u64, mask: u32) -> u32 {
    (hash >> 32) as u32 & mask
}

impl<W: Word> Place<W> {
    #[inline(always)]
    fn load(&self, at: usize) -> u64 {
        match self.0.get(at) {
            Some(word) => word.load(),
            None => 0,
        }
    }

    #[inline(always)]
    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.0.get(at) {
            word.store(value);
        }
    }

    /// The flow's key.
    #[must_use]
    pub fn key(&self) -> FlowKey {
        FlowKey::from_words([0, 1, 2, 3, 4].map(|at| self.load(at)))
    }

    #[inline(always)]
    fn is_of(&self, key: &FlowKey) -> bool {
        let [local, local_low, remote, remote_low, ports] = key.words();
        self.load(4) == ports
            && self.load(2) == remote
            && self.load(0) == local
            && self.load(3) == remote_low
            && self.load(1) == local_low
    }

    /// How far it has come.
    #[inline(always)]
    #[must_use]
    pub fn state(&self) -> State {
        State(self.load(STATE))
    }

    /// Notes how far it has come, unless another packet has changed that since `old` was read.
    #[inline(always)]
    pub fn change(&self, old: State, new: State) {
        if old != new
            && let Some(word) = self.0.get(STATE)
        {
            word.replace(old.0, new.0);
        }
    }

    /// The tick at which it is forgotten, if no packet comes.
    #[inline(always)]
    #[must_use]
    pub fn until(&self) -> u32 {
        lower(self.load(TIMES))
    }

    /// The tick of its first packet.
    #[must_use]
    pub fn begun(&self) -> u32 {
        upper(self.load(TIMES))
    }

    /// Notes until when it is remembered.
    #[inline(always)]
    pub fn keep(&self, until: u32) {
        let times = self.load(TIMES);
        if lower(times) != until {
            self.store(TIMES, (times & !0xffff_ffff) | u64::from(until));
        }
    }

    /// What came of its last packet: the rule's entry, the reason and the verdict.
    #[inline(always)]
    #[must_use]
    pub fn outcome(&self) -> u64 {
        self.load(OUTCOME)
    }

    /// Notes what came of a packet.
    #[inline(always)]
    pub fn conclude(&self, outcome: u64) {
        if self.load(OUTCOME) != outcome {
            self.store(OUTCOME, outcome);
        }
    }

    /// Whether its time has ended. That of a place that was never taken has.
    #[inline(always)]
    #[must_use]
    pub fn is_over(&self, now: u32) -> bool {
        is_over(self.until(), now)
    }

    /// Makes it a flow's place; whoever calls it owns it.
    #[inline(always)]
    fn begin(&self, key: &FlowKey, state: State, now: u32, until: u32) {
        let [local, local_low, remote, remote_low, ports] = key.words();
        self.store(0, local);
        self.store(1, local_low);
        self.store(2, remote);
        self.store(3, remote_low);
        self.store(4, ports);
        self.store(STATE, state.0);
        self.store(TIMES, (u64::from(now) << 32) | u64::from(until));
        self.store(OUTCOME, 0);
    }

    /// Takes over what is known of the same flow elsewhere.
    #[inline(always)]
    fn adopt(&self, other: &Self) {
        let times = (self.load(TIMES) & 0xffff_ffff) | (other.load(TIMES) & !0xffff_ffff);
        self.store(TIMES, times);
        self.store(OUTCOME, other.load(OUTCOME));
    }
}

impl<W: Word> Counts<W> {
    /// Packets and bytes.
    #[inline(always)]
    #[must_use]
    pub fn load(&self) -> [u64; 2] {
        let Self([packets, bytes]) = self;
        [packets.load(), bytes.load()]
    }

    #[inline(always)]
    fn store(&self, counts: [u64; 2]) {
        let Self([packets, bytes]) = self;
        packets.store(counts[0]);
        bytes.store(counts[1]);
    }

    #[inline(always)]
    fn add(&self, packets: u64, bytes: u64) {
        let [packets_before, bytes_before] = self.load();
        self.store([
            packets_before.wrapping_add(packets),
            bytes_before.wrapping_add(bytes),
        ]);
    }
}

/// No place.
pub const NOWHERE: u32 = 8;

const _: () = assert!(NOWHERE as usize == WAYS);

/// A place by its number, if there is one of it, so that the kernel's verifier knows it, too: of a number below a power
/// of two the compiler asks whether higher bits are set, and of that the verifier learns nothing.
#[inline(always)]
pub(super) fn way<W: Word>(number: u32) -> Option<u32> {
    #[expect(clippy::cast_possible_truncation, reason = "it comes back as it went")]
    let hidden = W::hide(u64::from(number)) as u32;
    (number < NOWHERE).then_some(hidden & (NOWHERE - 1))
}

impl<W: Word> Bucket<W> {
    /// The bucket of these words, each given by its index.
    pub fn of(mut word: impl FnMut(usize) -> W) -> Self {
        const PLACES: usize = WAYS;
        const RECEIVED: usize = PLACES + WAYS * PLACE_WORDS;
        const SENT: usize = RECEIVED + 2 * WAYS;
        let mut counts = |first: usize| {
            array::from_fn(|way| Counts(array::from_fn(|at| word(first + 2 * way + at))))
        };
        let (received, sent) = (counts(RECEIVED), counts(SENT));
        Self {
            owners: array::from_fn(&mut word),
            places: array::from_fn(|way| {
                Place(array::from_fn(|at| word(PLACES + way * PLACE_WORDS + at)))
            }),
            received,
            sent,
        }
    }

    /// The place at `way`.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, way: u32) -> Option<&Place<W>> {
        self.places.get(way as usize)
    }

    /// What is counted of the flow at `way` in one direction.
    #[inline(always)]
    #[must_use]
    pub fn counts(&self, way: u32, direction: Direction) -> Option<&Counts<W>> {
        match direction {
            Direction::Received => self.received.get(way as usize),
            Direction::Sent => self.sent.get(way as usize),
        }
    }

    /// Counts a packet of the flow at `way`.
    #[inline(always)]
    pub fn count(&self, way: u32, direction: Direction, packets: u64, bytes: u64) {
        if let Some(counts) = self.counts(way, direction) {
            counts.add(packets, bytes);
        }
    }

    /// Takes over at `way` what is known of the same flow elsewhere.
    #[inline(always)]
    pub fn adopt(&self, way: u32, other: &Self, other_way: u32) {
        if let (Some(place), Some(other)) = (self.place(way), other.place(other_way)) {
            place.adopt(other);
        }
        for direction in [Direction::Received, Direction::Sent] {
            let counts = self.counts(way, direction);
            if let (Some(counts), Some(other)) = (counts, other.counts(other_way, direction)) {
                counts.store(other.load());
            }
        }
    }

    /// Which place a flow has; [`NOWHERE`] for none.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, key: &FlowKey, mark: u64) -> u32 {
        let mut found = NOWHERE;
        let mut way = 0;
        while way < NOWHERE {
            // Else a CPU that reads ahead has the key of this flow and the state of the one before.
            if self.owner(way) == mark
                && self.is_acquired(way, mark)
                && let Some(place) = self.place(way)
                && place.is_of(key)
            {
                found = way;
                break;
            }
            way += 1;
        }
        found
    }

    /// Orders what is read of a place behind whose it was seen to be.
    #[inline(always)]
    fn is_acquired(&self, way: u32, mark: u64) -> bool {
        match self.owners.get(way as usize) {
            Some(owner) => owner.acquired(mark),
            None => false,
        }
    }

    /// Whose a place is; [`BUSY`] for one that does not exist.
    #[inline(always)]
    #[must_use]
    pub fn owner(&self, way: u32) -> u64 {
        match self.owners.get(way as usize) {
            Some(owner) => owner.load(),
            None => BUSY,
        }
    }

    /// Which place a new flow may have: one whose time has ended or that was never taken, or else the
    /// one that is worth least, and of these the one that is forgotten first. [`NOWHERE`] if all are
    /// worth `limit` or more. Says also what the flow that has it is worth; 0 for none.
    #[inline(always)]
    #[must_use]
    pub fn victim(&self, now: u32, limit: u64) -> (u32, u64) {
        const WAYS_BITS: u32 = NOWHERE.trailing_zeros();
        let mut least = u64::MAX >> 1;
        let mut way = 0;
        while way < NOWHERE {
            if let Some(place) = self.place(way) {
                let until = place.until();
                let left = u64::from(until.wrapping_sub(now));
                let value = (place.state().worth() << 32 | left) & ahead::<W>(until, now);
                least = lesser::<W>(value << WAYS_BITS | u64::from(way), least);
            }
            way += 1;
        }
        let value = least >> WAYS_BITS;
        if value >= limit << 32 {
            return (NOWHERE, limit);
        }
        let [way, ..] = least.to_le_bytes();
        (u32::from(way) & (NOWHERE - 1), value >> 32)
    }

    /// Gives a place to a flow; returns whether nobody else was quicker.
    #[inline(always)]
    pub fn take(
        &self,
        way: u32,
        key: &FlowKey,
        mark: u64,
        state: State,
        [now, until]: [u32; 2],
    ) -> bool {
        let (Some(owner), Some(place)) = (self.owners.get(way as usize), self.place(way)) else {
            return false;
        };
        let before = owner.load();
        if before == BUSY || !owner.replace(before, BUSY) {
            return false;
        }
        place.begin(key, state, now, until);
        for direction in [Direction::Received, Direction::Sent] {
            if let Some(counts) = self.counts(way, direction) {
                counts.store([0; 2]);
            }
        }
        // A replace is a full barrier where a store need not be one.
        owner.replace(BUSY, mark)
    }

    /// Frees a place if it is still the flow's; the next that looks for a place takes it.
    #[inline(always)]
    pub fn free(&self, way: u32, mark: u64, now: u32) -> bool {
        match (self.owners.get(way as usize), self.place(way)) {
            (Some(owner), Some(place)) => {
                place.keep(now);
                owner.replace(mark, FREE)
            }
            _ => false,
        }
    }
}

/// Whether a time has come. A tick that another CPU has not come to yet is not eighteen years away.
#[inline(always)]
pub(crate) const fn is_over(until: u32, now: u32) -> bool {
    now.wrapping_sub(until) < 1 << 31
}

#[inline(always)]
pub(crate) const fn lower(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

#[inline(always)]
pub(crate) const fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}
