//! A socket lookup: which socket gets a connection or a datagram.

use core::borrow::Borrow as _;

use super::SocketLookup;
use crate::{destination, reason::Verdict, ruleset::RulesetTables as _, sockets, wire::Port};

/// Decides about a socket lookup and answers it; returns whether it goes on, to the socket that was found or to the one
/// that the kernel finds. Nothing if no rule is about it, which takes its usual way.
#[inline(always)]
pub fn lookup<E: SocketLookup>(environment: E) -> Option<bool> {
    let lookup = environment.lookup()?;
    let ruleset = environment.ruleset()?;
    let ruleset: &E::Rules = ruleset.borrow();
    let metadata = lookup.claim(ruleset)?;
    let is_guarded = environment.is_guarded()?;
    let decision = sockets::judge(&metadata, is_guarded, ruleset, environment.tables());
    environment.see(&decision);
    let port = Port(lookup.destination_port).index(lookup.transport);
    if decision.verdict.is_dropped() {
        environment.count(port, &decision);
        return Some(false);
    }
    let target = ruleset.target(decision.entry.rule())?;
    if environment.assign(&metadata, &lookup, target) {
        if !is_guarded {
            environment.count(port, &decision);
        }
        return Some(true);
    }
    let decision = destination::fall_back(decision.entry, target);
    environment.see(&decision);
    if !is_guarded {
        environment.count(port, &decision);
    }
    Some(match decision.verdict {
        Verdict::Pass | Verdict::Redirect => true,
        Verdict::Drop | Verdict::Reject => false,
    })
}
