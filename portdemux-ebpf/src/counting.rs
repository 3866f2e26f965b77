//! The map that holds the counters.

use aya_ebpf::{Global, btf_maps::Array, helpers::bpf_get_smp_processor_id, macros::btf_map};
use portdemux_common::{
    answer::Told,
    counters::{CpuCounters, REASON_PLACES},
    decide::{Decision, Outcome},
    ruleset::Entry,
};

use crate::verifier::{Elements as _, Lookup as _};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// One set of counters for every possible CPU; the loader sets how many there are.
///
/// An array by CPU and not a per-CPU array, so that the control plane can map it: 200,000 counters
/// are read without a system call.
#[btf_map]
static COUNTERS: Array<CpuCounters, 1, MMAPABLE> = Array::new();

/// Place of the interface that this copy of the program is attached to, set by the loader.
#[unsafe(no_mangle)]
static INTERFACE: Global<u32> = Global::new(0);

/// Counts a frame of `bytes` bytes: for its interface, verdict and reason, for its port, given by its
/// index, and for its rule.
#[inline(always)]
pub(crate) fn count(bytes: u64, port: Option<usize>, decision: &Decision) {
    let outcome = decision.verdict as usize * REASON_PLACES + decision.reason as usize;
    let is_dropped = decision.verdict.is_dropped();
    count_as(bytes, port, outcome, is_dropped, decision.entry);
}

/// Counts a frame of which the decision is known as one word.
#[inline(always)]
pub(crate) fn count_outcome(bytes: u64, port: usize, decided: Outcome) {
    let outcome = decided.verdict() as usize * REASON_PLACES + decided.reason();
    let is_dropped = decided.verdict().is_dropped();
    count_as(bytes, Some(port), outcome, is_dropped, decided.entry());
}

/// Counts a socket lookup for a port, given by its index.
#[inline(always)]
pub(crate) fn count_lookup(port: usize, decision: &Decision) {
    let outcome = decision.verdict as usize * REASON_PLACES + decision.reason as usize;
    let is_dropped = decision.verdict.is_dropped();
    let Some(counters) = counters() else {
        return;
    };
    if let Some(counter) = counters.lookups.as_flattened_mut().get_mut(outcome) {
        counter.count(0);
    }
    count_for_port(counters, 0, port, is_dropped);
    count_for_rule(counters, 0, decision.entry, is_dropped);
}

/// Counts what became of a packet that was rejected.
#[inline(always)]
pub(crate) fn count_told(told: Told) {
    if let Some(counters) = counters()
        && let Some(counter) = counters.told.get_mut(told as usize)
    {
        *counter = counter.wrapping_add(1);
    }
}

#[inline(always)]
fn count_as(bytes: u64, port: Option<usize>, outcome: usize, is_dropped: bool, entry: Entry) {
    let Some(counters) = counters() else {
        return;
    };
    if let Some(counter) = counters
        .interfaces
        .get_mut(INTERFACE.load() as usize)
        .and_then(|outcomes| outcomes.as_flattened_mut().get_mut(outcome))
    {
        counter.count(bytes);
    }
    let Some(port) = port else {
        return;
    };
    count_for_port(counters, bytes, port, is_dropped);
    if entry.is_claimed() {
        count_for_rule(counters, bytes, entry, is_dropped);
    }
}

#[inline(always)]
fn count_for_port(counters: &mut CpuCounters, bytes: u64, port: usize, is_dropped: bool) {
    if let Some(counter) = counters.ports.element_mut(port) {
        counter.count(bytes);
    }
    if is_dropped && let Some(counter) = counters.ports_dropped.element_mut(port) {
        counter.count(bytes);
    }
}

/// Counts a frame for a rule that did not decide about it.
#[inline(always)]
pub(crate) fn count_rule(bytes: u64, entry: Entry, is_dropped: bool) {
    if let Some(counters) = counters() {
        count_for_rule(counters, bytes, entry, is_dropped);
    }
}

/// The counters of this CPU.
#[inline(always)]
fn counters() -> Option<&'static mut CpuCounters> {
    // SAFETY: the helper takes nothing and cannot fail.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let counters = COUNTERS.find(cpu)?;
    // SAFETY: only this CPU's programs write these counters, and no other program runs on the CPU
    // before this one returns. The control plane reads them as they stand, and resets only those of
    // a place that no program uses.
    Some(unsafe { &mut *counters })
}

#[inline(always)]
fn count_for_rule(counters: &mut CpuCounters, bytes: u64, entry: Entry, is_dropped: bool) {
    let rule = entry.rule() as usize;
    if let Some(counter) = counters.rules.element_mut(rule) {
        counter.count(bytes);
    }
    if is_dropped && let Some(counter) = counters.rules_dropped.element_mut(rule) {
        counter.count(bytes);
    }
}
