//! The scratch space of the packets that a CPU is busy with.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use portdemux_common::{conntrack::Direction, pipeline::Scratch};

use crate::verifier::Lookup as _;

/// One packet on its way in, one on its way out.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 2> = PerCpuArray::new();

/// The scratch space of the packet that goes this way, taken up anew.
#[inline(always)]
pub(crate) fn of(direction: Direction) -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.find(direction as u32)?;
    // SAFETY: the value is this CPU's and of this hook, its memory stays while the program runs, and each step takes it
    // up once.
    Some(unsafe { &mut *scratch })
}
