//! What a packet makes of its flow.

use bytemuck::{Pod, Zeroable};

use super::{
    Event, Shape, Which,
    key::FlowKey,
    stage::{Direction, Heard, Signal, Stage, State},
    table::{self, Bucket, NOWHERE, Place},
};
use crate::{
    memory::{Memory, Word, launder},
    policy::Timeouts,
};

/// The tables of flows, and what else is needed to keep them.
pub trait Tables: Memory {
    /// How large the tables are.
    fn shape(&self) -> Shape;

    /// A bucket of a table.
    fn bucket(&self, which: Which, at: u32) -> Option<&Bucket<Self::Word>>;

    /// Counts an event.
    fn count(&self, event: Event);
}

/// A bucket and a place in it.
type Standing<'t, T> = (
    &'t Bucket<<T as Memory>::Word>,
    &'t Place<<T as Memory>::Word>,
);

/// Where a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u32);

impl Slot {
    const NOWHERE: u32 = 2 * NOWHERE;

    /// Whether it stands anywhere.
    #[inline(always)]
    const fn is_known(self) -> bool {
        self.0 < Self::NOWHERE
    }

    #[inline(always)]
    const fn which(self) -> Which {
        if self.0 < NOWHERE {
            Which::Known
        } else {
            Which::HalfOpen
        }
    }

    #[inline(always)]
    const fn way(self) -> u32 {
        self.0 & (NOWHERE - 1)
    }
}

/// How a packet stands to the flows that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Relation {
    /// Of no flow, or of one that a peer has begun and that is not complete.
    New = 0,
    /// Of a flow that a peer has begun.
    Established = 1,
    /// Of a flow that this host has begun.
    Reply = 2,
    /// An error about a packet of a flow.
    Related = 3,
}

impl Relation {
    /// Every relation, in the order of their counter indices.
    pub const ALL: [Self; 4] = [Self::New, Self::Established, Self::Reply, Self::Related];

    /// The relation of an index; new if there is none of it.
    #[inline(always)]
    #[must_use]
    pub const fn of(index: u32) -> Self {
        match index {
            1 => Self::Established,
            2 => Self::Reply,
            3 => Self::Related,
            _ => Self::New,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Reply => "reply",
            Self::Related => "related",
        }
    }
}

/// A packet on its way through its flow.
///
/// The kernel keeps it in a map value and takes it up anew for every step ([`seek`], [`relate`], the
/// decision, [`receive`] or [`send`], [`remember`]): the verifier knows nothing of what it reads there, so
/// that all ways through one step meet before the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Tracked {
    /// Its flow.
    pub key: FlowKey,
    /// The hash of the key.
    pub hash: u64,
    /// How many packets it will be on the wire.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// What came of it: [`crate::decide::Outcome`]; 0 if nothing was decided.
    pub outcome: u64,
    /// [`State`] of the flow if it is to be given a place; else 0.
    pub state: u64,
    /// When it was seen, in ticks.
    pub now: u32,
    /// Where its flow stands.
    slot: u32,
    /// [`Relation`].
    pub relation: u32,
    /// [`Signal`].
    pub signal: u32,
    /// The TCP sequence number, in host byte order.
    pub sequence: u32,
    /// The TCP acknowledgment number, in host byte order.
    pub acknowledged: u32,
    /// 1 if it is an error about a packet of the flow.
    pub is_error: u32,
    /// Index of the local port; beyond all if it has none.
    pub port: u32,
    /// 1 if it is of a flow that is known, half-open or not, and begins no other in its place.
    pub is_known: u32,
    /// Fills the word.
    reserved: u32,
}

const _: () = assert!(size_of::<Tracked>() == 120);

impl Tracked {
    /// A packet of no flow.
    pub const OF_NO_FLOW: Self = Self::new(FlowKey::NONE, Heard::NOTHING, u32::MAX, 1, 0);

