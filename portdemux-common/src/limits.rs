//! How much of a rate is left, for a rule or for each of its sources.
//!
//! One word tells it: the theoretical arrival time of the generic cell rate algorithm ([`Rate`]), in
//! nanoseconds of `CLOCK_MONOTONIC`. A time that has passed says the same as none at all, so that a
//! source's word may be forgotten as soon as its time has come, and a table without anything else
//! to it holds as many sources as are within their bursts at once.

use crate::{
    bucket::{self, SLOTS, Slots},
    capacity::RULE_SLOTS,
    hash,
    ids::RuleId,
    memory::{Memory, Word},
    parse::Version,
    policy::Rate,
};

/// How many buckets the table of sources has: room for 131,072 sources within their bursts.
pub const BUCKETS: usize = 1 << 14;

/// How often a word is tried that other CPUs change at the same time.
const ATTEMPTS: u32 = 4;

/// Which of a rule's rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RateKind {
    /// That of all packets.
    Packets = 0,
    /// That of packets that begin flows.
    Flows = 1,
}

/// What is left of the rates of an instance. All zeros: everything.
#[derive(Debug)]
#[repr(C)]
pub struct LimitWords {
    /// Of each rule, by rule id and [`RateKind`].
    pub rules: [[u64; 2]; RULE_SLOTS],
    /// Of the sources of rules with rates for each.
    pub sources: [RateBucket<u64>; BUCKETS],
}

/// A bucket of sources, with their words. Their marks are hashes of rule, [`RateKind`] and source.
pub type RateBucket<W> = bucket::Bucket<W, [W; SLOTS]>;

const _: () = {
    assert!(size_of::<RateBucket<u64>>() == 128);
    assert!(size_of::<LimitWords>().is_multiple_of(4096));
};

/// Where the words are, and what time it is.
pub trait Limits: Memory {
    /// The time: `CLOCK_MONOTONIC` in nanoseconds, to the nanosecond.
    fn instant(&self) -> u64;

    /// The word of a rule.
    fn of_rule(&self, rule: RuleId, kind: RateKind) -> Option<&Self::Word>;

    /// A bucket of the table of sources.
    fn bucket(&self, at: u32) -> Option<&RateBucket<Self::Word>>;
}

/// For whom a rate holds: all, or one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateKey {
    /// The rule.
    pub rule: RuleId,
    /// Its rate.
    pub kind: RateKind,
    /// The source address: its upper and lower 64 bits; of IPv4 the address and 0.
    pub source: [u64; 2],
    /// Its version.
    pub version: Version,
    /// What the hashes of sources depend on.
    pub seed: u64,
}

impl RateKey {
    /// Hashes rule, rate and source. Of IPv6 the upper 64 bits count: who has one address of a
    /// network has them all (RFC 4291 §2.5.4).
    #[inline(always)]
    #[must_use]
    pub const fn hash(&self) -> u64 {
        let [high, _] = self.source;
        let (rule, kind) = (self.rule as u64, self.kind as u64);
        let what = rule << 8 | kind << 4 | self.version as u64;
        hash::mixed(hash::mixed(self.seed ^ high) ^ what)
    }

    /// Whether one more packet may come now, and takes its share if so.
    ///
    /// Where a word is nowhere to be found, nothing is limited.
    #[inline(always)]
    #[must_use]
    pub fn may<L: Limits>(&self, limits: &L, rate: &Rate, is_per_source: bool) -> bool {
        if rate.interval == 0 {
            return true;
        }
        let word = if is_per_source {
            of_source(limits, self.hash())
        } else {
            limits.of_rule(self.rule, self.kind)
        };
        match word {
            Some(word) => take(word, rate, limits.instant()),
            None => true,
        }
    }
}

/// Where the word of a source stands, by the hash of its key: the bucket and the mark.
#[inline(always)]
#[must_use]
pub const fn slot(hash: u64) -> (u32, u64) {
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer")]
    let mask = BUCKETS as u32 - 1;
    // That of a slot that is being written would be one of 2⁶³.
    (bucket::index(hash, mask), hash | 1)
}

/// The word of a source: its own, or the one that says least of another.
#[inline(always)]
fn of_source<L: Limits>(limits: &L, hash: u64) -> Option<&L::Word> {
    let (at, mark) = slot(hash);
    let bucket = limits.bucket(at)?;
    if let Some(found) = bucket::slot(limits, bucket.find(mark)) {
        return bucket.slots.get(found as usize);
    }
    let (least, _) = bucket.least(0);
    let least = bucket::slot(limits, least)?;
    let word = bucket.slots.get(least as usize)?;
    // Whoever else counts on this word for the moment takes a share of the wrong one.
    if bucket.seize(least) {
        word.store(0);
        bucket.hand_over(least, mark);
    }
    Some(word)
}

impl<W: Word> Slots for [W; SLOTS] {
    type Word = W;

    const WORDS: usize = SLOTS;

    fn of(word: impl FnMut(usize) -> W) -> Self {
        core::array::from_fn(word)
    }

    fn words(&self) -> impl Iterator<Item = &W> {
        self.iter()
    }

    /// The word whose time came first or comes first gives way first; a few nanoseconds make no difference.
    #[inline(always)]
    fn worth(&self, slot: u32, _now: u32) -> u64 {
        match self.get(slot as usize) {
            Some(word) => (word.load() & u64::MAX >> 1) >> 3,
            None => u64::MAX >> 4,
        }
    }
}

/// How far a word lies ahead, in nanoseconds.
#[inline(always)]
const fn ahead(expected: u64, rate: &Rate, now: u64) -> u64 {
    let ahead = expected.saturating_sub(now);
    // What lies further ahead than this rate ever gets is left of another one.
    if ahead > rate.tolerance.saturating_add(rate.interval) {
        0
    } else {
        ahead
    }
}

/// How many packets may come `now`, one right after the other, where a word says `expected`. The rate is a limit.
#[must_use]
pub const fn left(expected: u64, rate: &Rate, now: u64) -> u64 {
    match rate.tolerance.checked_sub(ahead(expected, rate, now)) {
        Some(early) => early / rate.interval + 1,
        None => 0,
    }
}

/// Takes the share of a packet that comes `now`, in nanoseconds, if there is one left, and says whether there
/// was (ITU-T I.371 §5.4.1.1, virtual
/// scheduling).
#[inline(always)]
pub fn take<W: Word>(word: &W, rate: &Rate, now: u64) -> bool {
    for _ in 0..ATTEMPTS {
        let expected = word.load();
        let ahead = ahead(expected, rate, now);
        if ahead > rate.tolerance {
            return false;
        }
        if word.replace(expected, now + ahead + rate.interval) {
            return true;
        }
    }
    // As many others have taken theirs in this very moment: one packet more is the smaller evil.
    true
}

#[cfg(test)]
mod tests;
