//! Rules that hold from boot on: what is put in force from their file is kept for a boot at which that has a mistake,
//! and what is in force is saved in it.

use std::{fs, path::PathBuf};

use anyhow::{Result, ensure};
use portdemux_tests::faults::{Ended, Fault};

use crate::{
    Scenario,
    bed::{Bed, Holds, OTHER, PLAIN, words},
    each,
};

const FILE: &str = "default.toml";

/// The file for boot, which says this from now on.
fn file(bed: &Bed, text: &str) -> Result<PathBuf> {
    fs::create_dir_all(bed.portdemux.config())?;
    let file = bed.portdemux.config().join(FILE);
    fs::write(&file, text)?;
    Ok(file)
}

fn plain(bed: &Bed) -> Result<()> {
    if !bed.portdemux.pins().exists() {
        bed.load(OTHER)?;
    }
    let file = file(bed, PLAIN)?;
    bed.portdemux.ok(&["apply".as_ref(), file.as_os_str()])?;
    Ok(())
}

#[test]
fn apply_the_file_for_boot() -> Result<()> {
    let run = |bed: &Bed, fault: Option<Fault>| {
        let file = file(bed, OTHER)?;
        bed.run(&words(&["apply".as_ref(), file.as_os_str()]), fault)
    };
    let check = |bed: &Bed, ended: &Ended, now: &Holds| -> Result<()> {
        let kept = fs::read_to_string(bed.portdemux.kept().join(FILE))?;
        ensure!(
            now.text.as_ref() == Some(&kept) || ended.stderr.contains("not kept"),
            "nobody was told that these are not kept: {}",
            ended.stderr
        );
        Ok(())
    };
    each(&Scenario {
        name: "apply-boot",
        prepare: &plain,
        run: &run,
        check: Some(&check),
        most: usize::MAX,
    })
}

#[test]
fn save() -> Result<()> {
    let prepare = |bed: &Bed| {
        plain(bed)?;
        let before = file(bed, OTHER)?.with_extension("toml~");
        if before.exists() {
            fs::remove_file(before)?;
        }
        Ok(())
    };
    let run = |bed: &Bed, fault: Option<Fault>| bed.run(&words(&["save"]), fault);
    let check = |bed: &Bed, ended: &Ended, _: &Holds| -> Result<()> {
        let saved = fs::read_to_string(bed.portdemux.config().join(FILE))?;
        let is_known = if saved == PLAIN {
            // What could not be said was not what was to be done.
            let said = ["says so now", "write standard output"];
            ended.code == Some(0) || said.iter().any(|said| ended.stderr.contains(said))
        } else {
            saved == OTHER && ended.code == Some(1)
        };
        ensure!(is_known, "{:?}: {}{saved}", ended.code, ended.stderr);
        Ok(())
    };
    each(&Scenario {
        name: "save",
        prepare: &prepare,
        run: &run,
        check: Some(&check),
        most: usize::MAX,
    })
}
