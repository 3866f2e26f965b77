//! What a packet costs.

use std::fmt::Write as _;

use anyhow::Result;
use portdemux_tests::frames::{self, With as _};
use serde::Serialize;

use super::{
    programs::{Bench, Program, Rules},
    statistics::Spread,
};

/// The cost of a kind of frame under some rules, in nanoseconds over an empty program and over the
/// limit program, which ran in the same rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    frame: &'static str,
    ports: &'static str,
    rules: &'static str,
    limit_over_empty: Spread,
    over_empty: Spread,
    over_limit: Spread,
}

/// A frame and where its transport header begins.
fn frames() -> [(&'static str, Vec<u8>, usize); 5] {
    let tcp = || frames::tcp(40_000, 443);
    let udp = || frames::udp(40_000, 443).with(|udp| udp.data = vec![0; 18]);
    [
        ("TCP4", frames::ipv4(tcp()).frame().bytes(), 14 + 20),
        ("UDP4", frames::ipv4(udp()).frame().bytes(), 14 + 20),
        ("TCP6", frames::ipv6(tcp()).frame().bytes(), 14 + 40),
        (
            "VLAN",
            frames::ipv4(tcp()).frame().tag(frames::VLAN, 7).bytes(),
            18 + 20,
        ),
        (
            "EXT6",
            frames::ipv6(tcp())
                .then(frames::extension(frames::HOP_BY_HOP, 0))
                .then(frames::extension(frames::DESTINATION_OPTIONS, 0))
                .frame()
                .bytes(),
            14 + 40 + 16,
        ),
    ]
}

/// Measures every kind of frame, under the rules whose name holds `only`.
pub(crate) fn measure(rounds: usize, repeat: u32, only: &str) -> Result<Vec<Row>> {
    let bench = Bench::new()?;
    let mut rows = Vec::new();
    // Ports at random last: CPUs that have counted for every port have no blocks of counters left for others.
    for ports in ["hot", "random"] {
        for rules in Rules::ALL
            .into_iter()
            .filter(|rules| rules.name().contains(only))
        {
            bench.put_in_force(rules)?;
            for (name, frame, transport) in frames() {
                let programs = if ports == "hot" {
                    [
                        bench.baseline("empty", transport)?,
                        bench.baseline("limit", transport)?,
                        bench.dispatcher()?,
                    ]
                } else {
                    [
                        bench.baseline("empty_random", transport)?,
                        bench.baseline("limit_random", transport)?,
                        bench.baseline("portdemux_random", transport)?,
                    ]
                };
                let [empty, limit, portdemux] = interleave(&programs, &frame, rounds, repeat)?;
                rows.push(Row {
                    frame: name,
                    ports,
                    rules: rules.name(),
                    limit_over_empty: Spread::of_differences(&limit, &empty),
                    over_empty: Spread::of_differences(&portdemux, &empty),
                    over_limit: Spread::of_differences(&portdemux, &limit),
                });
            }
        }
    }
    Ok(rows)
}

/// Runs the programs in turn, so that whatever else the machine does falls on all of them.
pub(crate) fn interleave<const N: usize>(
    programs: &[Program; N],
    frame: &[u8],
    rounds: usize,
    repeat: u32,
) -> Result<[Vec<f64>; N]> {
    let mut samples = [const { Vec::new() }; N];
    for program in programs {
        program.time(frame, repeat)?;
    }
    for _ in 0..rounds {
        for (program, samples) in programs.iter().zip(&mut samples) {
            samples.push(program.time(frame, repeat)?);
        }
    }
    Ok(samples)
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16}  {:<5}  {:<6}  {:>22}  {:>22}  {:>22}\n",
        "RULES",
        "FRAME",
        "PORTS",
        "LIMIT - EMPTY, ns",
        "PORTDEMUX - EMPTY, ns",
        "PORTDEMUX - LIMIT, ns"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<16}  {:<5}  {:<6}  {:>22}  {:>22}  {:>22}",
            row.rules, row.frame, row.ports, row.limit_over_empty, row.over_empty, row.over_limit
        );
    }
    text
}
