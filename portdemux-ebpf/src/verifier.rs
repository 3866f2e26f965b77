//! What LLVM must not reorder or drop, as verifiers before Linux 6.14 need it where it stands.
//!
//! LLVM moves arithmetic on a pointer before the check that it is not null, and keeps several copies of an
//! index on the stack, of which it checks one and uses another. Linux 6.1 and 6.12 refuse the first, Linux
//! 6.1 the second: before 6.9 ("Assign ID to scalars on spill") a copy knows nothing of a check of the other.

use core::{
    arch::asm,
    hint::cold_path,
    intrinsics::is_val_statically_known,
    sync::atomic::{Ordering, compiler_fence},
};

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
};

/// Look-ups in maps, the only ones that the programs make.
pub(crate) trait Lookup<T> {
    /// The value at an index, for as long as the program runs.
    fn find(&self, index: u32) -> Option<*mut T>;

    /// The value at an index, for reading.
    #[inline(always)]
    fn find_ref(&self, index: u32) -> Option<&'static T> {
        // SAFETY: the memory of a map stays while the program runs. Whoever else writes to it does so as a
        // whole word, or where no program reads.
        self.find(index).map(|value| unsafe { &*value })
    }
}

impl<T, const ENTRIES: usize, const FLAGS: usize> Lookup<T> for Array<T, ENTRIES, FLAGS> {
    #[inline(always)]
    fn find(&self, index: u32) -> Option<*mut T> {
        self.get_ptr_mut(index).map(after_null_check)
    }
}

impl<T, const ENTRIES: usize, const FLAGS: usize> Lookup<T> for PerCpuArray<T, ENTRIES, FLAGS> {
    #[inline(always)]
    fn find(&self, index: u32) -> Option<*mut T> {
        self.get_ptr_mut(index).map(after_null_check)
    }
}

/// Keeps arithmetic on a pointer behind the check before it.
///
/// One instruction that changes nothing: without any, the kernel refuses the object for its line numbers.
#[inline(always)]
#[expect(
    clippy::pointers_in_nomem_asm_block,
    reason = "what the pointer leads to is not touched"
)]
fn after_null_check<T>(value: *mut T) -> *mut T {
    let mut value = value;
    // SAFETY: a register is set to what it holds.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    // SAFETY: it was checked, and is what it was.
    unsafe { core::hint::assert_unchecked(!value.is_null()) };
    value
}

/// Elements of arrays in the memory of maps.
pub(crate) trait Elements<T> {
    /// The element at an index, if it is in the array.
    fn element(&self, index: usize) -> Option<&T>;
}

impl<T, const LENGTH: usize> Elements<T> for [T; LENGTH] {
    #[inline(always)]
    fn element(&self, index: usize) -> Option<&T> {
        let index = bounded::<LENGTH>(index)?;
        // SAFETY: the index is below the length.
        Some(unsafe { self.get_unchecked(index) })
    }
}

/// The element of an array at an index, of which only as many bits count as the array has places.
#[inline(always)]
pub(crate) fn within<T, const POWER: usize>(array: &[T; POWER], index: usize) -> &T {
    const { assert!(POWER.is_power_of_two()) };
    // SAFETY: the index is below the length.
    unsafe { array.get_unchecked(masked::<POWER>(index)) }
}

/// The element of an array at an index, to be changed; only as many bits of the index count as the array has elements.
#[inline(always)]
pub(crate) fn within_mut<T, const POWER: usize>(array: &mut [T; POWER], index: usize) -> &mut T {
    const { assert!(POWER.is_power_of_two()) };
    // SAFETY: the index is below the length.
    unsafe { array.get_unchecked_mut(masked::<POWER>(index)) }
}

/// An index if it is below a length, in a register of which the verifier knows that too.
#[inline(always)]
fn bounded<const LENGTH: usize>(index: usize) -> Option<usize> {
    if index >= LENGTH {
        cold_path();
        return None;
    }
    if LENGTH.is_power_of_two() {
        return Some(masked::<LENGTH>(index));
    }
    let mut index = index;
    // The verifier goes on first with what is in bounds; the rest is then a part of that.
    // SAFETY: an index below the length stays what it is.
    unsafe {
        asm!("if {0} > {last} goto +1", "goto +1", "{0} = 0", inout(reg) index,
            last = const LENGTH - 1, options(pure, nomem, nostack));
    }
    Some(index)
}

/// A number below a power of two, in a register of which the verifier knows that too.
#[inline(always)]
pub(crate) fn masked<const POWER: usize>(number: usize) -> usize {
    if is_val_statically_known(number) {
        return number;
    }
    let mut number = number;
    // SAFETY: a number below the power stays what it is.
    unsafe {
        asm!("{0} &= {mask}", inout(reg) number, mask = const POWER - 1,
            options(pure, nomem, nostack));
    }
    number
}

/// Gives a number back of which LLVM knows nothing any more: of arithmetic that takes the place of a branch it would
/// make the branch again.
#[inline(always)]
pub(crate) fn hidden(number: u64) -> u64 {
    let mut number = number;
    // SAFETY: a register is set to what it holds.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// A number on its way past the verifier.
#[btf_map]
static NUMBER: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Gives a number back of which neither LLVM nor the verifier knows anything: the ways on which it can have come to be
/// meet there.
#[inline(always)]
pub(crate) fn launder(number: u64) -> Option<u64> {
    let slot = NUMBER.find(0)?;
    // SAFETY: the value is this CPU's.
    unsafe { slot.write_volatile(number) };
    // SAFETY: as above.
    Some(unsafe { slot.read_volatile() })
}

/// A barrier for the verifier, and no instruction: what was written to map values before is read from there after it,
/// and of that the verifier knows nothing, so that all ways to here meet.
#[inline(always)]
pub(crate) fn barrier() {
    compiler_fence(Ordering::SeqCst);
}
