//! Live counters, one set for every possible CPU, so that no CPU waits for another.
//!
//! A program adds to its CPU's set and nobody else writes it, save the control plane when it gives a
//! rule's or an interface's place away; a reader sums over all CPUs.

use bytemuck::{Pod, Zeroable};

use crate::{
    reason::{Reason, Verdict},
    ruleset::RULE_PLACES,
    wire::Transport,
};

/// How many interfaces an instance can have.
pub const MAX_INTERFACES: usize = 64;
/// Places for reasons: more than there are, so that a new one moves nothing.
pub const REASON_PLACES: usize = 64;
/// Places for verdicts: more than there are, so that a new one moves nothing.
pub const VERDICT_PLACES: usize = 4;
/// Places for events of flows: more than there are, and up to the end of a page.
pub const EVENT_PLACES: usize = 512;
/// Places for what became of rejected packets: more than there are, and up to the end of a page.
pub const TOLD_PLACES: usize = 512;
/// Places for ports.
pub const PORT_PLACES: usize = Transport::COUNT << 16;

const _: () = {
    assert!(Reason::ALL.len() <= REASON_PLACES);
    assert!(Verdict::ALL.len() <= VERDICT_PLACES);
};

/// Packets, and bytes of their frames from the destination MAC to the last byte before the FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Counter {
    /// Number of packets.
    pub packets: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// What an interface's packets came to: by verdict, then by reason.
pub type Outcomes = [[Counter; REASON_PLACES]; VERDICT_PLACES];

/// The counters of one CPU.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct CpuCounters {
    /// Every frame of an interface, by its place in [`crate::state::Ledger`].
    pub interfaces: [Outcomes; MAX_INTERFACES],
    /// Everything that came for each rule, by rule id.
    pub rules: [Counter; RULE_PLACES],
    /// The part of it that was dropped.
    ///
    /// Apart from the rest, and so for ports: a packet that passes touches 16 bytes and not 32, and
    /// twice as many ports fit in a cache.
    pub rules_dropped: [Counter; RULE_PLACES],
    /// Everything that came for each port, by [`crate::wire::Port::index`].
    pub ports: [Counter; PORT_PLACES],
    /// The part of it that was dropped.
    pub ports_dropped: [Counter; PORT_PLACES],
    /// What became of rejected packets, by [`crate::answer::Told`].
    pub told: [u64; TOLD_PLACES],
    /// What socket lookups came to whose packets no program had decided about: by verdict, then by reason.
    /// Their bytes are not known.
    pub lookups: Outcomes,
}

/// What one CPU has counted of flows.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct CpuFlowCounters {
    /// Packets received for each port, by [`crate::wire::Port::index`] and by [`crate::flows::Relation`].
    pub relations: [[u64; 4]; PORT_PLACES],
    /// Everything that was sent from each port, as it will be on the wire.
    pub sent: [Counter; PORT_PLACES],
    /// What happened to flows, by [`crate::flows::Event`].
    pub events: [u64; EVENT_PLACES],
}

const _: () = {
    assert!(size_of::<CpuFlowCounters>().is_multiple_of(4096));
    assert!(size_of::<Counter>() == 16 && align_of::<CpuCounters>() == 8);
    assert!(size_of::<CpuCounters>().is_multiple_of(4096));
};

impl Counter {
    /// Counts some packets of `bytes` bytes in all.
    #[inline(always)]
    pub const fn add(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.wrapping_add(packets);
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    /// Counts one frame of `bytes` bytes.
    #[inline(always)]
    pub const fn count(&mut self, bytes: u64) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}
