//! Buckets of flows as instances before ABI 9 have them: what is counted of a flow stands in its slot.

use portdemux_common::{bucket::SLOTS, conntrack::table::SLOT_WORDS};

/// How many words a slot had.
const WORDS: usize = 12;
/// Where the counters of one direction stood in them, those that were received and those that were sent.
const COUNTS: [usize; 2] = [8, 10];

/// Where a word of this binary's buckets stands in one of those, both from the beginning of the bucket.
pub(super) const fn word(own: usize) -> usize {
    let Some(at) = own.checked_sub(SLOTS) else {
        return own;
    };
    let (slot, word) = match at.checked_sub(SLOTS * SLOT_WORDS) {
        None => (at / SLOT_WORDS, at % SLOT_WORDS),
        Some(at) => (at / 2 % SLOTS, COUNTS[at / 2 / SLOTS] + at % 2),
    };
    SLOTS + slot * WORDS + word
}
