//! What the tables say about a port: whose it is, and where its packets go.

use bytemuck::{Pod, Zeroable};

use crate::ids::RuleId;

/// Where a claimed packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Action {
    /// To the host's own stack.
    Local = 0,
    /// Nowhere.
    Drop = 1,
    /// Nowhere, and the sender is told so.
    Reject = 2,
    /// To a socket that may listen elsewhere; on the way in that is the host's own stack.
    Socket = 3,
    /// Out of an interface.
    Interface = 4,
    /// To other CPUs, and there to the host's own stack.
    Cpu = 5,
    /// To a program that takes raw frames.
    Xsk = 6,
}

impl Action {
    /// The action of a number. An unknown one drops: a program that knows nothing better must not let
    /// anything in.
    #[inline(always)]
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        if code == Self::Local as u32 {
            Self::Local
        } else if code == Self::Reject as u32 {
            Self::Reject
        } else if code == Self::Socket as u32 {
            Self::Socket
        } else if code == Self::Interface as u32 {
            Self::Interface
        } else if code == Self::Cpu as u32 {
            Self::Cpu
        } else if code == Self::Xsk as u32 {
            Self::Xsk
        } else {
            Self::Drop
        }
    }

    /// Whether the port's number alone decides about packets that go there.
    #[inline(always)]
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Local | Self::Drop)
    }

    /// Whether a [`crate::target::Target`] says where.
    #[must_use]
    pub const fn has_target(self) -> bool {
        matches!(self, Self::Socket | Self::Interface | Self::Cpu | Self::Xsk)
    }
}

/// What a table says about a port: nothing, or the rule that claims it and the rule's action.
///
/// Bits 0 to 16: [`RuleId`]. Bit 17: claimed. Bit 18: the rule has terms, and its [`crate::policy::Policy`]
/// is to be read. Bit 19: this is not the last word about the port. Bits 24 to 31: [`Action`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Entry(u32);

impl Entry {
    /// No rule claims the port.
    pub const UNCLAIMED: Self = Self(0);

    const CLAIMED: u32 = 1 << 17;
    const CONDITIONAL: u32 = 1 << 18;
    const OPEN: u32 = 1 << 19;
    pub(crate) const RULE: u32 = 0x1_ffff;

    /// A claim by the rule of this id.
    #[must_use]
    pub const fn new(rule: RuleId, action: Action) -> Self {
        Self(rule & Self::RULE | Self::CLAIMED | (action as u32) << 24)
    }

    /// This claim by a rule that has terms.
    #[must_use]
    pub const fn conditional(self) -> Self {
        Self(self.0 | Self::CONDITIONAL)
    }

    /// Whether the claiming rule has terms.
    #[inline(always)]
    #[must_use]
    pub const fn is_conditional(self) -> bool {
        self.0 & Self::CONDITIONAL != 0
    }

    /// This word about a port, but not the last: more than the port's number decides.
    #[inline(always)]
    #[must_use]
    pub const fn open(self) -> Self {
        Self(self.0 | Self::OPEN)
    }

    /// This word as if it were the last.
    #[inline(always)]
    #[must_use]
    pub const fn closed(self) -> Self {
        Self(self.0 & !Self::OPEN)
    }

    /// Whether more than the port's number decides about its packets.
    #[inline(always)]
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    /// Whether it is a claim by a rule that asks nothing and lets packets in, or drops them.
    #[inline(always)]
    #[must_use]
    pub const fn is_final(self) -> bool {
        const FINAL: u32 = Action::Drop as u32;
        self.0 & (Self::CLAIMED | Self::CONDITIONAL) == Self::CLAIMED && self.0 >> 24 <= FINAL
    }

    /// The entry of these bits.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether a rule claims the port.
    #[inline(always)]
    #[must_use]
    pub const fn is_claimed(self) -> bool {
        self.0 & Self::CLAIMED != 0
    }

    /// This claim, or what `other` says if there is none.
    #[inline(always)]
    #[must_use]
    pub fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        if self.is_claimed() { self } else { other() }
    }

    /// The claiming rule's id, which is the index of its counters; 0 for an unclaimed port.
    #[inline(always)]
    #[must_use]
    pub const fn rule(self) -> RuleId {
        self.0 & Self::RULE
    }

    /// Whether the claiming rule's action is [`Action::Local`].
    #[inline(always)]
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0 >> 24 == Action::Local as u32
    }

    /// The claiming rule's action.
    #[inline(always)]
    #[must_use]
    pub const fn action(self) -> Action {
        Action::from_code(self.0 >> 24)
    }
}
