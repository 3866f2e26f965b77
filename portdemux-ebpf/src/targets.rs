//! The maps of targets, and the way of a packet to one.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    btf_maps::{Array, ArrayOfMaps, CpuMap, DevMap, XskMap},
    macros::btf_map,
    programs::XdpContext,
};
use portdemux_common::{
    capacity::{DESTINATION_SLOTS, XSK_QUEUES},
    conntrack::Direction,
    decision::Outcome,
    destination,
    entry::Action,
    packet::PacketMut as _,
    ruleset::RulesetTables as _,
    target::{MacWords, Target},
};

use crate::{
    frame::LinearFrame,
    ruleset, scratch,
    verifier::{Elements as _, Lookup as _},
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// The interfaces that rules name, by slot.
#[btf_map]
static DEVICES: DevMap<DESTINATION_SLOTS> = DevMap::new();

/// Their MAC addresses.
#[btf_map]
static MACS: Array<MacWords, 1, MMAPABLE> = Array::new();

/// The CPUs that rules name, by number; the loader sets how many there are.
#[btf_map]
static CPUS: CpuMap<1> = CpuMap::new();

/// The AF_XDP sockets of each program that rules name, by slot, and there by the number of the queue.
#[btf_map]
static XSKS: ArrayOfMaps<XskMap<XSK_QUEUES>, DESTINATION_SLOTS> = ArrayOfMaps::new();

/// Sends the packet that was deferred on the way to its target, or says what becomes of it where that is missing.
#[inline(always)]
pub(crate) fn redirect(ctx: &XdpContext, outcome: Outcome) -> Outcome {
    Outcome(portdemux_settle(ctx.ctx, outcome.0))
}

/// As [`redirect`] does.
///
/// A function of its own, as the answer is one: only packets that are redirected pay for the call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_settle(ctx: *mut xdp_md, outcome: u64) -> u64 {
    let outcome = Outcome(outcome);
    let is_there = send(&XdpContext::new(ctx), outcome);
    let (target, is_there) = match is_there {
        Some((target, is_there)) => (target, is_there),
        // A map has no element: this cannot happen, and what is missing is not let in.
        None => (Target::NOWHERE, false),
    };
    destination::settle(outcome, &target, is_there).0
}

/// What the kernel is to say of a key under which nothing is.
const MISSING: u64 = xdp_action::XDP_ABORTED as u64;

/// Sends the packet that was deferred on its way; whether its target takes it.
#[inline(always)]
fn send(ctx: &XdpContext, outcome: Outcome) -> Option<(Target, bool)> {
    let metadata = &scratch::of(Direction::Received)?.metadata;
    let ruleset = ruleset::of(metadata.generation)?;
    let entry = outcome.entry();
    let target = *ruleset.target(entry.rule())?;
    let sent = match entry.action() {
        Action::Interface => {
            let sent = DEVICES.redirect(target.first, MISSING);
            if sent.is_ok()
                && let Some(mac) = ruleset.mac(entry.rule())
            {
                rewrite_macs(ctx, target.first, mac)?;
            }
            sent
        }
        Action::Cpu => {
            let seed = ruleset.header().limits_seed;
            let slot = target.first + destination::spread(metadata, seed, target.count);
            let cpu = ruleset.cpu(slot as usize)?;
            CPUS.redirect(cpu.into(), MISSING)
        }
        Action::Xsk => {
            // SAFETY: the context is an XDP program's for as long as it runs.
            let queue = unsafe { (*ctx.ctx).rx_queue_index };
            match XSKS.get(target.first) {
                Some(sockets) => sockets.redirect(queue, MISSING),
                None => Err(xdp_action::XDP_ABORTED),
            }
        }
        Action::Local | Action::Drop | Action::Reject | Action::Socket => {
            Err(xdp_action::XDP_ABORTED)
        }
    };
    Some((target, sent.is_ok()))
}

/// Writes the addresses of the way to the target's neighbour over those of the frame.
#[inline(always)]
fn rewrite_macs(ctx: &XdpContext, slot: u32, mac: u64) -> Option<()> {
    let own = MACS.find_ref(0)?.element(slot as usize)?.to_ne_bytes();
    let (own, _) = own.split_first_chunk::<6>()?;
    let mac = mac.to_ne_bytes();
    let (mac, _) = mac.split_first_chunk::<6>()?;
    let mut frame = LinearFrame::new(ctx);
    frame.write(0, *mac);
    frame.write(6, *own);
    Some(())
}
