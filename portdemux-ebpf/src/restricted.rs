//! Packets for rules that list sources.
//!
//! What is left to decide about such a packet goes through a map value. The verifier knows nothing of
//! what it reads back from there, so that the search for a source is verified once and not for every way
//! through the parser.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use portdemux_common::{decide::Restricted, reason::Verdict, state::Generation};

use crate::{Witness, counting, ruleset};

/// A packet whose source is still to be judged.
#[derive(Clone, Copy)]
#[repr(C)]
struct Pending {
    restricted: Restricted,
    /// The generation that its entry is from.
    generation: Generation,
    /// Index of its destination port.
    port: usize,
    /// Length of its frame in bytes.
    length: u64,
}

/// The packet that a CPU is busy with.
#[btf_map]
static PENDING: PerCpuArray<Pending, 1> = PerCpuArray::new();

/// Leaves a packet to [`judge`].
#[inline(always)]
pub(crate) fn leave(
    generation: Generation,
    restricted: Restricted,
    port: Option<usize>,
    length: u64,
) {
    if let Some(pending) = PENDING.get_ptr_mut(0) {
        let now = Pending {
            restricted,
            generation,
            port: port.unwrap_or(usize::MAX),
            length,
        };
        // SAFETY: the value is this CPU's, and no other program uses the map.
        unsafe { *pending = now };
    }
}

/// Judges the source of the packet that was left, and counts it; nothing if a map has no element.
#[inline(always)]
pub(crate) fn judge<W: Witness>(witness: W) -> Option<Verdict> {
    let pending = PENDING.get_ptr(0)?;
    // SAFETY: as above.
    let pending = unsafe { *pending };
    let decision = pending.restricted.decide(ruleset::of(pending.generation)?);
    witness.see_judged(&decision);
    counting::count(pending.length, Some(pending.port), &decision);
    Some(decision.verdict)
}
