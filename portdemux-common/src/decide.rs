//! From what a frame says to what happens to it.

use crate::{
    parse::{Class, Fragment, Parsed},
    reason::{Reason, Verdict},
    ruleset::{Action, RulesetImage},
};

/// What happens to a packet, why, and by whose word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The claiming rule's id.
    pub rule: Option<u16>,
}

/// Decides about a frame under a ruleset.
///
/// The packet's ports are looked up only here: a frame without ports never meets a rule.
#[inline(always)]
#[must_use]
pub fn decide(parsed: &Parsed, ruleset: &RulesetImage) -> Decision {
    let ports = match parsed.class {
        Class::Ports(ports) => ports,
        Class::NoPorts if matches!(parsed.fragment, Fragment::Later) => {
            return Decision::pass(Reason::LaterFragment);
        }
        Class::NoPorts => return Decision::pass(Reason::NoPorts),
        Class::NonIp => return Decision::pass(Reason::NonIp),
        Class::Malformed(reason) if ruleset.header.malformed_drop != 0 => {
            return Decision { verdict: Verdict::Drop, reason, rule: None };
        }
        Class::Malformed(reason) => return Decision::pass(reason),
    };
    let entry = ruleset.lookup(parsed.destination, ports);
    let Some(rule) = entry.rule() else {
        return Decision::pass(Reason::Unclaimed);
    };
    match entry.action() {
        Action::Local => {
            Decision { verdict: Verdict::Pass, reason: Reason::RuleLocal, rule: Some(rule) }
        }
        Action::Drop => {
            Decision { verdict: Verdict::Drop, reason: Reason::RuleDrop, rule: Some(rule) }
        }
    }
}

impl Decision {
    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self { verdict: Verdict::Pass, reason, rule: None }
    }
}
