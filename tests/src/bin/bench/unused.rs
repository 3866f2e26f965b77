//! What a packet pays for what the rules of other packets ask.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use portdemux_tests::frames;
use serde::Serialize;

use super::{
    datapath::interleave,
    programs::{Bench, Rules},
    statistics::Spread,
};

/// The cost of a packet for a port whose rule asks nothing, while other rules ask everything, in nanoseconds
/// over an empty program; and over the same packet while it is the only rule, in the same rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    frame: &'static str,
    over_empty: Spread,
    over_one_rule: Spread,
}

/// Measures packets for 443.
pub(crate) fn measure(rounds: usize, repeat: u32) -> Result<Vec<Row>> {
    let one = Bench::new()?;
    one.put_in_force(Rules::One)?;
    let others = Bench::new()?;
    others.put_in_force(Rules::Others)?;
    let mut rows = Vec::new();
    for (frame, bytes) in [
        (
            "TCP4",
            frames::ipv4(frames::tcp(40_000, 443)).frame().bytes(),
        ),
        (
            "TCP6",
            frames::ipv6(frames::tcp(40_000, 443)).frame().bytes(),
        ),
    ] {
        let programs = [
            one.baseline("empty", 0)?,
            one.dispatcher()?,
            others.dispatcher()?,
        ];
        let [empty, alone, among] = interleave(&programs, &bytes, rounds, repeat)?;
        ensure!(!programs[2].drops(&bytes)?, "443 is dropped");
        rows.push(Row {
            frame,
            over_empty: Spread::of_differences(&among, &empty),
            over_one_rule: Spread::of_differences(&among, &alone),
        });
    }
    Ok(rows)
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<22}  {:<5}  {:>22}  {:>34}\n",
        "OTHER RULES ASK MORE", "FRAME", "PORTDEMUX - EMPTY, ns", "OVER THE SAME WITH ONE RULE, ns"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<22}  {:<5}  {:>22}  {:>34}",
            "443", row.frame, row.over_empty, row.over_one_rule
        );
    }
    text
}
