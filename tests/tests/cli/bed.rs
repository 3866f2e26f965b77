//! What these tests have in common.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    probe::Probe,
    run::Output,
};
use serde_json::Value;

/// A rule with a name and with ports that take much room, and one that nothing comes for.
pub(crate) const RULES: &str = "\
[[rule]]
name = \"a-rule-with-a-name-that-is-rather-long-for-a-table\"
port = [\"20/udp\", \"1000-1999/sctp\", \"3000-3999/sctp\"]
to   = \"drop\"

[[rule]]
name = \"quiet\"
port = \"9/tcp\"
";

/// An instance with [`RULES`] and traffic on three ports.
pub(crate) fn busy(lab: &Lab) -> Result<(Portdemux<'_>, Probe)> {
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(RULES)?;
    let passing = probe.passing(&[10, 20, 20, 20, 30, 30])?;
    ensure!(passing.iter().eq(&[10, 30]), "{passing:?} pass");
    Ok((portdemux, probe))
}

/// Everything that a reader is told about an instance, save for when.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    export: String,
    rules: Value,
    stats: Value,
    records: Vec<String>,
}

impl Told {
    pub(crate) fn by(portdemux: &Portdemux) -> Result<Self> {
        let mut stats = portdemux.stats()?.0;
        stats["time"].take();
        Ok(Self {
            export: portdemux.ok(&["export"])?.stdout,
            rules: portdemux.json(&["rules"])?,
            stats,
            records: portdemux.records()?,
        })
    }
}

/// Runs a command that has to fail in this way and to leave everything as it was before: generation,
/// rules and counters. Returns what it said on standard error.
pub(crate) fn refused(
    portdemux: &Portdemux,
    before: &Told,
    code: i32,
    arguments: &[&str],
) -> Result<String> {
    let Output { stdout, stderr, .. } = portdemux.fails(code, arguments)?;
    let after = Told::by(portdemux)?;
    ensure!(
        *before == after,
        "{arguments:?}: {before:?} became {after:?}"
    );
    ensure!(stdout.is_empty(), "{arguments:?} printed {stdout}");
    Ok(stderr)
}

/// What stands before the time that a change took, and the generation.
pub(crate) fn without_time(said: &str) -> Result<String> {
    let (before, rest) = said.rsplit_once(", ").context("no comma")?;
    let (before, time) = before.rsplit_once(", ").context("one comma")?;
    let digits = time.strip_suffix(" ms").context("no milliseconds")?;
    digits.parse::<f64>()?;
    Ok(format!("{before}, TIME, {rest}"))
}
