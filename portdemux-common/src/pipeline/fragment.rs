//! Fragments, which go where the first one of their packet went.

use super::{Ingress, Scratch, deliver::deliver};
use crate::{decision::Outcome, fragments, reason::Verdict};

/// Counts a first fragment of which this came, and remembers that for the others of its packet.
#[inline(always)]
pub(super) fn lead<E: Ingress>(environment: E, scratch: &mut Scratch, outcome: Outcome) -> Verdict {
    scratch.piece = scratch.metadata.piece(outcome);
    environment.barrier();
    fragments::note(environment.tables(), &scratch.piece, environment.tick());
    environment.barrier();
    count(environment, scratch)
}

/// Decides about a later fragment as about the first one, and counts it with that. Nobody is told of one that is
/// rejected.
#[inline(always)]
pub(super) fn follow<E: Ingress>(
    environment: E,
    scratch: &mut Scratch,
    ruleset: &E::Rules,
) -> Verdict {
    let unknown = scratch.metadata.decide_later(ruleset).outcome();
    scratch.piece = scratch.metadata.piece(unknown);
    environment.barrier();
    fragments::follow(environment.tables(), &mut scratch.piece, environment.tick());
    environment.barrier();
    match count(environment, scratch) {
        taken @ (Verdict::Pass | Verdict::Redirect) => taken,
        Verdict::Drop | Verdict::Reject => Verdict::Drop,
    }
}

#[inline(always)]
fn count<E: Ingress>(environment: E, scratch: &Scratch) -> Verdict {
    let outcome = Outcome(scratch.piece.outcome);
    deliver(environment, &scratch.metadata, scratch.piece.port, outcome)
}
