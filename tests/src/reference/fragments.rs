//! What is remembered of first fragments.

use std::collections::HashMap;

use portdemux_common::{policy::TICK_SHIFT, reason::Verdict};

use super::{
    facts::{Piece, Whole},
    judgement::Judgement,
};

/// For how long a first fragment is remembered, in ticks: 30 seconds.
const LIFETIME: u64 = 30_000_000_000 >> TICK_SHIFT;

/// First fragments by their packets.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    known: HashMap<Whole, First>,
}

/// What came of a first fragment.
#[derive(Clone, Debug)]
struct First {
    judgement: Judgement,
    /// The rules under which it came.
    generation: u64,
    /// To which byte of its packet it reaches.
    end: usize,
    /// The tick at which it is forgotten.
    until: u64,
}

impl Fragments {
    /// Remembers what came of a first fragment at a tick.
    pub(super) fn note(&mut self, piece: &Piece, judgement: &Judgement, generation: u64, now: u64) {
        let new = First {
            judgement: judgement.clone(),
            generation,
            end: piece.end,
            until: now + LIFETIME,
        };
        let known = self.known.get_mut(&piece.whole);
        let Some(known) = known.filter(|known| known.holds(generation, now)) else {
            self.known.insert(piece.whole, new);
            return;
        };
        // The worst verdict and the longest reach stand; what would pass prolongs nothing that was dropped, and a shorter one
        // no longer one.
        let passes =
            |first: &First| matches!(first.judgement.verdict, Verdict::Pass | Verdict::Redirect);
        if passes(&new) && !passes(known) {
            return;
        }
        let is_shorter = new.end.div_ceil(8) < known.end.div_ceil(8);
        let (end, until) = if is_shorter {
            (known.end, known.until)
        } else {
            (new.end, new.until)
        };
        *known = First { end, until, ..new };
    }

    /// What comes of a later fragment, if its first one is known.
    pub(super) fn follow(&mut self, piece: &Piece, generation: u64, now: u64) -> Option<Judgement> {
        let known = self.known.get_mut(&piece.whole)?;
        if !known.holds(generation, now) {
            return None;
        }
        if piece.begin < known.end {
            known.judgement.verdict = Verdict::Drop;
            known.judgement.reason = "fragment_overlap";
        }
        Some(known.judgement.clone())
    }
}

impl First {
    const fn holds(&self, generation: u64, now: u64) -> bool {
        self.generation == generation && now < self.until
    }
}
