//! An upgrade is killed.

use std::{collections::BTreeSet, env};

use anyhow::{Context as _, Result, bail, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    probe::Probe,
    require,
    steps::{self, Kill},
};

use crate::bed::{self, Pair};

const PORTS: [u16; 3] = [1001, 1003, 9];
/// More steps than an upgrade has.
const MANY: usize = 20_000;
/// How far apart the steps are that it is killed before, unless `PORTDEMUX_EVERY_STEP` is set.
const STRIDE: usize = 29;

#[test]
fn an_upgrade_killed_at_any_step_is_finished_or_has_changed_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let stride = if env::var_os("PORTDEMUX_EVERY_STEP").is_some() {
        1
    } else {
        STRIDE
    };
    let pair = Pair::of_this()?;
    let case = Case {
        pair: &pair,
        lab: &Lab::new()?,
    };
    case.killed(stride).with_context(|| format!("{pair:?}"))?;
    Ok(())
}

struct Case<'a> {
    pair: &'a Pair,
    lab: &'a Lab,
}

impl Case<'_> {
    fn killed(&self, stride: usize) -> Result<()> {
        let mut portdemux = Portdemux::new(&self.lab.server)?;
        let probe = Probe::new(self.lab)?;
        let rules = bed::rules(&portdemux)?;
        let older = BTreeSet::from([format!("abi{}", self.pair.abis[0])]);
        let newer = BTreeSet::from([format!("abi{}", self.pair.abis[1])]);
        let mut counted = self.load(&mut portdemux, &rules, &probe)?;
        let (mut whole, mut begun) = (0, 0);
        // The last step before which nothing had changed, and those to try one by one: where it changes.
        let (mut last_whole, mut closely) = (0, 0..0);
        let mut next = 1;
        while next <= MANY {
            let step = next;
            next += if closely.contains(&step) { 1 } else { stride };
            let course = steps::run(
                &portdemux.command(&["upgrade"]),
                &self.pair.newer,
                Kill::Before(step),
            )?;
            let left = bed::directories(&portdemux)?;
            self.judge(&portdemux, &probe, &mut counted)
                .with_context(|| format!("killed before step {step}: {course:?}: {left:?}"))?;
            if course.code.is_some() {
                ensure!(course.code == Some(0), "the upgrade failed");
                ensure!(left == newer, "{left:?}");
                ensure!(whole > 2 && begun > 0, "{whole} whole, {begun} begun");
                return Ok(());
            }
            if left.is_superset(&older) {
                // Nothing has changed for the older version.
                whole += 1;
                last_whole = step;
                self.pair.use_older(&mut portdemux);
                ensure!(portdemux.json(&["status"])?["interfaces"][0]["state"] == "attached");
                Self::change(&portdemux)?;
                self.pair.use_newer(&mut portdemux);
                continue;
            }
            begun += 1;
            if closely.is_empty() && stride > 1 {
                // From earlier on: the next upgrade finds nothing that one before it left half made, and has
                // fewer steps.
                closely = last_whole.saturating_sub(2 * stride) + 1..step;
                next = closely.start;
            }
            self.pair.use_older(&mut portdemux);
            for verb in [&["status"][..], &["attach", INTERFACE]] {
                portdemux
                    .fails(1, verb)
                    .with_context(|| format!("killed before step {step}: {left:?}"))?;
            }
            self.pair.use_newer(&mut portdemux);
            // Another upgrade finishes it, or any other change.
            if begun % 2 == 0 {
                portdemux.ok(&["upgrade"])?;
            } else {
                portdemux.ok(&["set", "add", "banned", "192.0.2.77"])?;
            }
            let left = bed::directories(&portdemux)?;
            self.judge(&portdemux, &probe, &mut counted)
                .with_context(|| format!("finished after step {step}: {left:?}"))?;
            ensure!(left == newer, "after step {step}: {left:?}");
            portdemux.ok(&["detach", "--all"])?;
            counted = self.load(&mut portdemux, &rules, &probe)?;
        }
        bail!("the upgrade did not end within {MANY} steps");
    }

    /// Lets the older version load the rules; returns what it has counted.
    fn load(&self, portdemux: &mut Portdemux, rules: &str, probe: &Probe) -> Result<u64> {
        self.pair.use_older(portdemux);
        portdemux.ok(&["attach", INTERFACE, "--mode", "generic", "--rules", rules])?;
        // As in what goes on after a kill, so that an upgrade has as many steps.
        Self::change(portdemux)?;
        self.pair.use_newer(portdemux);
        let mut counted = 0;
        self.judge(portdemux, probe, &mut counted)?;
        Ok(counted)
    }

    /// Changes something and takes it back.
    fn change(portdemux: &Portdemux) -> Result<()> {
        for verb in ["add", "remove"] {
            portdemux.ok(&["set", verb, "banned", "192.0.2.77"])?;
        }
        Ok(())
    }

    /// The rules hold, and all packets so far are counted.
    fn judge(&self, portdemux: &Portdemux, probe: &Probe, counted: &mut u64) -> Result<()> {
        let passing = probe.passing(&PORTS)?;
        let instance = self.lab.server.name();
        ensure!(passing == [1003].into(), "{instance}: {passing:?} passes");
        *counted += 1;
        let counters = portdemux.stats()?;
        for port in PORTS {
            let received = counters.port(&format!("{port}/udp"))?.received.packets;
            ensure!(
                received == *counted,
                "{port}: {received} instead of {counted}"
            );
        }
        ensure!(
            portdemux
                .ok(&["export"])?
                .stdout
                .starts_with("# what holds")
        );
        let status = portdemux.json(&["status"])?;
        ensure!(status["interfaces"][0]["state"] == "attached", "{status}");
        Ok(())
    }
}
