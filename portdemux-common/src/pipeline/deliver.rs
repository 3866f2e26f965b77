//! The last steps of a packet that was decided about: destination, and count.

use core::hint::cold_path;

use super::Ingress;
use crate::{decide::Metadata, decision::Outcome, reason::Verdict};

/// Sends a packet on its way to the target of its rule, if it has one, and counts it; `port` is the index of the port
/// that it is counted for.
#[inline(always)]
pub(super) fn deliver<E: Ingress>(
    environment: E,
    metadata: &Metadata,
    port: u32,
    outcome: Outcome,
) -> Verdict {
    environment.see(outcome);
    let outcome = if matches!(outcome.verdict(), Verdict::Redirect) {
        cold_path();
        let settled = environment.redirect(metadata, outcome);
        if environment.knows_destinations() {
            environment.see(settled);
        }
        settled
    } else {
        outcome
    };
    environment.count_outcome(metadata.length, port as usize, outcome);
    outcome.verdict()
}
