//! From what a frame says to what happens to it.
//!
//! Most packets are decided by their port alone ([`by_port`]): one look at one table. Where more is to
//! be asked (claims of addresses, terms of a rule, the state of flows), what the packet says is written
//! down as [`Metadata`], and the rest is decided by that. In which order all of this happens,
//! [`crate::pipeline`] says.

mod icmp;
mod metadata;
#[cfg(test)]
mod tests;

use core::hint::cold_path;

pub use metadata::Metadata;
pub(crate) use metadata::bounded;

use crate::{
    decision::Decision,
    entry::Entry,
    parse::{Fragment, Parsed},
    policy::Fragments,
    reason::{Reason, Verdict},
    ruleset::RulesetTables,
};

/// Decides about a frame by its port.
///
/// Only a frame with ports ever meets a rule.
///
/// # Errors
///
/// More than its port decides about it: what the table of ports says, so that [`Metadata`] goes on with it.
#[inline(always)]
pub fn by_port<R: RulesetTables>(parsed: &Parsed, ruleset: &R) -> Result<Decision, Entry> {
    if let Some(reason) = parsed.malformed {
        let verdict = if ruleset.header().defaults.malformed_pass != 0 {
            Verdict::Pass
        } else {
            Verdict::Drop
        };
        return Ok(Decision {
            verdict,
            reason,
            entry: Entry::UNCLAIMED,
        });
    }
    if parsed.version.is_none() {
        return Ok(Decision::pass(Reason::NonIp));
    }
    let Some(ports) = parsed.ports() else {
        if ruleset.header().defaults.portless_open != 0 {
            return Err(Entry::UNCLAIMED.open());
        }
        return Ok(Decision::pass(match parsed.fragment {
            Fragment::Later => Reason::LaterFragment,
            Fragment::None | Fragment::First => Reason::NoPorts,
        }));
    };
    let entry = ruleset.at_any_address(ports);
    if entry.is_open() {
        cold_path();
        return Err(entry);
    }
    // The others of its packet will go where it goes.
    if matches!(parsed.fragment, Fragment::First) && tracks_fragments(ruleset) {
        cold_path();
        return Err(entry.open());
    }
    Ok(Decision::closed(entry))
}

/// Whether fragments go where the first one of their packet went.
#[inline(always)]
fn tracks_fragments<R: RulesetTables>(ruleset: &R) -> bool {
    ruleset.header().defaults.fragments == Fragments::Track as u32
}
