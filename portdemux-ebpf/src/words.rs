//! Words that programs and user space share.

use core::{
    cell::UnsafeCell,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
};

use portdemux_common::memory::{Memory, Word};

use crate::{
    variant::{Maps, Variant},
    verifier::{self, launder},
};

/// A word of a map's memory.
#[repr(transparent)]
pub(crate) struct Shared(UnsafeCell<u64>);

impl<V: Variant> Memory for Maps<V> {
    type Word = Shared;

    #[inline(always)]
    fn launder(&self, number: u64) -> u64 {
        launder(number).unwrap_or(u64::MAX)
    }
}

impl Word for Shared {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: the word is in a map's memory for as long as the program runs. Others write it at the
        // same time, as a whole.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, word: u64) {
        // SAFETY: as above.
        unsafe { self.0.get().write_volatile(word) }
    }

    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> bool {
        // The atomic types have no such method for this target, although it has the instruction.
        // SAFETY: as above.
        let (_, is_replaced) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0.get(),
                old,
                new,
            )
        };
        is_replaced
    }

    #[inline(always)]
    fn acquired(&self, seen: u64) -> bool {
        // An atomic operation that fetches is a full barrier (Linux `Documentation/bpf/standardization`), and the
        // one barrier that all kernels have.
        cfg!(bpf_target_arch = "x86_64") || self.replace(seen, seen)
    }

    #[inline(always)]
    fn hide(number: u64) -> u64 {
        verifier::hidden(number)
    }

    #[inline(always)]
    fn publish(&self, word: u64) {
        // One that another CPU has changed meanwhile is another's to publish.
        if cfg!(bpf_target_arch = "x86_64") || !self.replace(self.load(), word) {
            self.store(word);
        }
    }
}

impl Shared {
    /// Adds a number.
    #[inline(always)]
    pub(crate) fn add(&self, number: u64) {
        // SAFETY: as above.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0.get(), number) };
    }
}

/// Half a word of a map's memory.
#[repr(transparent)]
pub(crate) struct Half(UnsafeCell<u32>);

impl Half {
    #[inline(always)]
    pub(crate) fn load(&self) -> u32 {
        // SAFETY: as of a whole word.
        unsafe { self.0.get().read_volatile() }
    }

    /// Adds 1 and returns what was there before.
    #[inline(always)]
    pub(crate) fn take(&self) -> u32 {
        // SAFETY: as of a whole word.
        unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(self.0.get(), 1) }
    }

    /// Stores a number if nothing but zero is there.
    #[inline(always)]
    pub(crate) fn fill(&self, number: u32) {
        // SAFETY: as of a whole word.
        unsafe {
            atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0.get(),
                0,
                number,
            )
        };
    }
}
