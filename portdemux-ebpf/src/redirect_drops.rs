//! What targets did not take, as the kernel's tracepoints tell of it.
//!
//! They tell of all frames of the machine. Of which map of targets a frame came, a tracepoint says by the id of
//! the map; only of those that an interface did not transmit it names the interfaces, and these are compared with
//! the instance's.
#![expect(
    clippy::must_use_candidate,
    reason = "what is not counted belongs to no target of this instance, and a tracepoint has no verdict"
)]

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap},
    helpers::{bpf_get_smp_processor_id, bpf_probe_read_kernel},
    macros::btf_map,
    programs::RawTracePointContext,
};
use portdemux_common::{
    capacity::DESTINATION_SLOTS,
    redirect_drops::{RedirectDrop, Row, TargetKey, TargetKind, row_of_cpu},
    state::Ledger,
};

use crate::verifier::Lookup as _;

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// What was lost, by slot and by CPU; the loader sets how many rows there are.
#[btf_map]
static LOSSES: Array<Row, 1, MMAPABLE> = Array::new();

/// The slots of targets.
#[btf_map]
static TARGET_PLACES: HashMap<TargetKey, u64, DESTINATION_SLOTS> = HashMap::new();

/// Of which the interfaces of the instance are read.
#[btf_map]
static LEDGER: Array<Ledger, 1, MMAPABLE> = Array::new();

/// The id of the map of interfaces.
#[unsafe(no_mangle)]
static DEVICES_ID: Global<u32> = Global::new(0);

/// The id of the map of CPUs.
#[unsafe(no_mangle)]
static CPUS_ID: Global<u32> = Global::new(0);

/// See `redirect_drops::Offsets`.
#[unsafe(no_mangle)]
static DEVICE_INDEX: Global<u32> = Global::new(0);

/// See `redirect_drops::Offsets`.
#[unsafe(no_mangle)]
static DEVICE_NETNS: Global<u32> = Global::new(0);

/// See `redirect_drops::Offsets`.
#[unsafe(no_mangle)]
static NETNS_INODE: Global<u32> = Global::new(0);

/// Hears of a frame that could not be put on its way (`xdp_redirect_err`: interface, program, target, error,
/// type, id and key of the map).
#[inline(always)]
pub fn refused(ctx: &RawTracePointContext) -> Option<()> {
    let (error, map, key) = (ctx.arg::<i32>(3), ctx.arg::<u32>(5), ctx.arg::<u32>(6));
    let (row, kind) = if map == DEVICES_ID.load() {
        (key, TargetKind::Interface)
    } else if map == CPUS_ID.load() {
        (row_of_cpu(key), TargetKind::Cpu)
    } else {
        (row_of(TargetKey::sockets(map))?, TargetKind::Xsk)
    };
    add(row, RedirectDrop::of_redirect(kind, error), 1)
}

/// Hears of frames that an interface was given (`xdp_devmap_xmit`: the interface that they came by, that which
/// they were to go out of, how many went, how many did not, error).
#[inline(always)]
pub fn transmitted(ctx: &RawTracePointContext) -> Option<()> {
    let lost = u64::from(ctx.arg::<u32>(3));
    if lost == 0 {
        return None;
    }
    let (from, to) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1));
    let index: u32 = read(from, DEVICE_INDEX.load())?;
    let netns: u64 = read(from, DEVICE_NETNS.load())?;
    let inode: u32 = read(netns, NETNS_INODE.load())?;
    let interfaces = &LEDGER.find_ref(0)?.interfaces;
    let mut is_ours = false;
    for interface in interfaces {
        is_ours |= interface.index == index && interface.netns == u64::from(inode);
    }
    if !is_ours {
        return None;
    }
    let target = TargetKey::interface(read(to, DEVICE_INDEX.load())?);
    add(
        row_of(target)?,
        RedirectDrop::of_transmission(ctx.arg::<i32>(4)),
        lost,
    )
}

/// Hears of frames that were put in the queue of a CPU (`xdp_cpumap_enqueue`: id of the map, how many were put
/// there, how many not, CPU).
#[inline(always)]
pub fn queued(ctx: &RawTracePointContext) -> Option<()> {
    let (map, lost) = (ctx.arg::<u32>(0), u64::from(ctx.arg::<u32>(2)));
    if lost == 0 || map != CPUS_ID.load() {
        return None;
    }
    add(row_of_cpu(ctx.arg::<u32>(3)), RedirectDrop::CpuFull, lost)
}

/// Hears of frames that a CPU took from its queue, on that CPU (`xdp_cpumap_kthread`: id of the map, how many
/// were taken, how many lost).
#[inline(always)]
pub fn taken(ctx: &RawTracePointContext) -> Option<()> {
    let (map, lost) = (ctx.arg::<u32>(0), u64::from(ctx.arg::<u32>(2)));
    if lost == 0 || map != CPUS_ID.load() {
        return None;
    }
    // SAFETY: the helper takes nothing and cannot fail.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    add(row_of_cpu(cpu), RedirectDrop::CpuNoMemory, lost)
}

/// The slot of a target of this instance.
#[inline(always)]
fn row_of(target: TargetKey) -> Option<u32> {
    // SAFETY: the value is copied at once; user space replaces it as a whole.
    let row = unsafe { TARGET_PLACES.get(target) }.copied()?;
    u32::try_from(row).ok()
}

#[inline(always)]
fn add(row: u32, loss: RedirectDrop, packets: u64) -> Option<()> {
    let row = LOSSES.find(row)?;
    // SAFETY: the pointer is to a row, and a slot lies in it.
    let slot = unsafe { row.cast::<u64>().add(loss.slot()) };
    // SAFETY: the word is in a map's memory for as long as the program runs; whoever else writes it does so as a
    // whole.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(slot, packets) };
    Some(())
}

/// Reads from a structure of the kernel; nothing if it is not known where.
#[inline(always)]
fn read<T>(structure: u64, offset: u32) -> Option<T> {
    if offset == 0 {
        return None;
    }
    // SAFETY: the helper reads whatever address it is given, or says that it cannot.
    unsafe { bpf_probe_read_kernel((structure + u64::from(offset)) as *const T) }.ok()
}
