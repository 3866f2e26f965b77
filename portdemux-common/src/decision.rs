//! What was decided about a packet.

use crate::{
    entry::{Action, Entry},
    ids::RuleId,
    reason::{Reason, Verdict},
};

/// What happens to a packet, why, and by whose word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What the tables say about its port; [`Entry::UNCLAIMED`] without ports.
    pub entry: Entry,
}

/// A decision in one word: the entry in bits 0 to 31, the reason in 32 to 39, the verdict in 40 to 47.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome(pub u64);

impl Outcome {
    /// The entry.
    #[inline(always)]
    #[must_use]
    pub const fn entry(self) -> Entry {
        Entry::from_bits((self.0 & 0xffff_ffff) as u32)
    }

    /// Index of the reason.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> usize {
        (self.0 >> 32 & 0xff) as usize
    }

    /// The verdict; an unknown one drops.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        const PASS: u64 = Verdict::Pass as u64;
        const REJECT: u64 = Verdict::Reject as u64;
        const REDIRECT: u64 = Verdict::Redirect as u64;
        match self.0 >> 40 & 0xff {
            PASS => Verdict::Pass,
            REJECT => Verdict::Reject,
            REDIRECT => Verdict::Redirect,
            _ => Verdict::Drop,
        }
    }

    /// Whether nobody gets the packet. It is told from the bits of the verdict, without a branch.
    #[inline(always)]
    #[must_use]
    pub const fn is_dropped(self) -> bool {
        const _: () = assert!(Verdict::Pass as u8 == 0b00 && Verdict::Redirect as u8 == 0b11);
        const _: () = assert!(Verdict::Drop as u8 == 0b01 && Verdict::Reject as u8 == 0b10);
        (self.0 >> 40 ^ self.0 >> 41) & 1 != 0
    }

    /// The decision that it is of; an unknown reason is that of a packet without ports.
    #[must_use]
    pub fn decision(self) -> Decision {
        Decision {
            verdict: self.verdict(),
            reason: Reason::from_index(self.reason()).unwrap_or(Reason::NoPorts),
            entry: self.entry(),
        }
    }
}

impl Decision {
    /// The claiming rule's id.
    #[must_use]
    pub const fn rule(&self) -> Option<RuleId> {
        if self.entry.is_claimed() {
            Some(self.entry.rule())
        } else {
            None
        }
    }

    /// What is known of a packet with an open entry before anything else is: nothing but the entry.
    #[inline(always)]
    #[must_use]
    pub const fn undecided(entry: Entry) -> Self {
        Self {
            verdict: Verdict::Pass,
            reason: Reason::Unclaimed,
            entry,
        }
    }

    /// It in one word.
    #[inline(always)]
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        let (entry, reason) = (self.entry.closed().bits() as u64, self.reason as u64);
        Outcome(entry | reason << 32 | (self.verdict as u64) << 40)
    }

    /// What becomes of packets with this entry, if it is the last word about them.
    #[inline(always)]
    #[must_use]
    pub const fn closed(entry: Entry) -> Self {
        let (verdict, reason) = match (entry.is_claimed(), entry.is_local()) {
            (true, true) => (Verdict::Pass, Reason::RuleLocal),
            (true, false) => (Verdict::Drop, Reason::RuleDrop),
            (false, _) => (Verdict::Pass, Reason::Unclaimed),
        };
        Self {
            verdict,
            reason,
            entry: entry.closed(),
        }
    }

    /// What becomes of packets with this entry, of those who may use it.
    #[inline(always)]
    pub(crate) const fn claimed(entry: Entry) -> Self {
        let (verdict, reason) = if entry.is_claimed() {
            match entry.action() {
                Action::Local => (Verdict::Pass, Reason::RuleLocal),
                Action::Drop => (Verdict::Drop, Reason::RuleDrop),
                Action::Reject => (Verdict::Reject, Reason::RuleReject),
                // From there sockets are found, wherever they listen.
                Action::Socket => (Verdict::Pass, Reason::RuleSocket),
                Action::Interface => (Verdict::Redirect, Reason::RuleInterface),
                Action::Cpu => (Verdict::Redirect, Reason::RuleCpu),
                Action::Xsk => (Verdict::Redirect, Reason::RuleXsk),
            }
        } else {
            (Verdict::Pass, Reason::Unclaimed)
        };
        Self {
            verdict,
            reason,
            entry,
        }
    }

    #[inline(always)]
    pub(crate) const fn dropped(reason: Reason, entry: Entry) -> Self {
        Self {
            verdict: Verdict::Drop,
            reason,
            entry,
        }
    }

    #[inline(always)]
    pub(crate) const fn pass(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Pass,
            reason,
            entry: Entry::UNCLAIMED,
        }
    }
}
