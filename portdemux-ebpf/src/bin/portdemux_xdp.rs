//! The program that is attached to interfaces.
#![no_std]
#![no_main]

use aya_ebpf::{macros::xdp, programs::XdpContext};

/// Dispatches a frame.
#[xdp(frags)]
pub fn portdemux(ctx: XdpContext) -> u32 {
    portdemux_ebpf::dispatch(&ctx, ())
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
