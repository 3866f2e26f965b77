//! The twin of the attached program: the same decision and counting, in maps of its own, and a
//! record of what it saw. If it is loaded to log, it says so in words, too.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    reason = "the form that the attribute `xdp` asks for and makes"
)]

use aya_ebpf::{
    bindings::xdp_md,
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use aya_log_ebpf::info;
use portdemux_common::{
    decide::{Decision, Outcome},
    parse::{Class, Parsed},
    reason::{Reason, Verdict},
    trace::Trace,
};
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
        // SAFETY: the one value of the array, which the control plane reads only after the run.
        let trace = unsafe { &mut *trace };
        trace.write(parsed, decision);
        portdemux_read(ctx.ctx);
    }

    #[inline(always)]
    fn see_decided(self, outcome: Outcome) {
        let Some(trace) = TRACE.get_ptr_mut(0) else {
            return;
        };
        // SAFETY: as above.
        let trace = unsafe { &mut *trace };
        trace.entry = outcome.entry();
        trace.verdict = outcome.verdict() as u8;
        #[expect(clippy::cast_possible_truncation, reason = "a reason has 8 bits")]
        let reason = outcome.reason() as u8;
        trace.reason = reason;
    }
}

/// Reads what else is written down of a frame. A function that is verified once: `see` is compiled into every place
/// where parsing ends.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_read(ctx: *mut xdp_md) -> u32 {
    let Some(trace) = TRACE.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the one value of the array, which the control plane reads only after the run.
    let trace = unsafe { &mut *trace };
    trace.read(&WholeFrame::new(&XdpContext::new(ctx)));
    1
}

/// Dispatches a frame and writes down why.
#[xdp(frags)]
#[inline(always)]
pub fn portdemux_twin(ctx: XdpContext) -> u32 {
    let action = portdemux_ebpf::dispatch::<true, false, _>(&ctx, WriteDown);
    portdemux_log();
    action
}

/// Says what was written down, after the decision. Unless the level is set, the verifier takes the records out. A
/// function that is verified once, with a stack of its own: the rest of it is for the decision and for what it calls.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_log() -> u32 {
    log();
    0
}

#[inline(always)]
fn log() {
    const PORTS: u8 = Class::Ports as u8;
    const NO_PORTS: u8 = Class::NoPorts as u8;
    const NON_IP: u8 = Class::NonIp as u8;
    const MALFORMED: u8 = Class::Malformed as u8;

    // The records go into a ring buffer, for which it does not matter what the program was called for.
    let ctx = &();
    let Some(trace) = TRACE.get_ptr(0) else {
        return;
    };
    // SAFETY: the one value of the array, which nothing writes to until the program has ended.
    let trace = unsafe { &*trace };
    let (length, version, protocol) = (trace.length, trace.version, trace.protocol);
    match trace.class {
        PORTS => {
            let source = u16::from_be_bytes(trace.source_port);
            let destination = u16::from_be_bytes(trace.destination_port);
            info!(
                ctx,
                "{} bytes: IPv{}, protocol {}, port {} to port {}",
                length,
                version,
                protocol,
                source,
                destination
            );
        }
        NO_PORTS => info!(
            ctx,
            "{} bytes: IPv{}, protocol {}, no ports", length, version, protocol
        ),
        NON_IP => info!(ctx, "{} bytes: not IP", length),
        MALFORMED => info!(ctx, "{} bytes: malformed", length),
        _ => return,
    }
    // What is rejected is dropped, whoever is told; a third word takes the verifier twice as long.
    let verdict = if trace.verdict == Verdict::Pass as u8 {
        Verdict::Pass
    } else {
        Verdict::Drop
    };
    let Some(name) = NAMES.get(usize::from(trace.reason)) else {
        return;
    };
    let reason = name.as_str();
    if trace.entry.is_claimed() {
        let id = trace.entry.rule();
        info!(ctx, "rule id {}: {}, {}", id, verdict.name(), reason);
    } else {
        info!(ctx, "no rule: {}, {}", verdict.name(), reason);
    }
}

/// The name of a reason. By a table and not by [`Reason::name`], so that the verifier has one way to go on and not one
/// for each of them.
struct Name {
    bytes: [u8; Self::LONGEST],
    length: u8,
}

static NAMES: [Name; Reason::ALL.len()] = {
    let mut names = [const { Name::of(Reason::RuleLocal) }; Reason::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Name::of(Reason::ALL[at]);
        at += 1;
    }
    names
};

impl Name {
    const LONGEST: usize = 32;

    const fn of(reason: Reason) -> Self {
        let name = reason.name().as_bytes();
        let mut bytes = [0; Self::LONGEST];
        let mut at = 0;
        while at < name.len() {
            bytes[at] = name[at];
            at += 1;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "longer ones do not compile"
        )]
        let length = name.len() as u8;
        Self { bytes, length }
    }

    #[inline(always)]
    fn as_str(&self) -> &str {
        let length = usize::from(self.length).min(Self::LONGEST);
        // SAFETY: it is at most the length of the field.
        let name = unsafe { self.bytes.get_unchecked(..length) };
        // SAFETY: it was copied from a string, as a whole.
        unsafe { core::str::from_utf8_unchecked(name) }
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
