//! What the benchmark compares with.
//!
//! `empty` returns at once, as `empty_sent` does on the way out. `limit` is the least that counting and policing ports can be, written by
//! hand: Ethernet, up to two VLAN tags, IPv4, IPv6 with a bounded walk of extension headers, one array
//! for the verdict and one counter. It checks no lengths but the bounds that the verifier asks for.
//!
//! Each of them, and the dispatcher, is there a second time with `_random` to its name: before it looks
//! at the frame, such a program puts another destination port into it, the same one in each. And with
//! `_source`: there it puts another source address into it.
//!
//! `redirect_interface` and `redirect_cpu` look at nothing and send every frame to one target.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    reason = "the form that the attribute `xdp` asks for and makes"
)]

use aya_ebpf::{
    Global,
    bindings::{TC_ACT_UNSPEC, xdp_action},
    btf_maps::{Array, CpuMap, DevMap},
    helpers::bpf_get_smp_processor_id,
    macros::{btf_map, classifier, sk_lookup, xdp},
    programs::{SkLookupContext, TcContext, XdpContext},
};
use portdemux_common::blocks::Counter;
use portdemux_ebpf::Attached;

const PORTS: usize = 4 << 16;

/// The action of each port, by protocol and port as it stands in the packet.
#[btf_map]
static LIMIT_PORTS: Array<[u32; PORTS], 1> = Array::new();

/// Packets and bytes of each port; the loader sets one set per CPU.
#[btf_map]
static LIMIT_COUNTERS: Array<[Counter; PORTS], 1> = Array::new();

/// Where the transport header begins in the frame, set by the benchmark; below 128.
#[unsafe(no_mangle)]
static TRANSPORT: Global<u32> = Global::new(34);

