//! Buckets of flows as instances before ABI 9 have them: what is counted of a flow stands behind its place.

use portdemux_common::flows::table::{PLACE_WORDS, WAYS};

/// How many words a place and its counters had.
const WORDS: usize = 12;
/// Where the counters of one direction stood in them, those that were received and those that were sent.
const COUNTS: [usize; 2] = [8, 10];

/// Where a word of this binary's buckets stands in one of those, both from the beginning of the bucket.
pub(super) const fn word(own: usize) -> usize {
    let Some(at) = own.checked_sub(WAYS) else {
        return own;
    };
    let (way, word) = match at.checked_sub(WAYS * PLACE_WORDS) {
        None => (at / PLACE_WORDS, at % PLACE_WORDS),
        Some(at) => (at / 2 % WAYS, COUNTS[at / 2 / WAYS] + at % 2),
    };
    WAYS + way * WORDS + word
}
