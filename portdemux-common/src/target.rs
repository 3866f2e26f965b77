//! Which destination a rule has.

use bytemuck::{Pod, Zeroable};

use crate::{capacity::DESTINATION_SLOTS, entry::Action, wire::Mac};

/// The MAC addresses of interfaces, by slot: each in the first six bytes of a word.
pub type MacWords = [u64; DESTINATION_SLOTS];

/// Which destination a rule has. All zeros for a rule that needs none to be said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Target {
    /// Its slot, below [`DESTINATION_SLOTS`]; of CPUs where their list begins in
    /// [`crate::ruleset::RulesetImage::cpus`].
    pub first: u32,
    /// How many CPUs the list has; else 1.
    pub count: u16,
    /// How many frames wait for a CPU at most; 0 if it is no CPU.
    pub queue: u16,
    /// What happens to packets if it is missing: an [`Action`].
    pub fallback: u8,
    /// Fills the half of a word.
    pub reserved: u8,
    /// The destination MAC address that frames get; zeros if they keep theirs.
    pub mac: Mac,
}

const _: () = assert!(size_of::<Target>() == 16 && align_of::<Target>() == 4);

impl Target {
    /// Of what can be found nowhere, and is not let in.
    pub const NOWHERE: Self = Self {
        first: 0,
        count: 0,
        queue: 0,
        fallback: Action::Drop as u8,
        reserved: 0,
        mac: [0; 6],
    };

    /// Its slot, if it has one: it has a target and that is no list of CPUs.
    #[must_use]
    pub const fn slot(&self) -> Option<u32> {
        if self.count != 0 && self.queue == 0 {
            Some(self.first)
        } else {
            None
        }
    }

    /// What happens to packets if it is missing.
    #[inline(always)]
    #[must_use]
    pub const fn fallback(&self) -> Action {
        Action::from_code(self.fallback as u32)
    }
}
