//! What the maps say about themselves: which ruleset is in force and which interfaces there are.

use bytemuck::{Pod, Zeroable};

use crate::counters::MAX_INTERFACES;

/// How long an interface's name can be, the terminating zero included (`IFNAMSIZ`, Linux
/// `include/uapi/linux/if.h`).
pub const NAME_LENGTH: usize = 16;

/// Which ruleset is in force.
///
/// A program reads it once for a packet; the control plane replaces it with one 8-byte store. That
/// store is the whole switch from one ruleset to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// Which of the two images belongs to this generation.
    #[inline(always)]
    #[must_use]
    pub const fn half(self) -> u32 {
        (self.0 & 1) as u32
    }

    /// The generation that a change leads to.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An interface that a program was attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Interface {
    /// Its name when it was attached, padded with zeros; empty for a free place.
    pub name: [u8; NAME_LENGTH],
    /// Inode number of its network namespace.
    pub netns: u64,
    /// Its index in that namespace.
    pub index: u32,
    /// 1 native, 2 generic.
    pub mode: u32,
}

/// The interfaces of an instance; the place is the index of an interface's counters and stays its
/// own while the instance lasts.
pub type Interfaces = [Interface; MAX_INTERFACES];

const _: () = assert!(size_of::<Interface>() == 32);
