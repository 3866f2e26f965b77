//! A change that fails late leaves nothing: no table of flows, no program, no pin, no record.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use aya::{maps::MapInfo, programs::loaded_programs};
use portdemux::maps::{REDIRECT_DROPS, RULESETS, STEERING};
use portdemux_tests::{
    faults::Fault,
    lab::{INTERFACE, Lab},
    require::{self, Need},
    wait::{PATIENCE, wait_until},
};
use serde_json::Value;

use crate::bed::{Bed, PLAIN, RICH, words};

/// How many of its calls to the kernel are made to fail, over the whole course of a change.
const TRIED: usize = 24;

/// What an instance has in the kernel besides its maps: its programs by name, and its tables of flows.
#[derive(Debug, PartialEq)]
struct Made {
    programs: BTreeMap<String, usize>,
    sizes: [Value; 2],
}

impl Made {
    fn by(bed: &Bed) -> Result<Self> {
        let pin = |name: &str| bed.portdemux.pins().join(name);
        let maps = [RULESETS, REDIRECT_DROPS, STEERING].map(|name| MapInfo::from_pin(pin(name)));
        let maps: Vec<u32> = maps
            .into_iter()
            .map(|map| Ok(map?.id()))
            .collect::<Result<_>>()?;
        let mut programs = BTreeMap::new();
        for program in loaded_programs().flatten() {
            let used = program.map_ids().ok().flatten().unwrap_or_default();
            if used.iter().any(|map| maps.contains(map)) {
                let name = program.name_as_str().context("a program has no name")?;
                *programs.entry(name.to_owned()).or_default() += 1;
            }
        }
        let status = bed.portdemux.json(&["status"])?;
        let sizes = ["known", "half_open"].map(|table| status["flows"][table]["size"].clone());
        Ok(Self { programs, sizes })
    }
}

/// Makes calls of a change fail, one after the other. Wherever that keeps the rules from coming in force, all is as it
/// was.
fn leaves_nothing(before: &str, after: &str) -> Result<()> {
    if !cfg!(target_arch = "x86_64")
        || !require::have(&[require::WIRE, &[Need::Tool("sh")]].concat())
    {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    let file = bed.file(before)?.display().to_string();
    bed.portdemux.ok(&["attach", INTERFACE, "--rules", &file])?;
    // The kernel frees a program some time after its last pin went.
    wait_until("one program of each name", PATIENCE, || {
        Ok(Made::by(&bed)?.programs.values().all(|count| *count == 1))
    })?;
    let (leaves, made) = (bed.leaves()?, Made::by(&bed)?);
    let as_before = || Ok(Made::by(&bed)? == made);
    let mut apply = words(&["apply"]);
    apply.push(bed.file(after)?.into());
    let ended = bed.run(&apply, None)?;
    ensure!(ended.code == Some(0), "{ended:?}");
    bed.apply(before)?;
    wait_until("the programs from before", PATIENCE, as_before)?;

    let mut faults = Fault::all(&ended.calls);
    faults.retain(|fault| {
        let fault = fault.to_string();
        fault.starts_with("bpf ") && fault.ends_with(" EIO")
    });
    let (mut undone, mut done) = (0, 0);
    for fault in faults.iter().step_by((faults.len() / TRIED).max(1)) {
        // Both are written into the same file.
        bed.file(after)?;
        let ended = bed.run(&apply, Some(*fault))?;
        if bed.holds()?.text.as_deref() == Some(after) {
            done += 1;
            bed.apply(before)?;
            continue;
        }
        ensure!(ended.code == Some(1), "{fault}: {ended:?}");
        undone += 1;
        let left = bed.leaves()?;
        let strange: Vec<_> = left.symmetric_difference(&leaves).collect();
        ensure!(
            strange.is_empty(),
            "{fault} leaves {strange:?}: {}",
            ended.stderr
        );
        wait_until("the programs from before", PATIENCE, as_before)
            .with_context(|| format!("{fault} leaves {:?} of {made:?}", Made::by(&bed)))?;
    }
    ensure!(
        undone > TRIED / 4 && undone > done / 8,
        "{undone} faults kept the rules from coming in force, {done} did not"
    );
    Ok(())
}

#[test]
fn rules_that_do_not_come_in_force_leave_nothing_of_what_they_need() -> Result<()> {
    leaves_nothing(PLAIN, RICH)
}

#[test]
fn tables_of_flows_are_as_large_as_before_where_a_change_of_their_size_fails() -> Result<()> {
    let larger = RICH.replace(
        "size = 1024\nhalf_open = 1024",
        "size = 8192\nhalf_open = 8192",
    );
    ensure!(larger != RICH);
    leaves_nothing(RICH, &larger)
}

/// The rules are in force by then: they go again, with all that they need.
#[test]
fn rules_that_are_in_force_go_again_with_what_they_need_if_an_interface_is_refused() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    bed.load(PLAIN)?;
    let (leaves, made) = (bed.leaves()?, Made::by(&bed)?);
    let file = bed.file(RICH)?.display().to_string();
    // What loops back has no driver with XDP.
    let words = ["attach", INTERFACE, "lo", "--mode", "native", "--rules"];
    let words = [&words[..], &[&file]].concat();
    let error = bed.portdemux.fails(1, &words)?.stderr;
    ensure!(error.contains("attach to lo in native mode"), "{error}");
    ensure!(bed.holds()?.text.as_deref() == Some(PLAIN));
    ensure!(bed.leaves()? == leaves);
    let as_before = || Ok(Made::by(&bed)? == made);
    wait_until("the programs from before", PATIENCE, as_before)
}
