//! The buckets of flows.
//!
//! Each flow has a line of the cache, and what is counted of it stands in others, of each direction apart: packets in and
//! out are mostly seen by different CPUs, and a line that one of them writes has to be fetched by the other. Of a flow
//! that goes on, both write nothing but their counters.

use core::array;

use super::{
    state::{Direction, Status},
    tuple::Tuple,
};
use crate::{
    bucket::{self, NOWHERE, SLOTS, Slots, is_over, lower, upper},
    memory::{Word, ahead},
};

/// How many words a flow has beside its counters.
pub const SLOT_WORDS: usize = 8;

/// The slot of [`Status`].
const STATUS: usize = 5;
/// The slot of the tick at which it is forgotten (bits 0 to 31), and of that of its first packet (32 to 63).
const TIMES: usize = 6;
/// The slot of the rule's entry (bits 0 to 31), and of the reason of the last packet that came in (32 to 39)
/// and its verdict (40 to 47).
const OUTCOME: usize = 7;

/// A bucket of flows.
pub type FlowBucket<W> = bucket::Bucket<W, Entries<W>>;

/// The flows of a bucket.
#[derive(Debug)]
#[repr(C)]
pub struct Entries<W> {
    /// The flows.
    pub entries: [FlowEntry<W>; SLOTS],
    /// Packets and bytes of each that its peer sent.
    pub received: [Counts<W>; SLOTS],
    /// What this host sent.
    pub sent: [Counts<W>; SLOTS],
}

/// A flow: its key, and what is known of it.
#[derive(Debug)]
#[repr(C)]
pub struct FlowEntry<W>(pub [W; SLOT_WORDS]);

/// Packets, and bytes of their frames.
#[derive(Debug)]
#[repr(C)]
pub struct Counts<W>(pub [W; 2]);

// Lines of the cache have eight words, and buckets begin where lines do, as their map does.
const _: () = assert!(
    size_of::<FlowEntry<u64>>() == 64
        && size_of::<FlowBucket<u64>>() == SLOTS * (8 + 64 + 16 + 16)
        && size_of::<FlowBucket<u64>>().is_multiple_of(64)
);

impl<W: Word> FlowEntry<W> {
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
    pub fn tuple(&self) -> Tuple {
        Tuple::from_words([0, 1, 2, 3, 4].map(|at| self.load(at)))
    }

