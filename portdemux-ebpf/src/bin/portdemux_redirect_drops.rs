//! The programs that count what targets did not take, on tracepoints of the kernel.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    reason = "the form that the attribute `raw_tracepoint` asks for and makes"
)]

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

/// Frames that could not be put on their way (Linux 5.13 and newer).
#[raw_tracepoint(tracepoint = "xdp_redirect_err")]
#[inline(always)]
pub fn lost_redirect(ctx: RawTracePointContext) {
    let _ = portdemux_ebpf::redirect_drops::refused(&ctx);
}

/// Frames that an interface was given.
#[raw_tracepoint(tracepoint = "xdp_devmap_xmit")]
#[inline(always)]
pub fn lost_transmit(ctx: RawTracePointContext) {
    let _ = portdemux_ebpf::redirect_drops::transmitted(&ctx);
}

/// Frames that were put in the queue of a CPU.
#[raw_tracepoint(tracepoint = "xdp_cpumap_enqueue")]
#[inline(always)]
pub fn lost_enqueue(ctx: RawTracePointContext) {
    let _ = portdemux_ebpf::redirect_drops::queued(&ctx);
}

/// Frames that a CPU took from its queue.
#[raw_tracepoint(tracepoint = "xdp_cpumap_kthread")]
#[inline(always)]
pub fn lost_take(ctx: RawTracePointContext) {
    let _ = portdemux_ebpf::redirect_drops::taken(&ctx);
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
