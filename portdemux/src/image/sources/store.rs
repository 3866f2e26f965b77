//! Where the words of a table go: into memory, or into the map that the kernel reads.

use portdemux_common::sources::{MAX_WORDS, tree::UNIT};

/// Words of a cache line.
const LINE: u32 = 8;

/// There is no room for a table, or it would take too long to change it in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoom {
    /// The words are used up.
    #[error("the table of sources is full")]
    Full,
    /// Nodes follow each other too often, or a change touches too much.
    #[error("the table of sources has to be built anew")]
    Unwieldy,
    /// An address is on lists until too many different times.
    #[error("too many different times")]
    Deadlines,
}

/// Words that can be read, written, and taken one run after the other.
pub(crate) trait Store {
    /// The first word that is not taken.
    fn next(&self) -> u32;

    /// Takes words up to `next`.
    fn take_to(&mut self, next: u32) -> Result<(), NoRoom>;

    /// The word at a place.
    fn read(&self, offset: u32) -> u64;

    /// Writes words that nobody reads yet.
    fn write(&mut self, offset: u32, words: &[u64]);

    /// Puts one word in the place of another; who reads it sees all that was written before.
    fn publish(&mut self, offset: u32, word: u64);

    /// Takes as many words, where a target can lead; a few of them in one line of the cache.
    fn take(&mut self, words: usize) -> Result<u32, NoRoom> {
        let count = u32::try_from(words).map_err(|_| NoRoom::Full)?;
        let mut offset = self.next().next_multiple_of(UNIT);
        if offset % LINE + count > LINE {
            offset = offset.next_multiple_of(LINE);
        }
        self.take_to(offset.checked_add(count).ok_or(NoRoom::Full)?)?;
        Ok(offset)
    }
}

/// A table that is being built.
impl Store for Vec<u64> {
    fn next(&self) -> u32 {
        u32::try_from(self.len()).expect("invariant: a table keeps its limit")
    }

    fn take_to(&mut self, next: u32) -> Result<(), NoRoom> {
        // Half of the map, so that the table of the next ruleset has room beside it.
        if next as usize > MAX_WORDS / 2 {
            return Err(NoRoom::Full);
        }
        self.resize(next as usize, 0);
        Ok(())
    }

    fn read(&self, offset: u32) -> u64 {
        self.get(offset as usize).copied().unwrap_or_default()
    }

    fn write(&mut self, offset: u32, words: &[u64]) {
        self[offset as usize..][..words.len()].copy_from_slice(words);
    }

    fn publish(&mut self, offset: u32, word: u64) {
        self[offset as usize] = word;
    }
}
