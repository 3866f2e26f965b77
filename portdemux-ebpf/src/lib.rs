//! The kernel side of portdemux: glue between the core in `portdemux-common` and XDP.
//!
//! Each hook is an environment of the core's pipeline ([`portdemux_common::pipeline`]): it says where bytes, tables, clock
//! and counters are. What becomes of a frame is turned into an XDP action in one exhaustive match. Nothing deeper knows an
//! XDP code, and nothing here decides.
#![no_std]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "atomic operations, which the BPF target has and the atomic types do not offer for it"
)]

mod blocks;
mod conntrack;
mod counting;
mod egress;
mod fragments;
mod frame;
mod hook;
mod ingress;
mod limits;
pub mod redirect_drops;
mod reject;
mod ruleset;
mod scratch;
mod sockets;
mod tables;
mod targets;
mod variant;
mod verifier;
mod words;

use core::hint::cold_path;

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
pub use egress::notice;
pub use frame::WholeFrame;
use hook::Hook;
use portdemux_common::{
    pipeline::{self, Finish},
    reason::Verdict,
};
pub use sockets::{listens, steer};
pub use variant::{Attached, Variant};

/// Reads a frame, decides about it, counts it and returns the XDP action.
///
/// With `FRAGS` a frame can lie in several buffers (`xdp.frags`, Linux 5.18 and newer). With `FLOWS`
/// flows are tracked.
#[inline(always)]
#[must_use]
pub fn dispatch<const FRAGS: bool, const FLOWS: bool, V: Variant>(
    ctx: &XdpContext,
) -> xdp_action::Type {
    let Some(verdict) = pipeline::receive(Hook::<_, V, FRAGS, FLOWS>::new(ctx)) else {
        // A map has no element: this cannot happen, and aborting drops.
        return xdp_action::XDP_ABORTED;
    };
    match verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Redirect => xdp_action::XDP_REDIRECT,
        Verdict::Reject => {
            cold_path();
            reject::to_sender(ctx)
        }
    }
}

/// Reads a frame and hands on what it says, as [`dispatch`] does.
#[inline(always)]
pub fn parse<F: Finish>(ctx: &XdpContext, finish: F) -> F::Output {
    pipeline::parse(Hook::<_, Attached, true>::new(ctx), finish)
}
