//! Numbers that say which: which rule, which ruleset.

use bytemuck::{Pod, Zeroable};

/// The id of a rule, which is the index of its counters, below [`crate::capacity::RULE_SLOTS`].
pub type RuleId = u32;

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
