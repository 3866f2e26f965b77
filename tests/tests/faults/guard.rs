//! The process that undoes what nobody confirms: it undoes it whatever fails once.

use std::fs;

use anyhow::{Result, ensure};
use portdemux_tests::faults::{Ended, Fault};
use serde_json::{Value, json};

use crate::{
    Scenario,
    bed::{Bed, Holds, OTHER, PLAIN, words},
    each,
};

/// A change whose time is over and that nobody watches.
fn overdue(bed: &Bed) -> Result<()> {
    if bed.portdemux.pins().exists() {
        bed.portdemux.run(&["confirm"])?;
        bed.apply(PLAIN)?;
    } else {
        bed.load(PLAIN)?;
    }
    let file = bed.file(OTHER)?;
    bed.portdemux.ok(&[
        "apply".as_ref(),
        file.as_os_str(),
        "--confirm".as_ref(),
        "1h".as_ref(),
    ])?;
    bed.portdemux.kill_guardians()?;
    let path = bed.portdemux.state().join("default/pending.json");
    let mut pending: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    ensure!(!pending["deadline"].is_null(), "{pending}");
    pending["deadline"] = json!({"secs": 0, "nanos": 1});
    Ok(fs::write(path, pending.to_string())?)
}

#[test]
fn guard() -> Result<()> {
    let run = |bed: &Bed, fault: Option<Fault>| bed.run(&words(&["guard"]), fault);
    // One that did not come so far was never said to watch: the change that it is for is not made. Whoever
    // started it is told by its end.
    let check = |_: &Bed, ended: &Ended, now: &Holds| -> Result<()> {
        let is_undone = now.text.as_deref() == Some(PLAIN);
        let is_ready = ended.stdout == "ready\n";
        ensure!(
            if is_ready {
                is_undone
            } else {
                ended.code == Some(1)
            },
            "the guard ended with {:?} (ready: {is_ready}, undone: {is_undone})",
            ended.code
        );
        Ok(())
    };
    each(&Scenario {
        name: "guard",
        prepare: &overdue,
        run: &run,
        check: Some(&check),
        most: usize::MAX,
    })
}
