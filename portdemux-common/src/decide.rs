//! From what a frame says to what happens to it.

use crate::{
    packet::Packet,
    parse::{Fragment, Parsed, Version},
    reason::{Reason, Verdict},
    ruleset::{Action, Entry, RuleId, RulesetImage},
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
///
/// Only a frame with ports ever meets a rule. Its destination address is read again here and only if
/// the ruleset has claims of addresses.
#[inline(always)]
#[must_use]
pub fn decide<P: Packet + ?Sized>(packet: &P, parsed: &Parsed, ruleset: &RulesetImage) -> Decision {
    if let Some(reason) = parsed.malformed {
        let verdict = if ruleset.header.malformed_pass != 0 {
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
    let Some(version) = parsed.version else {
        return Decision::pass(Reason::NonIp);
    };
    let Some(ports) = parsed.ports() else {
        return Decision::pass(match parsed.fragment {
            Fragment::Later => Reason::LaterFragment,
            Fragment::None | Fragment::First => Reason::NoPorts,
        });
    };
    // Each version by itself: an address that may be of either would be put together on the stack.
    let exact = match version {
        _ if !ruleset.claims_addresses(version) => None,
        Version::V4 => parsed
            .destination_v4(packet)
            .map(|address| ruleset.at_v4(address, ports)),
        Version::V6 => parsed
            .destination_v6(packet)
            .map(|address| ruleset.at_v6(address, ports)),
    };
    let entry = exact
        .unwrap_or(Entry::UNCLAIMED)
        .or_else(|| ruleset.at_any_address(ports));
    if !entry.is_claimed() {
        return Decision::pass(Reason::Unclaimed);
    }
    let (verdict, reason) = match entry.action() {
        Action::Local => (Verdict::Pass, Reason::RuleLocal),
        Action::Drop => (Verdict::Drop, Reason::RuleDrop),
    };
    Decision {
        verdict,
        reason,
        entry,
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

    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Pass,
            reason,
            entry: Entry::UNCLAIMED,
        }
    }
}
