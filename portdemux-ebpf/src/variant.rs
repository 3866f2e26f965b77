//! A program as it is attached or as only user space runs it: its clock, and who sees what it decides.

use core::marker::PhantomData;

use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use portdemux_common::decision::Outcome;

/// What is different where nobody but user space runs a program, to compare it with the host.
pub trait Variant: Copy {
    /// The time in nanoseconds of `CLOCK_MONOTONIC`, to a few milliseconds.
    fn coarse() -> u64;

    /// The time in nanoseconds of `CLOCK_MONOTONIC`.
    fn precise() -> u64;

    /// Sees what was decided about a frame.
    fn see(outcome: Outcome);
}

/// The program that is attached.
#[derive(Clone, Copy)]
pub struct Attached;

impl Variant for Attached {
    #[inline(always)]
    fn coarse() -> u64 {
        // SAFETY: the helper takes nothing and cannot fail (Linux 5.11, kernel/bpf/helpers.c).
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn precise() -> u64 {
        // SAFETY: the helper takes nothing and cannot fail.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn see(_outcome: Outcome) {}
}

/// What the core asks for, in the maps, as a variant of the program has it.
pub(crate) struct Maps<V>(pub(crate) PhantomData<V>);
