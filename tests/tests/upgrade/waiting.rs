//! A change that waits for its confirmation while another version takes over.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::Lab,
    probe::Probe,
    require,
    wait::{PATIENCE, wait_until},
};

use crate::bed::{self, Pair};

/// Makes a change with the older version that waits, and takes over with the newer one.
fn taken_over<'l>(pair: &Pair, lab: &'l Lab, within: &str) -> Result<(Portdemux<'l>, Probe)> {
    let mut portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(lab)?;
    pair.attach_older(&mut portdemux, &[])?;
    portdemux.ok(&["add", "1002/udp", "--name", "trial", "--confirm", within])?;
    ensure!(probe.passing(&[1002, 1003])? == [1002, 1003].into());
    pair.use_newer(&mut portdemux);
    portdemux.ok(&["upgrade"])?;
    ensure!(probe.passing(&[1002, 1003])? == [1002, 1003].into());
    Ok((portdemux, probe))
}

#[test]
fn a_change_that_nobody_confirms_is_undone_by_the_newer_version() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let pair = Pair::of_this()?;
    let lab = Lab::new()?;
    let (portdemux, probe) = taken_over(&pair, &lab, "8s")?;
    let status = portdemux.json(&["status"])?;
    let left = status["pending"]["seconds_left"].as_f64();
    let left = left.with_context(|| format!("nothing waits: {status}"))?;
    ensure!(left < 8.0, "the time began anew: {left}");
    wait_until("the end of the trial", PATIENCE, || {
        Ok(probe.passing(&[1002, 1003])? == [1003].into())
    })?;
    wait_until("what is said of it", PATIENCE, || {
        Ok(portdemux.json(&["status"])?["undone"] == 2)
    })?;
    let rules = portdemux.ok(&["export"])?.stdout;
    ensure!(rules == bed::RULES, "{rules}");
    Ok(())
}

#[test]
fn a_change_is_confirmed_to_the_newer_version_and_stays() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let pair = Pair::of_this()?;
    let lab = Lab::new()?;
    let (portdemux, probe) = taken_over(&pair, &lab, "60s")?;
    portdemux.ok(&["confirm"])?;
    ensure!(portdemux.json(&["status"])?["pending"].is_null());
    ensure!(probe.passing(&[1002, 1003])? == [1002, 1003].into());
    ensure!(portdemux.ok(&["export"])?.stdout.contains("trial"));
    Ok(())
}
