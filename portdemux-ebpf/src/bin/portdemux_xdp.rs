//! The program that is attached to interfaces, for kernels with and without frames in several buffers.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    reason = "the form that the attribute `xdp` asks for and makes"
)]

use aya_ebpf::{macros::xdp, programs::XdpContext};
use portdemux_ebpf::Attached;

/// Dispatches a frame in any number of buffers (Linux 5.18 and newer).
#[xdp(frags)]
#[inline(always)]
pub fn portdemux(ctx: XdpContext) -> u32 {
    portdemux_ebpf::dispatch::<true, false, Attached>(&ctx)
}

/// Dispatches a frame in one buffer (Linux 5.15).
#[xdp]
#[inline(always)]
pub fn portdemux_plain(ctx: XdpContext) -> u32 {
    portdemux_ebpf::dispatch::<false, false, Attached>(&ctx)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