    #[inline(always)]
    pub(super) fn is_of(&self, key: &Tuple) -> bool {
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
    pub fn status(&self) -> Status {
        Status(self.load(STATUS))
    }

    /// Notes how far it has come, unless another packet has changed that since `old` was read.
    #[inline(always)]
    pub fn change(&self, old: Status, new: Status) {
        if old != new
            && let Some(word) = self.0.get(STATUS)
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

    /// Whether its time has ended. That of a slot that was never taken has.
    #[inline(always)]
    #[must_use]
    pub fn is_over(&self, now: u32) -> bool {
        is_over(self.until(), now)
    }

    /// Makes it a flow's slot; whoever calls it owns it.
    #[inline(always)]
    fn begin(&self, key: &Tuple, state: Status, now: u32, until: u32) {
        let [local, local_low, remote, remote_low, ports] = key.words();
        self.store(0, local);
        self.store(1, local_low);
        self.store(2, remote);
        self.store(3, remote_low);
        self.store(4, ports);
        self.store(STATUS, state.0);
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

impl<W: Word> Slots for Entries<W> {
    type Word = W;

    const WORDS: usize = SLOTS * (SLOT_WORDS + 2 + 2);

    fn of(mut word: impl FnMut(usize) -> W) -> Self {
        const RECEIVED: usize = SLOTS * SLOT_WORDS;
        const SENT: usize = RECEIVED + 2 * SLOTS;
        Self {
            entries: array::from_fn(|slot| {
                FlowEntry(array::from_fn(|at| word(slot * SLOT_WORDS + at)))
            }),
            received: array::from_fn(|slot| {
                Counts(array::from_fn(|at| word(RECEIVED + 2 * slot + at)))
            }),
            sent: array::from_fn(|slot| Counts(array::from_fn(|at| word(SENT + 2 * slot + at)))),
        }
    }

    fn words(&self) -> impl Iterator<Item = &W> {
        let entries = self.entries.iter().flat_map(|entry| &entry.0);
        let counts = self.received.iter().chain(&self.sent);
        entries.chain(counts.flat_map(|counts| &counts.0))
    }

    /// What this host began is worth more than what peers did, and that more the further it has come; of the same worth
    /// the one that is forgotten first goes first.
    #[inline(always)]
    fn worth(&self, slot: u32, now: u32) -> u64 {
        let Some(entry) = self.entries.get(slot as usize) else {
            return u64::MAX >> 4;
        };
        let until = entry.until();
        let left = u64::from(until.wrapping_sub(now));
        (entry.status().worth() << 32 | left) & ahead::<W>(until, now)
    }
}

impl<W: Word> FlowBucket<W> {
    /// The flow in a slot.
    #[inline(always)]
    #[must_use]
    pub fn entry(&self, slot: u32) -> Option<&FlowEntry<W>> {
        self.slots.entries.get(slot as usize)
    }

    /// What is counted of the flow in a slot in one direction.
    #[inline(always)]
    #[must_use]
    pub fn counts(&self, slot: u32, direction: Direction) -> Option<&Counts<W>> {
        match direction {
            Direction::Received => self.slots.received.get(slot as usize),
            Direction::Sent => self.slots.sent.get(slot as usize),
        }
    }

    /// Counts a packet of the flow in a slot.
    #[inline(always)]
    pub fn count(&self, slot: u32, direction: Direction, packets: u64, bytes: u64) {
        if let Some(counts) = self.counts(slot, direction) {
            counts.add(packets, bytes);
        }
    }

    /// Takes over in a slot what is known of the same flow elsewhere.
    #[inline(always)]
    pub fn adopt(&self, slot: u32, other: &Self, other_slot: u32) {
        if let (Some(entry), Some(other)) = (self.entry(slot), other.entry(other_slot)) {
            entry.adopt(other);
        }
        for direction in [Direction::Received, Direction::Sent] {
            let counts = self.counts(slot, direction);
            if let (Some(counts), Some(other)) = (counts, other.counts(other_slot, direction)) {
                counts.store(other.load());
            }
        }
    }

    /// The slot of a flow, if it has one.
    #[must_use]
    pub fn find_tuple(&self, key: &Tuple, mark: u64) -> Option<u32> {
        let slot = self.find(mark);
        let entry = self.entry(slot)?;
        entry.is_of(key).then_some(slot)
    }

    /// Which slot a new flow may have: one whose time has ended or that was never taken, or else the one that is worth
    /// least. [`NOWHERE`] if all are worth `limit` or more. Says also what the flow that has it is worth; 0 for none.
    #[inline(always)]
    #[must_use]
    pub fn victim(&self, now: u32, limit: u64) -> (u32, u64) {
        let (slot, worth) = self.least(now);
        if worth >= limit << 32 {
            (NOWHERE, limit)
        } else {
            (slot, worth >> 32)
        }
    }

    /// Gives a slot to a flow; returns whether nobody else was quicker.
    #[inline(always)]
    pub fn begin(
        &self,
        slot: u32,
        tuple: &Tuple,
        mark: u64,
        status: Status,
        times: [u32; 2],
    ) -> bool {
        self.begin_as(slot, tuple, mark, status, times, None)
    }

    /// Gives a slot to a flow, with what is known of it in another slot if it stands there, too; returns whether nobody
    /// else was quicker.
    #[inline(always)]
    pub fn begin_as(
        &self,
        slot: u32,
        tuple: &Tuple,
        mark: u64,
        status: Status,
        [now, until]: [u32; 2],
        known: Option<(&Self, u32)>,
    ) -> bool {
        let Some(entry) = self.entry(slot) else {
            return false;
        };
        if !self.seize(slot) {
            return false;
        }
        entry.begin(tuple, status, now, until);
        for direction in [Direction::Received, Direction::Sent] {
            if let Some(counts) = self.counts(slot, direction) {
                counts.store([0; 2]);
            }
        }
        if let Some((other, other_slot)) = known {
            self.adopt(slot, other, other_slot);
        }
        self.hand_over(slot, mark);
        true
    }

    /// Forgets the flow in a slot if it is still the owner's; returns whether it was.
    #[inline(always)]
    pub fn forget(&self, slot: u32, mark: u64, now: u32) -> bool {
        if let Some(entry) = self.entry(slot) {
            entry.keep(now);
        }
        self.free(slot, mark)
    }
}
