//! The shadow program: the same decision and counting, in maps of its own, and a
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
    bindings::{xdp_action, xdp_md},
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use aya_log_ebpf::info;
use portdemux_common::{
    decision::Outcome,
    parse::{Class, Parsed},
    pipeline::Finish,
    reason::{Reason, Verdict},
    trace::Trace,
};
use portdemux_ebpf::{Variant, WholeFrame};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// What the program saw in the last frame.
#[btf_map]
static TRACE: Array<Trace, 1, MMAPABLE> = Array::new();

/// The time at which the program runs, as user space says: `CLOCK_MONOTONIC` in nanoseconds.
#[btf_map]
static NOW: Array<u64, 1, MMAPABLE> = Array::new();

/// The attached program at a given time, with a record of what it decided.
#[derive(Clone, Copy)]
struct ShadowProgram;

impl Variant for ShadowProgram {
    #[inline(always)]
    fn coarse() -> u64 {
        Self::precise()
    }

    #[inline(always)]
    fn precise() -> u64 {
        match NOW.get_ptr(0) {
            // SAFETY: the one value of the array, which user space writes before the run.
            Some(now) => unsafe { now.read_volatile() },
            None => 0,
        }
    }

    #[inline(always)]
    fn see(outcome: Outcome) {
        let Some(trace) = trace() else {
            return;
        };
        trace.entry = outcome.entry();
        let [.., reason, verdict, _, _] = outcome.0.to_le_bytes();
        (trace.reason, trace.verdict) = (reason, verdict);
    }
}

#[inline(always)]
fn trace() -> Option<&'static mut Trace> {
    // SAFETY: the one value of the array, which the control plane reads only after the run.
    TRACE.get_ptr_mut(0).map(|trace| unsafe { &mut *trace })
}

/// Writes down what a frame says.
#[derive(Clone, Copy)]
struct WriteDown<'c>(&'c XdpContext);

impl Finish for WriteDown<'_> {
    type Output = ();

    #[inline(always)]
    fn finish(self, parsed: &Parsed, _length: usize, _scattered: bool) {
        let Some(trace) = trace() else {
            return;
        };
        trace.write(parsed);
        portdemux_read(self.0.ctx);
    }
}

/// Reads what else is written down of a frame. A function that is verified once: [`WriteDown`] is compiled into every
/// place where parsing ends.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn portdemux_read(ctx: *mut xdp_md) -> u32 {
    let Some(trace) = trace() else {
        return 0;
    };
    trace.read(&WholeFrame::new(&XdpContext::new(ctx)));
    1
}

/// Writes down what a frame says: apart from the decision, as the two together take the verifier twice as long.
#[xdp(frags)]
#[inline(always)]
pub fn portdemux_parse(ctx: XdpContext) -> u32 {
    portdemux_ebpf::parse(&ctx, WriteDown(&ctx));
    xdp_action::XDP_PASS
}

/// Dispatches a frame that was written down, and writes down why.
#[xdp(frags)]
#[inline(always)]
pub fn shadow_program(ctx: XdpContext) -> u32 {
    let action = portdemux_ebpf::dispatch::<true, false, ShadowProgram>(&ctx);
    portdemux_log();
    action
}

/// Dispatches a frame that was written down, where flows are tracked.
#[xdp(frags)]
#[inline(always)]
pub fn shadow_flows(ctx: XdpContext) -> u32 {
    let action = portdemux_ebpf::dispatch::<true, true, ShadowProgram>(&ctx);
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