/// Passes everything.
#[xdp(frags)]
#[inline(always)]
pub fn empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Passes everything on the way out.
#[classifier]
#[inline(always)]
pub fn empty_sent(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Puts a port into the frame and passes everything.
#[xdp(frags)]
#[inline(always)]
pub fn empty_random(ctx: XdpContext) -> u32 {
    shuffle(&ctx);
    xdp_action::XDP_PASS
}

/// Puts a port into the frame, counts and polices by it.
#[xdp(frags)]
#[inline(always)]
pub fn limit_random(ctx: XdpContext) -> u32 {
    shuffle(&ctx);
    run(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

/// Puts a port into the frame and dispatches it.
#[xdp(frags)]
#[inline(always)]
pub fn portdemux_random(ctx: XdpContext) -> u32 {
    shuffle(&ctx);
    portdemux_ebpf::dispatch::<true, false, Attached>(&ctx)
}

/// Whether the frame is of IPv6, set by the benchmark as the next two are.
#[unsafe(no_mangle)]
static SOURCE_V6: Global<u32> = Global::new(0);

/// The first of the numbers that sources are made from.
#[unsafe(no_mangle)]
static SOURCE_FIRST: Global<u32> = Global::new(0);

/// How many numbers there are.
#[unsafe(no_mangle)]
static SOURCE_COUNT: Global<u32> = Global::new(1);

/// Puts a source into the frame and passes everything.
#[xdp(frags)]
#[inline(always)]
pub fn empty_source(ctx: XdpContext) -> u32 {
    draw_source(&ctx);
    xdp_action::XDP_PASS
}

/// Puts a source into the frame, counts and polices by the destination port.
#[xdp(frags)]
#[inline(always)]
pub fn limit_source(ctx: XdpContext) -> u32 {
    draw_source(&ctx);
    run(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

/// Puts a source into the frame and dispatches it.
#[xdp(frags)]
#[inline(always)]
pub fn portdemux_source(ctx: XdpContext) -> u32 {
    draw_source(&ctx);
    portdemux_ebpf::dispatch::<true, false, Attached>(&ctx)
}

/// Puts a source into the frame and dispatches it where flows are tracked.
#[xdp(frags)]
#[inline(always)]
pub fn flows_source(ctx: XdpContext) -> u32 {
    draw_source(&ctx);
    portdemux_ebpf::dispatch::<true, true, Attached>(&ctx)
}

/// Steps the generator in the destination MAC address, takes a number from it and makes the source
/// address of it, as the benchmark does with the members of its lists.
#[inline(always)]
fn draw_source(ctx: &XdpContext) {
    let (start, end) = (ctx.data(), ctx.data_end());
    let Some(state) = read::<u32>(start, end, 0) else {
        return;
    };
    let state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    // SAFETY: the four bytes were read above.
    unsafe { core::ptr::write_unaligned(start as *mut u32, state) };
    let number = (u64::from(state) * u64::from(SOURCE_COUNT.load())) >> 32;
    let mixed = mix(number + u64::from(SOURCE_FIRST.load()));
    if SOURCE_V6.load() == 0 {
        // With the destination behind it, as the dispatcher reads both: see `shuffle`.
        let Some(addresses) = read::<u64>(start, end, 14 + 12) else {
            return;
        };
        let addresses = addresses & !0xffff_ffff | mixed & 0xffff_ffff;
        // SAFETY: the eight bytes were read above.
        unsafe { core::ptr::write_unaligned((start + 14 + 12) as *mut u64, addresses) };
        return;
    }
    let at = start + 14 + 8;
    if at + 8 <= end {
        let high = (mixed & 0x1fff_ffff_ffff_ffff | 0x2000_0000_0000_0000).to_be();
        // SAFETY: the eight bytes end before the frame does.
        unsafe { core::ptr::write_unaligned(at as *mut u64, high) };
    }
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014), as `mix` of the benchmark.
#[inline(always)]
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Steps a linear congruential generator whose state lies in the destination MAC address, and takes the
/// destination port from it.
///
/// The first eight bytes of the transport header are written as one word. A load that is wider than the store
/// before it waits until the store has left the CPU's buffer; a frame from a network card has no such store,
/// and how wide a program's loads are must not decide how it compares.
#[inline(always)]
fn shuffle(ctx: &XdpContext) {
    let (start, end) = (ctx.data(), ctx.data_end());
    let Some(state) = read::<u32>(start, end, 0) else {
        return;
    };
    let state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    let header = TRANSPORT.load() as usize & 127;
    let Some(begin) = read::<u64>(start, end, header) else {
        return;
    };
    // The destination port is in bytes 2 and 3, wherever the lowest byte of a word stands.
    let port = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    let drawn = u64::from(state >> 16) * (port & port.wrapping_neg());
    // SAFETY: the four bytes were read above.
    unsafe { core::ptr::write_unaligned(start as *mut u32, state) };
    // SAFETY: the eight bytes were read above.
    unsafe { core::ptr::write_unaligned((start + header) as *mut u64, begin & !port | drawn) };
}

/// Counts and polices by destination port.
#[xdp(frags)]
#[inline(always)]
pub fn limit(ctx: XdpContext) -> u32 {
    run(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn run(ctx: &XdpContext) -> Option<u32> {
    let (start, end) = (ctx.data(), ctx.data_end());
    let mut offset = 14;
    let mut ether_type: u16 = read(start, end, 12)?;
    for _ in 0..2 {
        if ether_type != 0x8100_u16.to_be() && ether_type != 0x88a8_u16.to_be() {
            break;
        }
        ether_type = read(start, end, offset + 2)?;
        offset += 4;
    }
    let (protocol, transport) = if ether_type == 0x0800_u16.to_be() {
        let header: [u8; 20] = read(start, end, offset)?;
        let [version_ihl, ..] = header;
        let [
            _,
            _,
            _,
            _,
            _,
            _,
            fragment_high,
            fragment_low,
            _,
            protocol,
            ..,
        ] = header;
        if (fragment_high & 0x1f) | fragment_low != 0 {
            return None;
        }
        (protocol, offset + usize::from(version_ihl & 0x0f) * 4)
    } else if ether_type == 0x86dd_u16.to_be() {
        let mut next: u8 = read(start, end, offset + 6)?;
        offset += 40;
        for _ in 0..8 {
            if next != 0 && next != 43 && next != 60 {
                break;
            }
            let [following, length]: [u8; 2] = read(start, end, offset)?;
            next = following;
            offset += 8 + usize::from(length) * 8;
        }
        (next, offset)
    } else {
        return None;
    };
    let protocol = match protocol {
        6 => 0,
        17 => 1,
        132 => 2,
        _ => return None,
    };
    let port: u16 = read(start, end, transport + 2)?;
    let slot = protocol << 16 | usize::from(port);
    let action = *LIMIT_PORTS.get(0)?.get(slot)?;
    // SAFETY: the helper takes nothing and cannot fail.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // SAFETY: only this CPU writes its counters.
    let counters = unsafe { &mut *LIMIT_COUNTERS.get_ptr_mut(cpu)? };
    let counter = counters.get_mut(slot)?;
    counter.packets += 1;
    counter.bytes += (end - start) as u64;
    Some(if action == 0 {
        xdp_action::XDP_PASS
    } else {
        xdp_action::XDP_DROP
    })
}

/// The interface that all frames are sent to.
#[btf_map]
static ONE_DEVICE: DevMap<1> = DevMap::new();

/// The CPU that all frames are sent to.
#[btf_map]
static ONE_CPU: CpuMap<1> = CpuMap::new();

/// Sends everything to an interface.
#[xdp(frags)]
#[inline(always)]
pub fn redirect_interface(_ctx: XdpContext) -> u32 {
    ONE_DEVICE.redirect(0, 0).unwrap_or_else(|action| action)
}

/// Sends everything to a CPU.
#[xdp(frags)]
#[inline(always)]
pub fn redirect_cpu(_ctx: XdpContext) -> u32 {
    ONE_CPU.redirect(0, 0).unwrap_or_else(|action| action)
}

/// Leaves a socket lookup to the kernel.
#[sk_lookup]
#[inline(always)]
pub fn empty_lookup(_ctx: SkLookupContext) -> u32 {
    /// `SK_PASS`.
    const PASS: u32 = 1;
    PASS
}

#[inline(always)]
fn read<T: Copy>(start: usize, end: usize, offset: usize) -> Option<T> {
    if offset > 20_000 {
        return None;
    }
    let at = start + offset;
    if at + size_of::<T>() > end {
        return None;
    }
    // SAFETY: the bytes lie within the frame; T is an integer or an array of bytes.
    Some(unsafe { core::ptr::read_unaligned(at as *const T) })
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
