//! From what a frame says to what happens to it.

use bytemuck::{Pod, Zeroable};

use crate::{
    packet::Packet,
    parse::{Fragment, Parsed, Version},
    reason::{Reason, Verdict},
    ruleset::{Action, Entry, RuleId, RulesetImage},
    sources::Admission,
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
    let decision = by_port(packet, parsed, ruleset);
    if decision.entry.is_restricted() {
        Restricted::new(packet, parsed, decision.entry).decide(ruleset)
    } else {
        decision
    }
}

/// Decides about a frame as if everyone might use every port.
///
/// That is all there is to decide unless the packet's entry is restricted; then [`Restricted`] goes on.
/// Only a frame with ports ever meets a rule. Its destination address is read again here and only if
/// the ruleset has claims of addresses.
#[inline(always)]
#[must_use]
pub fn by_port<P: Packet + ?Sized>(
    packet: &P,
    parsed: &Parsed,
    ruleset: &RulesetImage,
) -> Decision {
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
    Decision::admitted(entry)
}

/// What is left of a packet for a restricted entry when only its source is still to be judged.
///
/// The kernel writes it down before it goes on: the verifier then follows one way from here, and not
/// as many as there are through the parser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Restricted {
    /// The source address: the upper and the lower 64 bits of IPv6, or IPv4 and 0; host byte order.
    pub source: [u64; 2],
    /// What the tables say about the packet's port.
    pub entry: Entry,
    /// [`Version`].
    pub version: u32,
}

impl Restricted {
    /// Takes the source address from `packet`, which `parsed` was read from; 0 if it cannot be read.
    #[inline(always)]
    #[must_use]
    pub fn new<P: Packet + ?Sized>(packet: &P, parsed: &Parsed, entry: Entry) -> Self {
        let (source, version) = match parsed.version {
            Some(Version::V6) => {
                let address = parsed.source_v6(packet).unwrap_or_default();
                let [high, low]: [[u8; 8]; 2] = bytemuck::cast(address);
                let source = [u64::from_be_bytes(high), u64::from_be_bytes(low)];
                (source, Version::V6)
            }
            Some(Version::V4) | None => {
                let address = parsed.source_v4(packet).unwrap_or_default();
                ([u64::from(u32::from_be_bytes(address)), 0], Version::V4)
            }
        };
        Self {
            source,
            entry,
            version: version as u32,
        }
    }

    /// Judges the source.
    #[inline(always)]
    #[must_use]
    pub fn decide(&self, ruleset: &RulesetImage) -> Decision {
        let version = if self.version == Version::V6 as u32 {
            Version::V6
        } else {
            Version::V4
        };
        let admission = ruleset.sources.admit(
            &ruleset.header.sources,
            version,
            self.source,
            self.entry.rule(),
        );
        let reason = match admission {
            Admission::Admitted => return Decision::admitted(self.entry),
            Admission::Denied => Reason::SourceDenied,
            Admission::NotAllowed => Reason::SourceNotAllowed,
        };
        Decision {
            verdict: Verdict::Drop,
            reason,
            entry: self.entry,
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

    /// What the rule of an entry does with those who may use it.
    #[inline(always)]
    const fn admitted(entry: Entry) -> Self {
        let (verdict, reason) = match entry.action() {
            Action::Local => (Verdict::Pass, Reason::RuleLocal),
            Action::Drop => (Verdict::Drop, Reason::RuleDrop),
        };
        Self {
            verdict,
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
