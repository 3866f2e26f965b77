//! What is counted of a packet.

use core::{hint::cold_path, mem::offset_of};

use aya_ebpf::Global;
use portdemux_common::{
    blocks as layout,
    capacity::{PORT_COUNT, REASON_SLOTS},
    counters::{Layout, TALLIES, Tallies},
    decision::{Decision, Outcome},
    entry::Entry,
    reject::Replied,
};

use crate::{
    blocks::{self, Frames, Mine, Set as _},
    verifier::{masked, within_mut},
};

const INTERFACES: usize = offset_of!(Layout, interfaces) / layout::BYTES;
const RULES: usize = offset_of!(Layout, rules) / layout::BYTES;
const REPLIED: usize = offset_of!(Layout, replied) / layout::BYTES;
const LOOKUPS: usize = offset_of!(Layout, lookups) / layout::BYTES;
const PORTS: usize = offset_of!(Layout, ports) / layout::BYTES;

/// A power of two that is greater than all indices of ports.
const PORT_INDICES: usize = PORT_COUNT.next_power_of_two();

/// Slot of the interface that this copy of the program is attached to, set by the loader.
#[unsafe(no_mangle)]
static INTERFACE: Global<u32> = Global::new(0);

/// Counts a frame of `bytes` bytes: for its interface, verdict and reason, for its port, given by its
/// index, and for its rule.
#[inline(always)]
pub(crate) fn count(bytes: u64, port: Option<usize>, decision: &Decision) {
    let outcome = decision.verdict as usize * REASON_SLOTS + decision.reason as usize;
    let is_dropped = decision.verdict.is_dropped();
    count_as(bytes, port, outcome, is_dropped, decision.entry);
}

/// Counts a frame with a port of whose index the verifier knows nothing.
#[inline(always)]
pub(crate) fn count_known(bytes: u64, port: usize, decision: &Decision) {
    count(bytes, Some(masked::<PORT_INDICES>(port)), decision);
}

/// Counts a frame of which the decision is known as one word.
#[inline(always)]
pub(crate) fn count_outcome(bytes: u64, port: usize, decided: Outcome) {
    let outcome = decided.verdict() as usize * REASON_SLOTS + decided.reason();
    let is_dropped = decided.is_dropped();
    count_as(bytes, Some(port), outcome, is_dropped, decided.entry());
}

/// Counts a socket lookup for a port, given by its index.
#[inline(always)]
pub(crate) fn count_lookup(port: usize, decision: &Decision) {
    let outcome = decision.verdict as usize * REASON_SLOTS + decision.reason as usize;
    let is_dropped = decision.verdict.is_dropped();
    let Some(mine) = blocks::mine() else {
        return;
    };
    blocks::count::<Frames>(mine, (LOOKUPS, outcome), [1, 0], true);
    count_tally(mine, (PORTS, port), 0, is_dropped, true);
    count_rule_in(mine, 0, decision.entry, is_dropped);
}

/// Counts what became of a packet that was rejected.
#[inline(always)]
pub(crate) fn count_replied(replied: Replied) {
    if let Some(mine) = blocks::mine() {
        blocks::count_half::<Frames>(mine, (REPLIED, replied as usize));
    }
}

#[inline(always)]
fn count_as(bytes: u64, port: Option<usize>, outcome: usize, is_dropped: bool, entry: Entry) {
    let Some(mine) = blocks::mine() else {
        return;
    };
    let interface = INTERFACES + INTERFACE.load() as usize;
    blocks::count::<Frames>(mine, (interface, outcome), [1, bytes], true);
    let Some(port) = port else {
        return;
    };
    let is_claimed = entry.is_claimed();
    // One without ports that was written down has a slot beyond all.
    if port < PORT_COUNT {
        count_tally(mine, (PORTS, port), bytes, is_dropped, is_claimed);
    }
    if is_claimed {
        count_rule_in(mine, bytes, entry, is_dropped);
    }
}

/// Counts a frame for a rule that did not decide about it.
#[inline(always)]
pub(crate) fn count_rule(bytes: u64, entry: Entry, is_dropped: bool) {
    if let Some(mine) = blocks::mine() {
        count_rule_in(mine, bytes, entry, is_dropped);
    }
}

#[inline(always)]
fn count_rule_in(mine: Mine, bytes: u64, entry: Entry, is_dropped: bool) {
    count_tally(
        mine,
        (RULES, entry.rule() as usize),
        bytes,
        is_dropped,
        true,
    );
}

/// Counts a frame for a port or a rule, given by its index and the block of the first ones.
#[inline(always)]
fn count_tally(
    mine: Mine,
    (first, index): (usize, usize),
    bytes: u64,
    is_dropped: bool,
    is_reserved: bool,
) {
    let block = first + index / TALLIES;
    if let Some(own) = mine.block(block) {
        let tallies: &mut Tallies = bytemuck::cast_mut(own);
        within_mut(&mut tallies.received, index).count(bytes);
        if is_dropped {
            within_mut(&mut tallies.dropped, index).count(bytes);
        }
    } else {
        cold_path();
        let index = index % TALLIES;
        Frames::count_apart((block, index), [1, bytes], is_reserved);
        if is_dropped {
            Frames::count_apart((block, index + TALLIES), [1, bytes], is_reserved);
        }
    }
}
