//! What real servers and their clients pay: requests, connections, bytes and queries per second under filters of one
//! policy, and how long the programs of a filter run for a packet of theirs.
//!
//! A loop over one packet has all of it in the nearest cache. Between two packets of these programs a server, a client
//! and the network stack have used the caches for themselves.

mod filter;
mod load;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use aya::{
    programs::{ProgramInfo, loaded_programs},
    sys::{Stats, enable_stats},
};
use portdemux_tests::{lab::Lab, veth::Offloads};
use serde::Serialize;

use self::{
    filter::{Filter, Standing, Way},
    load::{Load, Servers},
};
use super::statistics::Spread;

/// Under a filter, what a load reaches and what its packets cost.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    load: &'static str,
    filter: &'static str,
    unit: &'static str,
    per_second: Spread,
    /// The part of what the same load reached without a filter in the same round.
    of_none: Spread,
    /// The same with empty programs on both ways.
    of_empty: Spread,
    /// What the program on the way in costs; none if the filter has none.
    received: Option<Cost>,
    /// The same on the way out.
    sent: Option<Cost>,
}

/// What a program costs.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cost {
    /// Nanoseconds for a run, what the kernel takes to measure it included.
    nanoseconds: Spread,
    /// How often it ran in a second, in the median.
    runs_per_second: f64,
}

/// What one load reached under one filter in one round.
struct Sample {
    per_second: f64,
    /// By the way of its packets: nanoseconds for a run, and runs per second.
    runs: BTreeMap<Way, (f64, f64)>,
}

/// Measures all loads under all filters, in turn, each for `seconds` without and for as long with measuring of the
/// programs: that costs time itself.
pub(crate) fn measure(rounds: usize, seconds: u32) -> Result<Vec<Row>> {
    let lab = Lab::with(1500, Offloads::On)?;
    let servers = Servers::start(&lab)?;
    let mut samples: BTreeMap<(Load, Filter), Vec<Sample>> = BTreeMap::new();
    for _ in 0..rounds {
        for filter in Filter::ALL {
            let standing = filter.put_up(&lab)?;
            for load in Load::ALL {
                let sample = Sample::take(&servers, load, &standing, seconds)?;
                samples.entry((load, filter)).or_default().push(sample);
            }
        }
    }
    Ok(rows(&samples))
}

impl Sample {
    fn take(servers: &Servers, load: Load, standing: &Standing, seconds: u32) -> Result<Self> {
        let per_second = servers.run(load, seconds)?;
        let programs = standing.programs()?;
        let before = runs(&programs)?;
        let measured = enable_stats(Stats::RunTime).context("measure programs")?;
        servers.run(load, seconds)?;
        drop(measured);
        let after = runs(&programs)?;
        let mut runs = BTreeMap::new();
        for (way, (time, count)) in before {
            let (time_after, count_after) = *after.get(&way).context("a program is gone")?;
            let count = f64::from(u32::try_from(count_after - count)?);
            let time = time_after.saturating_sub(time).as_secs_f64() * 1e9;
            if count > 0.0 {
                runs.insert(way, (time / count, count / f64::from(seconds)));
            }
        }
        Ok(Self { per_second, runs })
    }
}

/// How long programs have run, and how often, by the way of their packets.
fn runs(programs: &BTreeMap<Way, u32>) -> Result<BTreeMap<Way, (Duration, u64)>> {
    let mut found = BTreeMap::new();
    for info in loaded_programs() {
        let info: ProgramInfo = info?;
        if let Some((way, _)) = programs.iter().find(|(_, id)| **id == info.id()) {
            found.insert(*way, (info.run_time(), info.run_count()));
        }
    }
    Ok(found)
}

fn rows(samples: &BTreeMap<(Load, Filter), Vec<Sample>>) -> Vec<Row> {
    let rates = |load, filter| {
        let samples = samples.get(&(load, filter)).map_or(&[][..], Vec::as_slice);
        samples.iter().map(|sample| sample.per_second).collect()
    };
    let row = |(&(load, filter), own): (&(Load, Filter), &Vec<Sample>)| {
        let per_second: Vec<f64> = rates(load, filter);
        let part_of = |other| {
            let others: Vec<f64> = rates(load, other);
            let parts = per_second
                .iter()
                .zip(others)
                .map(|(own, other)| own / other);
            Spread::of(&parts.collect::<Vec<_>>())
        };
        let cost = |way| {
            let runs: Vec<(f64, f64)> = own
                .iter()
                .filter_map(|sample| sample.runs.get(&way).copied())
                .collect();
            let (times, counts): (Vec<f64>, Vec<f64>) = runs.into_iter().unzip();
            (!times.is_empty()).then(|| Cost {
                nanoseconds: Spread::of(&times),
                runs_per_second: Spread::of(&counts).median,
            })
        };
        Row {
            load: load.name(),
            filter: filter.name(),
            unit: load.unit(),
            per_second: Spread::of(&per_second),
            of_none: part_of(Filter::None),
            of_empty: part_of(Filter::Empty),
            received: cost(Way::In),
            sent: cost(Way::Out),
        }
    };
    samples.iter().map(row).collect()
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<22}  {:<14}  {:>9}  {:>17}  {:>17}  {:>22}  {:>9}  {:>22}  {:>9}\n",
        "LOAD",
        "FILTER",
        "PER SEC",
        "OF NO FILTER",
        "OF EMPTY",
        "IN, ns",
        "RUNS/s",
        "OUT, ns",
        "RUNS/s"
    );
    for row in rows {
        let load = format!("{}, {}", row.load, row.unit);
        let _ = write!(
            text,
            "{load:<22}  {:<14}  {:>9.0}  {:>17}  {:>17}",
            row.filter,
            row.per_second.median,
            parts(row.of_none),
            parts(row.of_empty)
        );
        for cost in [row.received, row.sent] {
            let _ = match cost {
                Some(cost) => write!(
                    text,
                    "  {:>22}  {:>9.0}",
                    cost.nanoseconds, cost.runs_per_second
                ),
                None => write!(text, "  {:>22}  {:>9}", "–", "–"),
            };
        }
        text.push('\n');
    }
    text
}

fn parts(spread: Spread) -> String {
    format!(
        "{:.2} ({:.2}..{:.2})",
        spread.median, spread.lower, spread.upper
    )
}
