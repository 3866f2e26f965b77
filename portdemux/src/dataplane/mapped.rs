//! Memory of a BPF array that user space shares with the kernel.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
    sync::atomic::{AtomicU64, Ordering},
};

use memmap2::{MmapOptions, MmapRaw};

/// The values of an array map that was made with `BPF_F_MMAPABLE`, as 64-bit words.
///
/// Programs and other processes write the same memory: every access is atomic, so what is read is
/// some value that was written, never a mix of two.
#[derive(Debug)]
pub(super) struct Mapped {
    memory: MmapRaw,
}

impl Mapped {
    /// Maps the first `bytes` bytes of an array map for reading and writing.
    ///
    /// # Errors
    ///
    /// The map is smaller, was not made to be mapped, or was opened for reading only.
    pub(super) fn new<Fd: AsFd>(map: Fd, bytes: usize) -> io::Result<Self> {
        let memory = MmapOptions::new()
            .len(bytes)
            .map_raw(map.as_fd().as_raw_fd())?;
        Ok(Self { memory })
    }

    /// The shared words.
    #[expect(unsafe_code, reason = "a shared mapping has no safe view")]
    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
    pub(super) fn words(&self) -> &[AtomicU64] {
        let length = self.memory.len() / size_of::<AtomicU64>();
        // SAFETY: the mapping is aligned to a page, stays while `self` does, and is as long as the
        // slice; the kernel keeps the map while it is mapped. Whoever else writes the memory does
        // so by whole aligned words, as an atomic does.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast::<AtomicU64>(), length) }
    }

    /// The word at `byte` bytes from the start of the map, which must be a multiple of 8.
    pub(super) fn word(&self, byte: usize) -> &AtomicU64 {
        &self.words()[byte / size_of::<AtomicU64>()]
    }

    /// Copies as many words as `into` holds, from `byte` bytes on.
    pub(super) fn read(&self, byte: usize, into: &mut [u64]) {
        let from = &self.words()[byte / size_of::<AtomicU64>()..];
        for (to, from) in into.iter_mut().zip(from) {
            *to = from.load(Ordering::Relaxed);
        }
    }

    /// Writes those of the words that differ from what stands at `byte` bytes.
    pub(super) fn write(&self, byte: usize, words: &[u64]) {
        let to = &self.words()[byte / size_of::<AtomicU64>()..];
        for (to, &word) in to.iter().zip(words) {
            if to.load(Ordering::Relaxed) != word {
                to.store(word, Ordering::Relaxed);
            }
        }
    }
}
