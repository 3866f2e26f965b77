//! From what a frame says to what happens to it.
//!
//! Most packets are decided by their port alone ([`by_port`]): one look at one table. Where more is to
//! be asked (claims of addresses, terms of a rule), what the packet says is written down as
//! [`Pending`], and the rest is decided by that.

mod pending;

pub use pending::Pending;

use crate::{
    packet::Packet,
    parse::{Fragment, Parsed},
    reason::{Reason, Verdict},
    ruleset::{Action, Entry, RuleId, RulesetImage},
    state::Generation,
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

/// Decides about a frame under a ruleset; `packet` is what `parsed` was read from.
#[must_use]
pub fn decide<P: Packet + ?Sized>(packet: &P, parsed: &Parsed, ruleset: &RulesetImage) -> Decision {
    let decision = by_port(parsed, ruleset);
    if decision.entry.is_open() {
        let generation = Generation(ruleset.header.generation);
        Pending::new(packet, parsed, decision.entry, generation, 0).decide(ruleset)
    } else {
        decision
    }
}

/// Decides about a frame by its port.
///
/// That is all there is to decide unless the packet's entry is open; then [`Pending`] goes on. Only a
/// frame with ports ever meets a rule.
#[inline(always)]
#[must_use]
pub fn by_port(parsed: &Parsed, ruleset: &RulesetImage) -> Decision {
    if let Some(reason) = parsed.malformed {
        let verdict = if ruleset.header.defaults.malformed_pass != 0 {
            Verdict::Pass
        } else {
            Verdict::Drop
        };
        return Decision {
            verdict,
            reason,
            entry: Entry::UNCLAIMED,
        };
    }
    if parsed.version.is_none() {
        return Decision::pass(Reason::NonIp);
    }
    let Some(ports) = parsed.ports() else {
        return Decision::pass(match parsed.fragment {
            Fragment::Later => Reason::LaterFragment,
            Fragment::None | Fragment::First => Reason::NoPorts,
        });
    };
    Decision::claimed(ruleset.at_any_address(ports))
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

    /// What becomes of packets with this entry, of those who may use it.
    #[inline(always)]
    const fn claimed(entry: Entry) -> Self {
        let (verdict, reason) = if entry.is_claimed() {
            match entry.action() {
                Action::Local => (Verdict::Pass, Reason::RuleLocal),
                Action::Drop => (Verdict::Drop, Reason::RuleDrop),
                Action::Reject => (Verdict::Reject, Reason::RuleReject),
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
    const fn dropped(reason: Reason, entry: Entry) -> Self {
        Self {
            verdict: Verdict::Drop,
            reason,
            entry,
        }
    }

    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Pass,
            reason,
            entry: Entry::UNCLAIMED,
        }
    }
}
