//! What all hooks of the kernel's have in common as environments of the pipeline: the maps, and the clock.

use core::marker::PhantomData;

use portdemux_common::pipeline::Environment;

use crate::{
    ruleset::{self, Ruleset},
    variant::{Attached, Maps, Variant},
    verifier,
};

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
