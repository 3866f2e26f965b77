//! Flows: a 5-tuple and its mirror image, what came of it, and whose it is.
//!
//! Two tables of one shape hold them. In [`HALF_OPEN`](Which::HalfOpen) stand flows that a peer has begun
//! and that are not complete: whoever sends many beginnings pushes out beginnings, and nothing else. In
//! [`Known`](Which::Known) stand the others. Both are written by the programs on the way in and on the way
//! out and read by user space, all at the same time; see [`table`] for how that goes well.

pub mod state;
pub mod table;
mod track;
pub mod tuple;

#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};
pub use state::{Direction, Observed, Signal, State, Status};
pub use track::{Relation, Tables, TrackedPacket, receive, relate, remember, seek, send};
pub use tuple::Tuple;

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Flows that a peer began and that are not complete.
    HalfOpen,
    /// All others.
    Known,
}

/// What happened to flows apart from their packets, one counter for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Event {
    /// A peer began a flow.
    Begun = 0,
    /// This host began a flow.
    BegunHere = 1,
    /// A flow that a peer began is complete.
    Completed = 2,
    /// A half-open flow gave way to another.
    HalfOpenEvicted = 3,
    /// A flow that a peer began gave way to one that this host began.
    Evicted = 4,
    /// A flow that this host began gave way to another.
    EvictedHere = 5,
    /// No slot was free for a flow that a peer began; it is not remembered.
    Full = 6,
}

impl Event {
    /// Every event, in the order of their counter indices.
    pub const ALL: [Self; 7] = [
        Self::Begun,
        Self::BegunHere,
        Self::Completed,
        Self::HalfOpenEvicted,
        Self::Evicted,
        Self::EvictedHere,
        Self::Full,
    ];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::BegunHere => "begun_here",
            Self::Completed => "completed",
            Self::HalfOpenEvicted => "half_open_evicted",
            Self::Evicted => "evicted",
            Self::EvictedHere => "evicted_here",
            Self::Full => "full",
        }
    }
}

/// How full tables are kept: how many buckets each has, less one, and the secret of their hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Shape {
    /// Number of buckets of the known flows less one; a power of two less one.
    pub known: u32,
    /// Number of buckets of the half-open flows less one; a power of two less one.
    pub half_open: u32,
    /// What the hash begins with, so that nobody outside can aim at a bucket.
    pub seed: u64,
}
