//! A table of flows: buckets of eight places.
//!
//! The owners of a bucket's places stand together in one line of the cache; a place belongs to the flow
//! whose mark its owner's word bears. Programs on all CPUs and user space use a table at once without
//! locks: a place changes hands by exchanging its owner's word for [`BUSY`], writing the place, and then
//! the new owner's word. Whoever reads compares the whole key. What is left to chance is a place that
//! changes hands between that comparison and a write: the packet's count then falls on the new flow. Only
//! a flow that was forgotten or pushed out loses its place, so this takes a flow whose time ends in the
//! very nanoseconds in which its packet comes.

use super::{key::FlowKey, stage::State};
use crate::memory::{Word, ahead, lesser};

/// How many places a bucket has.
pub const WAYS: usize = 8;
/// How many words a place has.
pub const PLACE_WORDS: usize = 12;

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
/// The place of the packets received, and behind it of their bytes.
const RECEIVED: usize = 8;
/// The place of the packets sent, and behind it of their bytes.
const SENT: usize = 10;

/// Some places and their owners.
#[derive(Debug)]
#[repr(C)]
pub struct Bucket<W> {
    /// Whose the places are: marks of flows, [`FREE`] or [`BUSY`].
    pub owners: [W; WAYS],
    /// The flows.
    pub places: [Place<W>; WAYS],
}

/// A flow's place: its key, and what is known of it.
#[derive(Debug)]
#[repr(C)]
pub struct Place<W>(pub [W; PLACE_WORDS]);

const _: () = assert!(size_of::<Bucket<u64>>() == WAYS * 8 * (1 + PLACE_WORDS));

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

    /// Counts a packet of the peer.
    #[inline(always)]
    pub fn count_received(&self, packets: u64, bytes: u64) {
        self.store(RECEIVED, self.load(RECEIVED).wrapping_add(packets));
        self.store(RECEIVED + 1, self.load(RECEIVED + 1).wrapping_add(bytes));
    }

    /// Counts packets of this host.
    #[inline(always)]
    pub fn count_sent(&self, packets: u64, bytes: u64) {
        self.store(SENT, self.load(SENT).wrapping_add(packets));
        self.store(SENT + 1, self.load(SENT + 1).wrapping_add(bytes));
    }

    /// Packets and bytes received.
    #[must_use]
    pub fn received(&self) -> [u64; 2] {
        [self.load(RECEIVED), self.load(RECEIVED + 1)]
    }

    /// Packets and bytes sent.
    #[must_use]
    pub fn sent(&self) -> [u64; 2] {
        [self.load(SENT), self.load(SENT + 1)]
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
        self.store(RECEIVED, 0);
        self.store(RECEIVED + 1, 0);
        self.store(SENT, 0);
        self.store(SENT + 1, 0);
    }
}

impl<W: Word> Place<W> {
    /// Takes over what is known of the same flow elsewhere.
    #[inline(always)]
    pub fn adopt(&self, other: &Self) {
        let times = (self.load(TIMES) & 0xffff_ffff) | (other.load(TIMES) & !0xffff_ffff);
        self.store(TIMES, times);
        self.store(OUTCOME, other.load(OUTCOME));
        self.store(RECEIVED, other.load(RECEIVED));
        self.store(RECEIVED + 1, other.load(RECEIVED + 1));
        self.store(SENT, other.load(SENT));
        self.store(SENT + 1, other.load(SENT + 1));
    }
}

/// No place.
pub const NOWHERE: u32 = 8;

const _: () = assert!(NOWHERE as usize == WAYS);

impl<W: Word> Bucket<W> {
    /// The place at `way`.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, way: u32) -> Option<&Place<W>> {
        self.places.get(way as usize)
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
