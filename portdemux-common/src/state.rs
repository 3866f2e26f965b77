//! What the maps say about themselves: which ruleset is in force, which interfaces there are, what the
//! rules are called.

use bytemuck::{Pod, Zeroable};

use crate::{
    capacity::{
        DESTINATION_NAME_LENGTH, DESTINATION_SLOTS, MAX_INTERFACES, NAME_LENGTH, RULE_NAME_LENGTH,
        RULE_SLOTS,
    },
    conntrack::Shape,
    wire::MacWord,
};

/// An interface that a program was attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Interface {
    /// Its name when it was attached, padded with zeros; empty for a free slot.
    pub name: [u8; NAME_LENGTH],
    /// Version of the binary that attached it, padded with zeros.
    pub version: [u8; NAME_LENGTH],
    /// Inode number of its network namespace.
    pub netns: u64,
    /// Its index in that namespace.
    pub index: u32,
    /// [`Mode`].
    pub mode: u32,
    /// Its MAC address when it was attached.
    pub mac: MacWord,
}

/// Where on the way of a frame an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// In the driver, before a socket buffer exists.
    Native = 1,
    /// In the network stack, on a socket buffer.
    Generic = 2,
}

/// What only the control plane reads and writes; the kernel keeps it for it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Ledger {
    /// What a later version could have here.
    #[cfg(feature = "next-layout")]
    pub next: [u64; 9],
    /// The interfaces; the slot is the index of an interface's counters and its own while the
    /// instance lasts.
    pub interfaces: [Interface; MAX_INTERFACES],
    /// The names of the rules by id, padded with zeros. Of a rule that the ruleset in force does
    /// not use, what stands here has no meaning.
    pub rules: [[u8; RULE_NAME_LENGTH]; RULE_SLOTS],
    /// What the destinations that rules name are called, by slot, padded with zeros; as of rules.
    pub destinations: [[u8; DESTINATION_NAME_LENGTH]; DESTINATION_SLOTS],
    /// How large the tables of flows are; all zeros if there are none.
    pub flows: Shape,
}

const _: () = assert!(size_of::<Interface>() == 56 && align_of::<Ledger>() == 8);
