//! Memory of another layout, seen as if it had this binary's.

use crate::maps::{layout::Runs, mapped::Mapped};

const WORD: usize = size_of::<u64>();

/// Memory, and where in it stands what this binary would find elsewhere.
#[derive(Debug)]
pub(crate) struct Translated {
    memory: Mapped,
    /// None if it stands where this binary looks.
    runs: Option<Runs>,
}

impl Translated {
    pub(crate) const fn new(memory: Mapped, runs: Option<Runs>) -> Self {
        Self { memory, runs }
    }

    pub(crate) const fn memory(&self) -> &Mapped {
        &self.memory
    }

    /// Copies as many words as `into` holds, from `byte` bytes on; what has no slot is zero.
    pub(crate) fn read(&self, byte: usize, into: &mut [u64]) {
        let Some(runs) = &self.runs else {
            return self.memory.read(byte, into);
        };
        into.fill(0);
        for part in runs.parts(byte, size_of_val(into)) {
            self.memory.read(
                part.from,
                &mut into[part.of.start / WORD..part.of.end / WORD],
            );
        }
    }

    /// Writes those of the words that differ and have a slot.
    pub(crate) fn write(&self, byte: usize, words: &[u64]) {
        let Some(runs) = &self.runs else {
            return self.memory.write(byte, words);
        };
        for part in runs.parts(byte, size_of_val(words)) {
            self.memory
                .write(part.from, &words[part.of.start / WORD..part.of.end / WORD]);
        }
    }
}
