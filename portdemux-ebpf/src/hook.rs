//! What all hooks of the kernel's have in common as environments of the pipeline: the maps, and the clock.

use core::marker::PhantomData;

use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use portdemux_common::{decide::Outcome, pipeline::Environment};

use crate::{
    Maps,
    ruleset::{self, Ruleset},
    verifier,
};

/// What is different where nobody but user space runs a program, to compare it with the host.
pub trait Variant: Copy {
    /// The time in nanoseconds of `CLOCK_MONOTONIC`, to a few milliseconds.
    fn coarse() -> u64;

    /// The same to the nanosecond.
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

/// A program's call with a context.
///
/// With `FRAGS` a frame can lie in several buffers (`xdp.frags`, Linux 5.18 and newer). With `FLOWS` flows are tracked.
pub(crate) struct Hook<'c, C, V = Attached, const FRAGS: bool = false, const FLOWS: bool = false> {
    pub(crate) ctx: &'c C,
    variant: PhantomData<V>,
}

impl<'c, C, V, const FRAGS: bool, const FLOWS: bool> Hook<'c, C, V, FRAGS, FLOWS> {
    #[inline(always)]
    pub(crate) const fn new(ctx: &'c C) -> Self {
        Self {
            ctx,
            variant: PhantomData,
        }
    }
}

// Not derived: that would ask the context to be copied, too.
impl<C, V, const FRAGS: bool, const FLOWS: bool> Clone for Hook<'_, C, V, FRAGS, FLOWS> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, V, const FRAGS: bool, const FLOWS: bool> Copy for Hook<'_, C, V, FRAGS, FLOWS> {}

impl<C, V: Variant, const FRAGS: bool, const FLOWS: bool> Environment
    for Hook<'_, C, V, FRAGS, FLOWS>
{
    type Rules = Ruleset;
    type Ruleset = Ruleset;
    type Tables = Maps<V>;

    #[inline(always)]
    fn ruleset(self) -> Option<Ruleset> {
        ruleset::in_force()
    }

    #[inline(always)]
    fn tables(&self) -> &Maps<V> {
        &Maps(PhantomData)
    }

    #[inline(always)]
    fn barrier(self) {
        verifier::barrier();
    }
}
