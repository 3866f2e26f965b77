//! The first step: what a frame says.

use core::hint::cold_path;

use super::Ingress;
use crate::{
    packet::Packet as _,
    parse::{self, Continuation, Parsed},
};

/// What is to be done with a frame that was read. It is compiled into every place where parsing ends.
pub trait Finish: Copy {
    /// What comes of it.
    type Output;

    /// Takes the frame over: `length` is that of the whole frame in bytes, `scattered` says whether its headers may lie in
    /// several buffers.
    fn finish(self, parsed: &Parsed, length: usize, scattered: bool) -> Self::Output;
}

/// Reads a frame and hands on what it says.
#[inline(always)]
pub fn parse<E: Ingress, F: Finish>(environment: E, finish: F) -> F::Output {
    let frame = environment.frame();
    if let Some(output) = parse::parse_sound(&frame, Sound(environment, finish)) {
        return output;
    }
    cold_path();
    if !E::SCATTERS {
        let parsed = parse::parse(&frame);
        return finish.finish(&parsed, frame.length(), false);
    }
    // Malformed, or a frame in several buffers (jumbo MTU) that only looks cut off.
    let whole = environment.whole();
    let parsed = parse::parse(&whole);
    finish.finish(&parsed, whole.length(), true)
}

struct Sound<E, F>(E, F);

impl<E: Ingress, F: Finish> Continuation<E::Frame> for Sound<E, F> {
    type Output = F::Output;

    #[inline(always)]
    fn sound(self, frame: &E::Frame, parsed: &Parsed) -> F::Output {
        let Self(environment, finish) = self;
        finish.finish(parsed, environment.length(frame), false)
    }
}
