//! What portdemux costs, as ratios within one run: a packet against an empty program, against the
//! least that counting ports can be, and against xdp-filter; a change of the rules, and a read of all
//! counters.

mod control;
mod datapath;
mod flows;
mod lookups;
mod peer;
mod programs;
mod real;
mod sources;
mod statistics;
mod targets;
mod unused;

use std::io::Write as _;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;

/// Measure what portdemux costs on this machine
#[derive(Debug, Parser)]
struct Args {
    /// How many rounds; every program runs once in each
    #[arg(long, default_value_t = 41)]
    rounds: usize,
    /// How often a program runs in a round
    #[arg(long, default_value_t = 200_000)]
    repeat: u32,
    /// Measure packets alone, under the rules whose name holds this: `no rules`, `1 rule`, …, or `unused`, or
    /// `flows`, or `lookups` for those of sockets, or `targets`; or `changes` instead of packets. `programs` is measured
    /// only so: real servers and clients, for some minutes
    #[arg(long, value_name = "RULES")]
    only: Option<String>,
    /// How many seconds a client runs in a round of `--only programs`
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    rounds: usize,
    repeat: u32,
    packets: Vec<datapath::Row>,
    unused: Vec<unused::Row>,
    flows: Vec<flows::Row>,
    sources: Vec<sources::Row>,
    lookups: Vec<lookups::Row>,
    targets: Vec<targets::Row>,
    xdp_filter: Option<Vec<peer::Row>>,
    control: Vec<control::Row>,
    programs: Vec<real::Row>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let only = args.only.as_deref();
    let packets = datapath::measure(args.rounds, args.repeat, only.unwrap_or_default())?;
    let unused = if only.is_none_or(|only| only == "unused") {
        unused::measure(args.rounds, args.repeat)?
    } else {
        Vec::new()
    };
    let flows = if only.is_none_or(|only| only == "flows") {
        flows::measure(args.rounds, args.repeat)?
    } else {
        Vec::new()
    };
    let sources = sources::measure(args.rounds, args.repeat, only.unwrap_or_default())?;
    let lookups = if only.is_none_or(|only| only == "lookups") {
        lookups::measure(args.rounds, args.repeat)?
    } else {
        Vec::new()
    };
    let targets = if only.is_none_or(|only| only == "targets") {
        targets::measure(args.rounds, args.repeat)?
    } else {
        Vec::new()
    };
    let xdp_filter = match only {
        Some(_) => None,
        None => peer::measure(args.rounds, args.repeat)?,
    };
    let control = if only.is_none_or(|only| only == "changes") {
        control::measure(args.rounds)?
    } else {
        Vec::new()
    };
    let programs = if only == Some("programs") {
        real::measure(args.rounds, args.seconds)?
    } else {
        Vec::new()
    };
    let report = Report {
        rounds: args.rounds,
        repeat: args.repeat,
        packets,
        unused,
        flows,
        sources,
        lookups,
        targets,
        xdp_filter,
        control,
        programs,
    };
    let text = if args.json {
        serde_json::to_string(&report)? + "\n"
    } else {
        let mut tables = Vec::new();
        if !report.packets.is_empty() {
            tables.push(datapath::table(&report.packets));
        }
        if !report.unused.is_empty() {
            tables.push(unused::table(&report.unused));
        }
        if !report.flows.is_empty() {
            tables.push(flows::table(&report.flows));
        }
        if !report.sources.is_empty() {
            tables.push(sources::table(&report.sources));
        }
        if !report.lookups.is_empty() {
            tables.push(lookups::table(&report.lookups));
        }
        if !report.targets.is_empty() {
            tables.push(targets::table(&report.targets));
        }
        if only.is_none() {
            tables.push(peer::table(report.xdp_filter.as_deref()));
        }
        if !report.control.is_empty() {
            tables.push(control::table(&report.control));
        }
        if !report.programs.is_empty() {
            tables.push(real::table(&report.programs));
        }
        tables.join("\n")
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
