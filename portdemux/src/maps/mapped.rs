//! Memory of a BPF array that user space shares with the kernel.

use std::{
    io, iter,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    panic::{self, AssertUnwindSafe},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

/// How many bytes are mapped at a time, a multiple of every size of a page.
///
/// The kernel enters every page of such a mapping at once: the maps of an instance have tens of
/// megabytes, more on more CPUs, and most commands need a few pages of them.
const PIECE: usize = 512 << 10;
const WORD: usize = size_of::<AtomicU64>();

/// What a piece that cannot be mapped leaves [`catching`] with.
struct Unmapped(io::Error);

/// Ends what is being done: there is no memory to go on with.
fn give_up(error: io::Error) -> ! {
    panic::resume_unwind(Box::new(Unmapped(error)))
}

/// Does something with maps; that a piece of one cannot be mapped becomes an error, as it can where little memory is
/// left.
///
/// Every look at a map would have to be fallible otherwise, although its first look decides for each piece.
///
/// # Errors
///
/// Those of `work`, and that memory cannot be mapped.
pub(crate) fn catching<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        match payload.downcast::<Unmapped>() {
            Ok(unmapped) => Err(unmapped.0).context("map memory of the instance"),
            Err(other) => panic::resume_unwind(other),
        }
    })
}

/// The values of an array map that was made with `BPF_F_MMAPABLE`, as 64-bit words.
///
/// Programs and other processes write the same memory: every access is atomic, so what is read is
/// some value that was written, never a mix of two. Loads acquire and stores release: what is read stands in the
/// order in which it was written, also where the machine does not keep it.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: OwnedFd,
    bytes: usize,
    pieces: Box<[OnceLock<MmapRaw>]>,
}

impl Mapped {
    /// The first `bytes` bytes of an array map, for reading and writing.
    ///
    /// # Errors
    ///
    /// The map is smaller, was not made to be mapped, or was opened for reading only.
    pub(crate) fn new<Fd: AsFd>(map: Fd, bytes: usize) -> io::Result<Self> {
        let mapped = Self {
            map: map.as_fd().try_clone_to_owned()?,
            bytes,
            pieces: iter::repeat_with(OnceLock::new)
                .take(bytes.div_ceil(PIECE))
                .collect(),
        };
        // The last piece says most about the map; it is needed the least, and is not kept.
        if let Some(last) = mapped.pieces.len().checked_sub(1) {
            mapped.map_piece(last)?;
        }
        Ok(mapped)
    }

    /// The kernel's number for the map.
    pub(crate) fn id(&self) -> Result<u32> {
        let map = MapData::from_fd(self.map.try_clone()?)?;
        Ok(map.info()?.id())
    }

    /// How many bytes there are.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn map_piece(&self, number: usize) -> io::Result<MmapRaw> {
        let begin = number * PIECE;
        MmapOptions::new()
            .offset(begin as u64)
            .len((self.bytes - begin).min(PIECE))
            .map_raw(self.map.as_raw_fd())
    }

    #[expect(unsafe_code, reason = "a shared mapping has no safe view")]
    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
    fn piece(&self, number: usize) -> &[AtomicU64] {
        let memory = self.pieces[number].get_or_init(|| {
            self.map_piece(number)
                .unwrap_or_else(|error| give_up(error))
        });
        let length = memory.len() / WORD;
        // SAFETY: the mapping is aligned to a page, stays while `self` does, and is as long as the
        // slice; the kernel keeps the map while it is mapped. Whoever else writes the memory does
        // so by whole aligned words, as an atomic does.
        unsafe { std::slice::from_raw_parts(memory.as_ptr().cast::<AtomicU64>(), length) }
    }

    /// The words from `byte` bytes on, a multiple of 8, `count` of them or as many as there are, in
    /// the runs in which they are mapped.
    pub(crate) fn runs(&self, byte: usize, count: usize) -> impl Iterator<Item = &[AtomicU64]> {
        const PIECE_WORDS: usize = PIECE / WORD;
        let mut next = byte / WORD;
        let end = (next + count).min(self.bytes / WORD);
        iter::from_fn(move || {
            let left = end.checked_sub(next).filter(|&left| left > 0)?;
            let rest = &self.piece(next / PIECE_WORDS)[next % PIECE_WORDS..];
            let run = &rest[..rest.len().min(left)];
            next += run.len();
            Some(run)
        })
    }

    /// The word at `byte` bytes from the start of the map, which must be a multiple of 8.
    pub(crate) fn word(&self, byte: usize) -> &AtomicU64 {
        &self.piece(byte / PIECE)[byte % PIECE / WORD]
    }

    /// Copies as many words as `into` holds, from `byte` bytes on.
    pub(crate) fn read(&self, byte: usize, into: &mut [u64]) {
        let from = self.runs(byte, into.len()).flatten();
        for (to, from) in into.iter_mut().zip(from) {
            *to = from.load(Ordering::Acquire);
        }
    }

    /// Adds to each number what stands in its place, from `byte` bytes on.
    pub(crate) fn add(&self, byte: usize, sums: &mut [u64]) {
        let mut left = sums;
        for run in self.runs(byte, left.len()) {
            let (here, next) = left.split_at_mut(run.len());
            for (sum, word) in here.iter_mut().zip(run) {
                *sum = sum.wrapping_add(word.load(Ordering::Acquire));
            }
            left = next;
        }
    }

    /// Writes those of the words that differ from what stands at `byte` bytes.
    pub(crate) fn write(&self, byte: usize, words: &[u64]) {
        let to = self.runs(byte, words.len()).flatten();
        for (to, &word) in to.zip(words) {
            if to.load(Ordering::Relaxed) != word {
                to.store(word, Ordering::Release);
            }
        }
    }
}
