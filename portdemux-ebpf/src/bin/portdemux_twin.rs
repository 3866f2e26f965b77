//! The twin of the attached program: the same decision and counting, in maps of its own, and a
//! record of what it saw.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    reason = "the form that the attribute `xdp` asks for and makes"
)]

use aya_ebpf::{
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use portdemux_common::{decide::Decision, parse::Parsed, trace::Trace};
use portdemux_ebpf::{WholeFrame, Witness};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// What the program saw in the last frame.
#[btf_map]
static TRACE: Array<Trace, 1, MMAPABLE> = Array::new();

#[derive(Clone, Copy)]
struct WriteDown;

impl Witness for WriteDown {
    #[inline(always)]
    fn see(self, ctx: &XdpContext, parsed: &Parsed, decision: &Decision) {
        let Some(trace) = TRACE.get_ptr_mut(0) else {
            return;
        };
        let trace_now = Trace::new(&WholeFrame::new(ctx), parsed, decision);
        // SAFETY: the one value of the array, which the control plane reads only after the run.
        unsafe { *trace = trace_now };
    }

    #[inline(always)]
    fn see_judged(self, decision: &Decision) {
        let Some(trace) = TRACE.get_ptr_mut(0) else {
            return;
        };
        // SAFETY: as above.
        let trace = unsafe { &mut *trace };
        trace.verdict = decision.verdict as u8;
        trace.reason = decision.reason as u8;
    }
}

/// Dispatches a frame and writes down why.
#[xdp(frags)]
#[inline(always)]
pub fn portdemux_twin(ctx: XdpContext) -> u32 {
    portdemux_ebpf::dispatch::<true, _>(&ctx, WriteDown)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
