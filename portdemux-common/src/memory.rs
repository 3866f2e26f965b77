//! Memory that programs on all CPUs and user space share.

/// A word that programs and user space share.
///
/// The kernel implements it for memory of a map, the host for atomics.
pub trait Word {
    /// Reads it.
    fn load(&self) -> u64;
    /// Writes it.
    fn store(&self, word: u64);
    /// Exchanges it if it is still `old`; returns whether it was.
    fn replace(&self, old: u64, new: u64) -> bool;
    /// Orders what is read next behind the load that gave `seen`; returns false if it knows that another stands
    /// there by now.
    ///
    /// Where loads stay in their order it does nothing.
    fn acquired(&self, seen: u64) -> bool;
    /// Writes it behind everything that was written before.
    fn publish(&self, word: u64);
    /// Gives a number back of which the compiler knows nothing any more: what is computed without a branch stays
    /// without one.
    #[inline(always)]
    #[must_use]
    fn hide(number: u64) -> u64 {
        number
    }
}

/// The lesser of two numbers below 2⁶³, without a branch: of each, the kernel's verifier would follow both ways.
#[inline(always)]
pub(crate) fn lesser<W: Word>(a: u64, b: u64) -> u64 {
    let is_less = W::hide((a.wrapping_sub(b).cast_signed() >> 63).cast_unsigned());
    b ^ (a ^ b) & is_less
}

/// All bits if a tick lies ahead, none if it has come, without a branch.
#[inline(always)]
pub(crate) fn ahead<W: Word>(tick: u32, now: u32) -> u64 {
    W::hide(i64::from(now.wrapping_sub(tick).cast_signed() >> 31).cast_unsigned())
}

/// Where the words are, and what the kernel's verifier needs between the steps that use them.
pub trait Memory {
    /// A word.
    type Word: Word;

    /// Gives a number back of which neither compiler nor verifier knows anything: all ways on which it can have come
    /// to be meet there. The host has no verifier, and the number is what it was.
    #[inline(always)]
    fn launder(&self, number: u64) -> u64 {
        number
    }
}

#[cfg(target_has_atomic = "64")]
impl Word for core::sync::atomic::AtomicU64 {
    fn load(&self) -> u64 {
        self.load(core::sync::atomic::Ordering::Acquire)
    }

    fn store(&self, word: u64) {
        self.store(word, core::sync::atomic::Ordering::Release);
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        use core::sync::atomic::Ordering::{Relaxed, SeqCst};
        self.compare_exchange(old, new, SeqCst, Relaxed).is_ok()
    }

    fn acquired(&self, _seen: u64) -> bool {
        // Every load is an acquire.
        true
    }

    fn publish(&self, word: u64) {
        Word::store(self, word);
    }
}

impl<W: Word> Word for &W {
    fn load(&self) -> u64 {
        W::load(self)
    }

    fn store(&self, word: u64) {
        W::store(self, word);
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        W::replace(self, old, new)
    }

    fn acquired(&self, seen: u64) -> bool {
        W::acquired(self, seen)
    }

    fn publish(&self, word: u64) {
        W::publish(self, word);
    }

    fn hide(number: u64) -> u64 {
        W::hide(number)
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn the_lesser_is_found_up_to_63_bits() {
        let most = u64::MAX >> 1;
        for (a, b) in [
            (0, 0),
            (0, 1),
            (5, 3),
            (0, most),
            (most - 1, most),
            (1 << 40, 1 << 41),
        ] {
            assert_eq!(lesser::<AtomicU64>(a, b), a.min(b));
            assert_eq!(lesser::<AtomicU64>(b, a), a.min(b));
        }
    }

    #[test]
    fn a_tick_lies_ahead_until_it_comes_also_where_ticks_wrap_around() {
        for now in [0, 100, u32::MAX, u32::MAX - 1] {
            let ahead = |ticks: i32| ahead::<AtomicU64>(now.wrapping_add_signed(ticks), now);
            assert_eq!([ahead(1), ahead(1 << 30)], [u64::MAX; 2]);
            assert_eq!([ahead(0), ahead(-1), ahead(-(1 << 30))], [0; 3]);
        }
    }
}
