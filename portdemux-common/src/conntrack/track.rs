//! What a packet makes of its flow.

use bytemuck::{Pod, Zeroable};

use super::{
    Event, Shape, Which,
    state::{Direction, Observed, Signal, State, Status},
    table::{FlowBucket, FlowEntry},
    tuple::Tuple,
};
use crate::{
    bucket::{self, NOWHERE},
    memory::{Memory, Word},
    policy::Timeouts,
};

/// The tables of flows, and what else is needed to keep them.
pub trait Tables: Memory {
    /// How large the tables are.
    fn shape(&self) -> Shape;

    /// A bucket of a table.
    fn bucket(&self, which: Which, at: u32) -> Option<&FlowBucket<Self::Word>>;

    /// Counts an event.
    fn count(&self, event: Event);
}

/// A bucket and a flow in it.
type Located<'t, T> = (
    &'t FlowBucket<<T as Memory>::Word>,
    &'t FlowEntry<<T as Memory>::Word>,
);

/// Where a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found(u32);

impl Found {
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
    const fn slot(self) -> u32 {
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
pub struct TrackedPacket {
    /// Its flow.
    pub tuple: Tuple,
    /// The hash of the key.
    pub hash: u64,
    /// How many packets it will be on the wire.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// What came of it: [`crate::decision::Outcome`]; 0 if nothing was decided.
    pub outcome: u64,
    /// [`Status`] of the flow if it is to be given a slot; else 0.
    pub state: u64,
    /// When it was seen, in ticks.
    pub now: u32,
    /// Where its flow stands.
    found: u32,
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
    /// 1 if it is of a flow that is known, half-open or not, and begins no other in its flow.
    pub is_known: u32,
    /// Fills the word.
    reserved: u32,
}

const _: () = assert!(size_of::<TrackedPacket>() == 120);

impl TrackedPacket {
    /// A packet of no flow.
    pub const OF_NO_FLOW: Self = Self::new(Tuple::NONE, Observed::NOTHING, u32::MAX, 1, 0);

    /// A packet of a flow.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        tuple: Tuple,
        observed: Observed,
        port: u32,
        packets: u64,
        bytes: u64,
    ) -> Self {
        Self {
            tuple,
            hash: 0,
            packets,
            bytes,
            outcome: 0,
            state: 0,
            now: 0,
            found: Found::NOWHERE,
            relation: Relation::New as u32,
            signal: observed.signal as u32,
            sequence: observed.sequence,
            acknowledged: observed.acknowledged,
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
    const fn observed(&self) -> Observed {
        Observed {
            signal: Signal::of_code(self.signal),
            sequence: self.sequence,
            acknowledged: self.acknowledged,
        }
    }

    #[inline(always)]
    const fn found(&self) -> Found {
        Found(self.found)
    }

    /// Counts it in the bucket in which its flow stands.
    #[inline(always)]
    fn count_in<W: Word>(&self, bucket: &FlowBucket<W>, direction: Direction) {
        bucket.count(self.found().slot(), direction, self.packets, self.bytes);
    }

    #[inline(always)]
    const fn mark(&self) -> u64 {
        bucket::mark(self.hash)
    }
}

/// Looks for the packet's flow.
#[inline(always)]
pub fn seek<T: Tables>(tables: &T, packet: &mut TrackedPacket, now: u32) {
    let hash = packet.tuple.hash(tables.shape().seed);
    packet.hash = hash;
    packet.now = now;
    let known = find(tables, Which::Known, &packet.tuple, hash, now);
    packet.found = if known < NOWHERE {
        known
    } else {
        NOWHERE + find(tables, Which::HalfOpen, &packet.tuple, hash, now)
    };
}

/// Says how a packet from the peer stands to the flow that was found.
#[inline(always)]
pub fn relate<T: Tables>(tables: &T, packet: &mut TrackedPacket) {
    let found = packet.found();
    let Some((_, entry)) = locate(tables, packet.hash, found) else {
        return;
    };
    let state = entry.status();
    let is_closed = matches!(state.state(), State::Closing | State::Closed);
    let begins_again = is_closed && matches!(packet.observed().signal, Signal::Open);
    packet.is_known = u32::from(!begins_again);
    let is_complete = matches!(found.which(), Which::Known)
        && !matches!(state.state(), State::Opening | State::Answered);
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
    packet: &mut TrackedPacket,
    passes: bool,
    may_begin: bool,
    timeouts: &Timeouts,
) {
    let observed = packet.observed();
    let Some((bucket, entry)) = locate(tables, packet.hash, packet.found()) else {
        // What only ends needs no memory.
        if passes && may_begin && !matches!(observed.signal, Signal::Abort | Signal::Close) {
            let protocol = packet.tuple.protocol();
            packet.state = Status::begun(Direction::Received, protocol, observed, false).0;
        }
        return;
    };
    entry.conclude(packet.outcome);
    if passes {
        packet.count_in(bucket, Direction::Received);
        go_on(tables, packet, entry, Direction::Received, timeouts);
    }
}

/// Notes a packet of this host; `serves` says whether a rule claims the port that it comes from, and
/// `may_begin` whether it is of a kind that begins flows.
#[inline(always)]
pub fn send<T: Tables>(
    tables: &T,
    packet: &mut TrackedPacket,
    serves: bool,
    may_begin: bool,
    timeouts: &Timeouts,
) {
    let observed = packet.observed();
    let Some((bucket, entry)) = locate(tables, packet.hash, packet.found()) else {
        if may_begin && !matches!(observed.signal, Signal::Abort) {
            let protocol = packet.tuple.protocol();
            packet.state = Status::begun(Direction::Sent, protocol, observed, serves).0;
        }
        return;
    };
    packet.count_in(bucket, Direction::Sent);
    go_on(tables, packet, entry, Direction::Sent, timeouts);
}

/// Notes what a packet makes of a flow that is known, and whether it is to move to those that are
/// complete.
#[inline(always)]
fn go_on<T: Tables>(
    tables: &T,
    packet: &mut TrackedPacket,
    entry: &FlowEntry<T::Word>,
    direction: Direction,
    timeouts: &Timeouts,
) {
    let protocol = packet.tuple.protocol();
    let before = entry.status();
    let next = before.next(direction, protocol, packet.observed());
    let state = Status(tables.launder(next.0));
    entry.keep(packet.now.wrapping_add(state.timeout(protocol, timeouts)));
    entry.change(before, state);
    if matches!(
        (packet.found().which(), state.state()),
        (Which::HalfOpen, State::Established)
    ) {
        packet.state = state.0;
    }
}

/// Gives the packet's flow a slot if it needs one, be it new or complete, at the cost of one of less
/// worth.
#[inline(always)]
pub fn remember<T: Tables>(
    tables: &T,
    packet: &TrackedPacket,
    direction: Direction,
    timeouts: &Timeouts,
) -> Option<()> {
    if packet.state == 0 {
        return None;
    }
    let state = Status(packet.state);
    let is_from_here = state.is_from_here();
    let which = if is_from_here || matches!(state.state(), State::Established) {
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
        State::Opening as u64
    };
    let bucket = bucket(tables, which, packet.hash)?;
    let (slot, worth) = bucket.victim(packet.now, limit);
    let Some(slot) = bucket::slot(tables, slot) else {
        tables.count(Event::Full);
        return None;
    };
    let timeout = state.timeout(packet.tuple.protocol(), timeouts);
    let times = [packet.now, packet.now.wrapping_add(timeout)];
    if !bucket.begin(slot, &packet.tuple, packet.mark(), state, times) {
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
    if let Some((old_bucket, _)) = locate(tables, packet.hash, packet.found()) {
        let old_slot = packet.found().slot();
        tables.count(Event::Completed);
        bucket.adopt(slot, old_bucket, old_slot);
        old_bucket.forget(old_slot, packet.mark(), packet.now);
        return Some(());
    }
    tables.count(if is_from_here {
        Event::BegunHere
    } else {
        Event::Begun
    });
    if matches!(direction, Direction::Received) {
        bucket.entry(slot)?.conclude(packet.outcome);
    }
    bucket.count(slot, direction, packet.packets, packet.bytes);
    Some(())
}

#[inline(always)]
fn find<T: Tables>(tables: &T, which: Which, key: &Tuple, hash: u64, now: u32) -> u32 {
    let Some(bucket) = bucket(tables, which, hash) else {
        return NOWHERE;
    };
    let mark = bucket::mark(hash);
    let Some(slot) = bucket::slot(tables, bucket.find(mark)) else {
        return NOWHERE;
    };
    match bucket.entry(slot) {
        // Two keys can have one mark.
        Some(entry) if !entry.is_of(key) => NOWHERE,
        Some(entry) if entry.is_over(now) => {
            bucket.forget(slot, mark, now);
            NOWHERE
        }
        Some(_) => slot,
        None => NOWHERE,
    }
}

#[inline(always)]
fn bucket<T: Tables>(tables: &T, which: Which, hash: u64) -> Option<&FlowBucket<T::Word>> {
    let shape = tables.shape();
    let mask = match which {
        Which::Known => shape.known,
        Which::HalfOpen => shape.half_open,
    };
    tables.bucket(which, bucket::index(hash, mask))
}

#[inline(always)]
fn locate<T: Tables>(tables: &T, hash: u64, found: Found) -> Option<Located<'_, T>> {
    if !found.is_known() {
        return None;
    }
    let bucket = bucket(tables, found.which(), hash)?;
    Some((bucket, bucket.entry(found.slot())?))
}
