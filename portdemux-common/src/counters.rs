//! Live counters, and how they are laid out: where they lie, [`blocks`] says.
//!
//! Programs add to them and nobody else writes them, save the control plane when it gives a rule's or an
//! interface's slot away.

use bytemuck::{Pod, Zeroable};

use crate::{
    blocks::{self, Counter},
    capacity::{
        EVENT_SLOTS, MAX_INTERFACES, PORT_COUNT, REASON_SLOTS, REPLIED_SLOTS, RULE_SLOTS,
        VERDICT_SLOTS,
    },
    reason::{Reason, Verdict},
};

const _: () = {
    assert!(Reason::ALL.len() <= REASON_SLOTS);
    assert!(Verdict::ALL.len() <= VERDICT_SLOTS);
};

/// What an interface's packets came to: by verdict, then by reason.
pub type Outcomes = [[Counter; REASON_SLOTS]; VERDICT_SLOTS];

/// What came for neighbouring ports or rules: a block.
///
/// What was dropped stands apart from all that came: a packet that passes touches 16 bytes and not 32, and twice as
/// many ports fit in a cache. Both are in one block, so that a packet asks for one.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Tallies {
    /// Everything that came.
    pub received: [Counter; TALLIES],
    /// The part of it that was dropped.
    pub dropped: [Counter; TALLIES],
}

/// How many ports or rules share a block.
pub const TALLIES: usize = blocks::COUNTERS / 2;

/// How the counters of an instance are laid out; each part begins a block of [`blocks`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Layout {
    /// What a later version could have here.
    #[cfg(feature = "next-layout")]
    pub next: Outcomes,
    /// Every frame of an interface, by its slot in [`crate::state::Ledger`].
    pub interfaces: [Outcomes; MAX_INTERFACES],
    /// What came for each rule, by rule id.
    pub rules: [Tallies; RULE_SLOTS / TALLIES],
    /// What became of rejected packets, by [`crate::reject::Replied`].
    pub replied: [u64; REPLIED_SLOTS],
    /// What socket lookups came to whose packets no program had decided about: by verdict, then by reason.
    /// Their bytes are not known.
    pub lookups: Outcomes,
    /// What came for each port, by [`crate::wire::Port::index`].
    pub ports: [Tallies; PORT_COUNT / TALLIES],
}

/// How many blocks the counters have.
pub const BLOCKS: usize = size_of::<Layout>() / blocks::BYTES;

/// How what is counted of flows is laid out; it follows [`Layout`] in the directories of [`blocks`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct FlowLayout {
    /// Packets received for each port, by [`crate::wire::Port::index`] and by [`crate::conntrack::Relation`].
    pub relations: [[u64; 4]; PORT_COUNT],
    /// Everything that was sent from each port, as it will be on the wire.
    pub sent: [Counter; PORT_COUNT],
    /// What happened to flows, by [`crate::conntrack::Event`].
    pub events: [u64; EVENT_SLOTS],
}

/// How many blocks what is counted of flows has.
pub const FLOW_BLOCKS: usize = size_of::<FlowLayout>() / blocks::BYTES;

const _: () = {
    assert!(size_of::<Counter>() == 16 && align_of::<Layout>() == 8);
    assert!(size_of::<Outcomes>() == blocks::BYTES && size_of::<Tallies>() == blocks::BYTES);
    assert!(size_of::<Layout>() == BLOCKS * blocks::BYTES);
    assert!(size_of::<FlowLayout>() == FLOW_BLOCKS * blocks::BYTES);
    assert!(BLOCKS + FLOW_BLOCKS <= blocks::ENTRIES);
};
