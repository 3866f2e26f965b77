//! What the senders of rejected packets are told.
//!
//! The reply takes the place of the packet: its headers are put together in a map value while the packet
//! is whole, then the frame is given the reply's length and the headers are written over its start.

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{xdp_action, xdp_md},
    btf_maps::{Array, PerCpuArray},
    helpers::generated::{bpf_ktime_get_ns, bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    macros::btf_map,
    programs::XdpContext,
};
use portdemux_common::{
    conntrack::Direction,
    decide::Metadata,
    limits,
    reject::{self, RejectReply, Replied, ReplyKind},
    wire::{ANY_MAC, MacWord},
};

use crate::{counting, frame::LinearFrame, scratch, verifier::Lookup as _, words::Shared};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// When the next reply is due, in nanoseconds; all CPUs share it.
#[btf_map]
static ANSWERS: Array<u64, 1, MMAPABLE> = Array::new();

/// The MAC address of the interface, set by the loader: frames for others are not replied to in their name.
#[unsafe(no_mangle)]
static MAC: Global<MacWord> = Global::new(ANY_MAC);

/// The reply that a CPU is busy with.
#[btf_map]
static REPLY: PerCpuArray<RejectReply, 1> = PerCpuArray::new();

/// The reply that this CPU is busy with, taken up anew.
#[inline(always)]
fn current() -> Option<&'static mut RejectReply> {
    let reply = REPLY.find(0)?;
    // SAFETY: the value is this CPU's, and taken up once in each step.
    Some(unsafe { &mut *reply })
}

/// The packet that was rejected, taken up anew.
#[inline(always)]
fn metadata() -> Option<&'static mut Metadata> {
    Some(&mut scratch::of(Direction::Received)?.metadata)
}

/// Answers the packet that was rejected, or drops it, and returns the XDP action.
///
/// A function of its own that the verifier looks at by itself (Linux 5.6, `kernel/bpf/verifier.c`,
/// `do_check_subprogs`): inlined it takes the program with flows from 155,000 instructions to 450,000. Only
/// what is rejected pays for the call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_reject(ctx: *mut xdp_md) -> xdp_action::Type {
    // A map has no element: this cannot happen, and aborting drops.
    reply(&XdpContext::new(ctx)).unwrap_or(xdp_action::XDP_ABORTED)
}

/// Answers the packet that was rejected, or drops it.
#[inline(always)]
pub(crate) fn to_sender(ctx: &XdpContext) -> xdp_action::Type {
    portdemux_reject(ctx.ctx)
}

/// Each step takes everything up anew: what one has found out must not keep the ways of the next apart.
#[inline(always)]
fn reply(ctx: &XdpContext) -> Option<xdp_action::Type> {
    let say_nothing = |why| {
        counting::count_replied(why);
        Some(xdp_action::XDP_DROP)
    };
    let frame = || LinearFrame::new(ctx);
    metadata()?.read_signal(&frame());
    let kind = ReplyKind::of(metadata()?, &frame(), MAC.load());
    if matches!(kind, ReplyKind::Silence) {
        return say_nothing(Replied::Unanswerable);
    }
    current()?.address(kind, metadata()?, &frame());
    if !admit()? {
        return say_nothing(Replied::Limited);
    }
    for _ in 0..RejectReply::STEPS {
        if !current()?.sum(&frame()) {
            break;
        }
    }
    current()?.fill(metadata()?, &frame());
    if !resize(ctx, current()?, metadata()?.length) || !current()?.write(&mut frame()) {
        return say_nothing(Replied::Unanswerable);
    }
    counting::count_replied(Replied::Sent);
    Some(xdp_action::XDP_TX)
}

/// Whether one more reply may go out now.
#[inline(always)]
fn admit() -> Option<bool> {
    let due = ANSWERS.find(0)?;
    // SAFETY: the map's memory stays while the program runs, and the word is taken only as a whole.
    let due: &Shared = unsafe { &*due.cast() };
    // SAFETY: the helper takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    Some(limits::take(due, &reject::RATE, now))
}

/// Gives a frame of `length` bytes the length of the reply. What was read of it is void then.
#[inline(always)]
fn resize(ctx: &XdpContext, reply: &RejectReply, length: u64) -> bool {
    let growth = reply.growth();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "frames are shorter than 2 GiB"
    )]
    let (growth, longer) = (
        growth as i32,
        reply.length() as i64 - (length as i64 + growth as i64),
    );
    // SAFETY: the helper takes the context of an XDP program (Linux 4.10, net/core/filter.c,
    // bpf_xdp_adjust_head).
    if growth != 0 && unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), -growth) } != 0 {
        return false;
    }
    #[expect(clippy::cast_possible_truncation, reason = "as above")]
    let longer = longer as i32;
    // SAFETY: as above (Linux 4.18, bpf_xdp_adjust_tail).
    longer == 0 || unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), longer) } == 0
}
