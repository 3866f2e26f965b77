//! ABI 5, the last one whose instances do not say where things stand.
//!
//! The numbers are those of the binaries that made them, whatever this one has: none is derived from its types.

use super::{Counters, FlowCounters, KEPT_PLACES, Layout, LedgerLayout};

/// Its number.
pub(super) const ABI: u32 = 5;

/// The layout of an instance of ABI 5.
pub(super) const LAYOUT: Layout = Layout {
    abi: ABI as u64,
    counters: Counters {
        bytes: 10_756_096,
        interfaces: 0,
        interface_places: 64,
        verdict_places: 4,
        reason_places: 64,
        rules: 262_144,
        rules_dropped: 2_359_296,
        rule_places: 131_072,
        ports: 4_456_448,
        ports_dropped: 7_602_176,
        told: 10_747_904,
        told_places: 512,
        lookups: 10_752_000,
    },
    flow_counters: FlowCounters {
        bytes: 9_441_280,
        relations: 0,
        relation_places: 4,
        sent: 6_291_456,
        events: 9_437_184,
        event_places: 512,
    },
    ledger: LedgerLayout {
        bytes: LEDGER_BYTES,
        interfaces: 0,
        interface_places: 64,
        interface_bytes: 56,
        rules: 3_584,
        rule_places: 131_072,
        rule_name_bytes: 64,
        destinations: 8_392_192,
        destination_places: 8_192,
        destination_name_bytes: 64,
        flows: LEDGER_BYTES - 16,
    },
    kept: kept(),
};

const LEDGER_BYTES: u64 = 8_392_192 + 8_192 * 64 + 16;

/// All maps that a newer instance can go on with hold what they held when their contents were first numbered.
const fn kept() -> [u64; KEPT_PLACES] {
    let mut numbers = [0; KEPT_PLACES];
    let mut at = 0;
    while at < 13 {
        numbers[at] = 1;
        at += 1;
    }
    numbers
}