    /// A packet of a flow.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: FlowKey, heard: Heard, port: u32, packets: u64, bytes: u64) -> Self {
        Self {
            key,
            hash: 0,
            packets,
            bytes,
            outcome: 0,
            state: 0,
            now: 0,
            slot: Slot::NOWHERE,
            relation: Relation::New as u32,
            signal: heard.signal as u32,
            sequence: heard.sequence,
            acknowledged: heard.acknowledged,
            is_error: 0,
            port,
            is_known: 0,
            reserved: 0,
        }
    }

    /// Whether it is counted for its port: an error about no flow that is known is about nothing that this
    /// host sent from there.
    #[inline(always)]
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        self.is_error == 0 || self.relation == Relation::Related as u32
    }

    #[inline(always)]
    const fn heard(&self) -> Heard {
        Heard {
            signal: Signal::of_code(self.signal),
            sequence: self.sequence,
            acknowledged: self.acknowledged,
        }
    }

    #[inline(always)]
    const fn slot(&self) -> Slot {
        Slot(self.slot)
    }

    /// Counts it in the bucket in which its flow stands.
    #[inline(always)]
    fn count_in<W: Word>(&self, bucket: &Bucket<W>, direction: Direction) {
        bucket.count(self.slot().way(), direction, self.packets, self.bytes);
    }

    #[inline(always)]
    const fn mark(&self) -> u64 {
        table::mark(self.hash)
    }
}

/// Looks for the packet's flow.
#[inline(always)]
pub fn seek<T: Tables>(tables: &T, packet: &mut Tracked, now: u32) {
    let hash = packet.key.hash(tables.shape().seed);
    packet.hash = hash;
    packet.now = now;
    let known = find(tables, Which::Known, &packet.key, hash, now);
    packet.slot = if known < NOWHERE {
        known
    } else {
        NOWHERE + find(tables, Which::HalfOpen, &packet.key, hash, now)
    };
}

/// Says how a packet from the peer stands to the flow that was found.
#[inline(always)]
pub fn relate<T: Tables>(tables: &T, packet: &mut Tracked) {
    let slot = packet.slot();
    let Some((_, place)) = place(tables, packet.hash, slot) else {
        return;
    };
    let state = place.state();
    let is_closed = matches!(state.stage(), Stage::Closing | Stage::Closed);
    let begins_again = is_closed && matches!(packet.heard().signal, Signal::Open);
    packet.is_known = u32::from(!begins_again);
    let is_complete = matches!(slot.which(), Which::Known)
        && !matches!(state.stage(), Stage::Opening | Stage::Answered);
    if packet.is_error != 0 {
        packet.relation = Relation::Related as u32;
    } else if state.is_from_here() {
        packet.relation = Relation::Reply as u32;
    } else if is_complete {
        packet.relation = Relation::Established as u32;
    }
}

/// Notes a packet from the peer and what came of it; of one that does not pass nothing but that.
///
/// `may_begin` says whether it is of a kind that begins flows.
#[inline(always)]
pub fn receive<T: Tables>(
    tables: &T,
    packet: &mut Tracked,
    passes: bool,
    may_begin: bool,
    timeouts: &Timeouts,
) {
    let heard = packet.heard();
    let Some((bucket, place)) = place(tables, packet.hash, packet.slot()) else {
        // What only ends needs no memory.
        if passes && may_begin && !matches!(heard.signal, Signal::Abort | Signal::Close) {
            let protocol = packet.key.protocol();
            packet.state = State::begun(Direction::Received, protocol, heard, false).0;
        }
        return;
    };
    place.conclude(packet.outcome);
    if passes {
        packet.count_in(bucket, Direction::Received);
        go_on(tables, packet, place, Direction::Received, timeouts);
    }
}

/// Notes a packet of this host; `serves` says whether a rule claims the port that it comes from, and
/// `may_begin` whether it is of a kind that begins flows.
#[inline(always)]
pub fn send<T: Tables>(
    tables: &T,
    packet: &mut Tracked,
    serves: bool,
    may_begin: bool,
    timeouts: &Timeouts,
) {
    let heard = packet.heard();
    let Some((bucket, place)) = place(tables, packet.hash, packet.slot()) else {
        if may_begin && !matches!(heard.signal, Signal::Abort) {
            let protocol = packet.key.protocol();
            packet.state = State::begun(Direction::Sent, protocol, heard, serves).0;
        }
        return;
    };
    packet.count_in(bucket, Direction::Sent);
    go_on(tables, packet, place, Direction::Sent, timeouts);
}

