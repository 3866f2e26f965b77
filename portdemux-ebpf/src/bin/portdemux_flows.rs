//! The programs that are attached where flows are tracked: one on the way in, for kernels with and without
//! frames in several buffers, and one on the way out.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    reason = "the form that the attributes `xdp` and `classifier` ask for and make"
)]

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use portdemux_ebpf::Attached;

/// Leaves the packet to the next program, or to the device if there is none (`TC_ACT_UNSPEC`, Linux
/// `include/uapi/linux/pkt_cls.h`; `TCX_NEXT`).
const NEXT: i32 = -1;

/// Dispatches a frame in any number of buffers (Linux 5.18 and newer).
#[xdp(frags)]
#[inline(always)]
pub fn portdemux_flow(ctx: XdpContext) -> u32 {
    portdemux_ebpf::dispatch::<true, true, Attached>(&ctx)
}

/// Dispatches a frame in one buffer (Linux 5.15).
#[xdp]
#[inline(always)]
pub fn portdemux_flowp(ctx: XdpContext) -> u32 {
    portdemux_ebpf::dispatch::<false, true, Attached>(&ctx)
}

/// Sees what is sent.
#[classifier]
#[inline(always)]
pub fn portdemux_sent(ctx: TcContext) -> i32 {
    portdemux_ebpf::notice(&ctx);
    NEXT
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
