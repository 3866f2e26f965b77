//! The programs that hand connections and datagrams to sockets: one that is asked for a socket, and one
//! that sees sockets begin to listen.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    reason = "the form that the attributes `sk_lookup` and `sock_ops` ask for and make"
)]

use aya_ebpf::{
    macros::{sk_lookup, sock_ops},
    programs::{SkLookupContext, SockOpsContext},
};

/// What the kernel goes on with whatever happened to a socket (Linux `net/ipv4/tcp.c`, `tcp_call_bpf`).
const GO_ON: u32 = 1;

/// Says which socket gets a connection or a datagram (Linux 5.9 and newer).
#[sk_lookup]
#[inline(always)]
pub fn portdemux_look(ctx: SkLookupContext) -> u32 {
    portdemux_ebpf::steer(&ctx)
}

/// Takes sockets that begin to listen where a rule looks for them.
#[sock_ops]
#[inline(always)]
pub fn portdemux_hear(ctx: SockOpsContext) -> u32 {
    portdemux_ebpf::listens(&ctx);
    GO_ON
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