/// Notes what a packet makes of a flow that is known, and whether it is to move to those that are
/// complete.
#[inline(always)]
fn go_on<T: Tables>(
    tables: &T,
    packet: &mut Tracked,
    place: &Place<T::Word>,
    direction: Direction,
    timeouts: &Timeouts,
) {
    let protocol = packet.key.protocol();
    let before = place.state();
    let next = before.next(direction, protocol, packet.heard());
    let state = State(tables.launder(next.0));
    place.keep(packet.now.wrapping_add(state.timeout(protocol, timeouts)));
    place.change(before, state);
    if matches!(
        (packet.slot().which(), state.stage()),
        (Which::HalfOpen, Stage::Established)
    ) {
        packet.state = state.0;
    }
}

/// Gives the packet's flow a place if it needs one, be it new or complete, at the cost of one of less
/// worth.
#[inline(always)]
pub fn remember<T: Tables>(
    tables: &T,
    packet: &Tracked,
    direction: Direction,
    timeouts: &Timeouts,
) -> Option<()> {
    if packet.state == 0 {
        return None;
    }
    let state = State(packet.state);
    let is_from_here = state.is_from_here();
    let which = if is_from_here || matches!(state.stage(), Stage::Established) {
        Which::Known
    } else {
        Which::HalfOpen
    };
    // Beginnings push out beginnings. What this host begins it needs to know, or the replies do not come
    // in; for that, what peers began gives way: a rule lets them in whether they are remembered or not. A
    // peer never makes this host forget a flow that lives.
    let limit = if matches!(which, Which::HalfOpen) || is_from_here {
        u64::from(u16::MAX)
    } else {
        Stage::Opening as u64
    };
    let bucket = bucket(tables, which, packet.hash)?;
    let (way, worth) = bucket.victim(packet.now, limit);
    let Some(way) = table::way::<T::Word>(launder(tables, way)) else {
        tables.count(Event::Full);
        return None;
    };
    let timeout = state.timeout(packet.key.protocol(), timeouts);
    let times = [packet.now, packet.now.wrapping_add(timeout)];
    if !bucket.take(way, &packet.key, packet.mark(), state, times) {
        tables.count(Event::Full);
        return None;
    }
    if worth != 0 {
        tables.count(match which {
            Which::HalfOpen => Event::HalfOpenEvicted,
            Which::Known if worth > u64::from(u8::MAX) => Event::EvictedHere,
            Which::Known => Event::Evicted,
        });
    }
    if let Some((old_bucket, _)) = place(tables, packet.hash, packet.slot()) {
        let old_way = packet.slot().way();
        tables.count(Event::Completed);
        bucket.adopt(way, old_bucket, old_way);
        old_bucket.free(old_way, packet.mark(), packet.now);
        return Some(());
    }
    tables.count(if is_from_here {
        Event::BegunHere
    } else {
        Event::Begun
    });
    if matches!(direction, Direction::Received) {
        bucket.place(way)?.conclude(packet.outcome);
    }
    bucket.count(way, direction, packet.packets, packet.bytes);
    Some(())
}

#[inline(always)]
fn find<T: Tables>(tables: &T, which: Which, key: &FlowKey, hash: u64, now: u32) -> u32 {
    let Some(bucket) = bucket(tables, which, hash) else {
        return NOWHERE;
    };
    let mark = table::mark(hash);
    let Some(way) = table::way::<T::Word>(launder(tables, bucket.find(key, mark))) else {
        return NOWHERE;
    };
    match bucket.place(way) {
        Some(place) if !place.is_over(now) => way,
        Some(_) | None => {
            bucket.free(way, mark, now);
            NOWHERE
        }
    }
}

#[inline(always)]
fn bucket<T: Tables>(tables: &T, which: Which, hash: u64) -> Option<&Bucket<T::Word>> {
    let shape = tables.shape();
    let mask = match which {
        Which::Known => shape.known,
        Which::HalfOpen => shape.half_open,
    };
    tables.bucket(which, table::bucket(hash, mask))
}

#[inline(always)]
fn place<T: Tables>(tables: &T, hash: u64, slot: Slot) -> Option<Standing<'_, T>> {
    if !slot.is_known() {
        return None;
    }
    let bucket = bucket(tables, slot.which(), hash)?;
    Some((bucket, bucket.place(slot.way())?))
}
