//! What a change of the rules and a read of the counters cost.

use std::{fmt::Write as _, fs, time::Instant};

use anyhow::{Context as _, Result, ensure};
use portdemux::{image, rules::file, snapshot::Snapshot};
use portdemux_tests::{
    cli::Portdemux,
    lab::{self, Lab},
};
use serde::Serialize;

use super::{programs::Bench, sources, statistics::Spread};

/// How long something takes, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    what: &'static str,
    milliseconds: Spread,
}

impl Row {
    fn of(what: &'static str, milliseconds: &[f64]) -> Self {
        Self {
            what,
            milliseconds: Spread::of(milliseconds),
        }
    }
}

/// As many rules as there can be, a port each.
fn full_ruleset(to: &str) -> String {
    let mut text = String::new();
    for port in 0..=u16::MAX {
        let _ = write!(
            text,
            "[[rule]]\nname = \"rule-{port}\"\nport = \"{port}/tcp\"\nto = \"{to}\"\n\n"
        );
    }
    text
}

/// Every port of every protocol, by three ranges.
fn all_ports() -> String {
    ["tcp", "udp", "sctp"]
        .map(|protocol| format!("[[rule]]\nname = \"{protocol}\"\nport = \"0-65535/{protocol}\"\n"))
        .concat()
}

pub(crate) fn measure(rounds: usize) -> Result<Vec<Row>> {
    let mut rows = inside(rounds)?;
    rows.extend(as_commands(rounds)?);
    let sources = sources::measure_changes(rounds)?.into_iter();
    rows.extend(sources.map(|(what, milliseconds)| Row { what, milliseconds }));
    Ok(rows)
}

/// What the library does, without the start of a process.
fn inside(rounds: usize) -> Result<Vec<Row>> {
    let bench = Bench::new()?;
    let rulesets = [full_ruleset("local"), full_ruleset("drop")];
    let (mut switch, mut compile) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let ruleset = file::parse("bench.toml", &rulesets[round % 2])?;
        let names: Vec<&str> = ruleset
            .rules()
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        let ids: Vec<u32> = (0..).take(names.len()).collect();
        let begun = Instant::now();
        let image = image::compile(&ruleset, &ids)?;
        compile.push(milliseconds(begun));
        let begun = Instant::now();
        bench
            .writer
            .maps
            .install(&names, [0; 32], |_| Ok(image), &portdemux::dataplane::renew)?;
        switch.push(milliseconds(begun));
    }
    let (mut ports, mut snapshot) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        let all = bench.writer.maps.counters.ports();
        ports.push(milliseconds(begun));
        ensure!(all.len() == 3 << 16, "not every port was read");
        let begun = Instant::now();
        std::hint::black_box(Snapshot::take(&bench.writer.maps));
        snapshot.push(milliseconds(begun));
    }
    Ok(vec![
        Row::of("compile a ruleset of 65,536 rules", &compile),
        Row::of("switch to a compiled ruleset of 65,536 rules", &switch),
        Row::of("read the counters of all ports", &ports),
        Row::of("read all counters, claims and 65,536 names", &snapshot),
    ])
}

/// What a user waits for, with the start of the process.
fn as_commands(rounds: usize) -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", lab::INTERFACE])?;
    let directory = tempfile::tempdir()?;
    let write = |name: &str, text: String| -> Result<String> {
        let path = directory.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let files = [
        write("a.toml", full_ruleset("local"))?,
        write("b.toml", full_ruleset("drop"))?,
    ];
    let ranges = [
        write("c.toml", all_ports())?,
        write("d.toml", all_ports().replace("0-", "1-"))?,
    ];
    let time = |arguments: &[&str]| -> Result<f64> {
        // Not by the harness, which looks in steps of milliseconds whether a command has ended.
        let mut command = portdemux.command(arguments);
        let begun = Instant::now();
        let output = command.output().context("run portdemux")?;
        let time = milliseconds(begun);
        ensure!(output.status.success(), "{output:?}");
        Ok(time)
    };
    let (mut full, mut range, mut add, mut stats) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        full.push(time(&["apply", &files[round % 2]])?);
    }
    for round in 0..rounds {
        range.push(time(&["apply", &ranges[round % 2]])?);
    }
    let few = write("few.toml", "[[rule]]\nport = \"443/tcp\"\n".into())?;
    time(&["apply", &few])?;
    for round in 0..rounds {
        add.push(time(&["add", &format!("{}/udp", 1000 + round)])?);
        stats.push(time(&["stats", "--json"])?);
    }
    let (mut lists, mut change) = (Vec::new(), Vec::new());
    let sets = write("sets.toml", sources::text(1_000_000, 20, true))?;
    for round in 0..rounds {
        lists.push(time(&["apply", &sets])?);
        let address = format!("2001:db8::{round}");
        change.push(time(&["set", "add", "set3", &address])?);
        time(&["apply", &few])?;
    }
    Ok(vec![
        Row::of("portdemux apply, 65,536 rules", &full),
        Row::of("portdemux apply, all ports by range", &range),
        Row::of("portdemux add, one port", &add),
        Row::of("portdemux stats --json", &stats),
        Row::of("portdemux apply, 1,000,000 prefixes in 20 sets", &lists),
        Row::of("portdemux set add, one address beside those", &change),
    ])
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<54}  {:>22}\n", "WHAT", "MILLISECONDS");
    for row in rows {
        let _ = writeln!(text, "{:<54}  {:>22}", row.what, row.milliseconds);
    }
    text
}
