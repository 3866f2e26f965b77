//! What it costs to look a source up in lists of many, one that is in them and one that is not.

use std::{
    collections::HashSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use anyhow::{Result, ensure};
use ipnet::IpNet;
use portdemux::{
    change,
    rules::source::{Becomes, MemberChange},
};
use portdemux_tests::frames;
use serde::Serialize;

use super::{
    datapath::interleave,
    programs::{Bench, Draw},
    statistics::Spread,
};

/// What a packet costs whose source is drawn from so many.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    sources: String,
    version: u8,
    /// `hot`: the same member each time, [`HOT`] of them one after the other; `members`, `strangers`.
    who: &'static str,
    limit_over_empty: Spread,
    over_empty: Spread,
    over_limit: Spread,
}

/// Prefixes and sets that they are in, 443's the last of them.
const SIZES: [(u32, u32); 5] = [
    (100, 1),
    (10_000, 1),
    (100_000, 1),
    (1_000_000, 1),
    (1_000_000, 20),
];

/// How many members are measured by themselves: it depends on who else is near.
const HOT: u32 = 8;

/// Numbers that are no members' begin here.
const STRANGERS: u32 = 1 << 30;

/// The finalizer of splitmix64, as `mix` of the programs.
pub(crate) fn mix(number: u32) -> u64 {
    let mut bits = u64::from(number).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// The address that the programs make of a number, as a prefix: all of IPv4, the upper half of IPv6.
fn prefix(number: u32, is_v6: bool) -> String {
    let bits = mix(number);
    if is_v6 {
        let high = bits & 0x1fff_ffff_ffff_ffff | 0x2000_0000_0000_0000;
        format!("{}/64", Ipv6Addr::from(u128::from(high) << 64))
    } else {
        let [a, b, c, d, ..] = bits.to_le_bytes();
        Ipv4Addr::new(a, b, c, d).to_string()
    }
}

/// Rules for 443 and the ports before it, each with a set of its own; all members are in 443's.
pub(crate) fn text(prefixes: u32, sets: u32, is_v6: bool) -> String {
    let mut text = String::from("[sets]\n");
    for set in 0..sets {
        let _ = write!(text, "set{set} = [");
        let own = (0..prefixes).filter(|number| set + 1 == sets || number % (sets - 1) == set);
        // Of a million IPv4 addresses some come twice.
        let mut known = HashSet::new();
        for prefix in own.map(|number| prefix(number, is_v6)) {
            if !known.contains(&prefix) {
                let _ = write!(text, "\"{prefix}\", ");
                known.insert(prefix);
            }
        }
        text.push_str("]\n");
    }
    for set in 0..sets {
        let port = 444 + set - sets;
        let _ = writeln!(
            text,
            "[[rule]]\nport = [\"{port}/tcp\", \"{port}/udp\"]\nfrom = \"@set{set}\""
        );
    }
    text
}

pub(crate) fn measure(rounds: usize, repeat: u32, only: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (prefixes, sets) in SIZES {
        let name = match sets {
            1 => format!("{prefixes} sources"),
            _ => format!("{prefixes} sources in {sets} sets"),
        };
        if !name.contains(only) {
            continue;
        }
        for is_v6 in [false, true] {
            let bench = Bench::new()?;
            bench.put_text_in_force(&name, &text(prefixes, sets, is_v6))?;
            let frame = if is_v6 {
                frames::ipv6(frames::tcp(40_000, 443)).frame()
            } else {
                frames::ipv4(frames::tcp(40_000, 443)).frame()
            };
            let frame = frame.bytes();
            let hot = (0..HOT).map(|number| (number, 1)).collect();
            for (who, draws) in [
                ("hot", hot),
                ("members", vec![(0, prefixes)]),
                ("strangers", vec![(STRANGERS, 1 << 30)]),
            ] {
                let mut samples = [const { Vec::new() }; 3];
                for (first, count) in draws {
                    let draw = Draw {
                        is_v6,
                        first,
                        count,
                    };
                    let program = |name| bench.with_sources(name, 34, draw);
                    let programs = [
                        program("empty_source")?,
                        program("limit_source")?,
                        program("portdemux_source")?,
                    ];
                    let is_dropped = programs[2].drops(&frame)?;
                    ensure!(is_dropped == (who == "strangers"), "{name}, {who}");
                    let more = interleave(&programs, &frame, rounds, repeat)?;
                    for (samples, more) in samples.iter_mut().zip(more) {
                        samples.extend(more);
                    }
                }
                let [empty, limit, portdemux] = samples;
                rows.push(Row {
                    sources: name.clone(),
                    version: if is_v6 { 6 } else { 4 },
                    who,
                    limit_over_empty: Spread::of_differences(&limit, &empty),
                    over_empty: Spread::of_differences(&portdemux, &empty),
                    over_limit: Spread::of_differences(&portdemux, &limit),
                });
            }
        }
    }
    Ok(rows)
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<26}  {:<4}  {:<9}  {:>22}  {:>22}  {:>22}\n",
        "TABLES",
        "IP",
        "WHO",
        "LIMIT - EMPTY, ns",
        "PORTDEMUX - EMPTY, ns",
        "PORTDEMUX - LIMIT, ns"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<26}  {:<4}  {:<9}  {:>22}  {:>22}  {:>22}",
            row.sources, row.version, row.who, row.limit_over_empty, row.over_empty, row.over_limit
        );
    }
    text
}

/// How long loading a million prefixes takes, and one change to them, in milliseconds.
pub(crate) fn measure_changes(rounds: usize) -> Result<Vec<(&'static str, Spread)>> {
    let bench = Bench::new()?;
    let mut load = Vec::new();
    let mut change = Vec::new();
    for is_v6 in [false, true] {
        let text = text(1_000_000, 20, is_v6);
        let begun = Instant::now();
        bench.change_text("1,000,000 sources", text)?;
        load.push(milliseconds(begun));
        let mut in_force = change::in_force(&bench.writer)?;
        for round in 0..rounds.max(1) {
            let number = STRANGERS + u32::try_from(round)?;
            let text = prefix(number, is_v6);
            let address: IpAddr = text.trim_end_matches("/64").parse()?;
            let prefix = IpNet::from(address);
            let begun = Instant::now();
            let changed = bench.enter(&in_force, "set19", prefix)?;
            change.push(milliseconds(begun));
            ensure!(changed.rebuilt.is_none(), "the tables were built anew");
            in_force.changes.push(MemberChange {
                set: "set19".into(),
                prefix,
                becomes: Becomes::Member(None),
            });
        }
    }
    Ok(vec![
        (
            "put 1,000,000 prefixes in 20 sets in force, from text",
            Spread::of(&load),
        ),
        ("add an address to one of these sets", Spread::of(&change)),
    ])
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}
