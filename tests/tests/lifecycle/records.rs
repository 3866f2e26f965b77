//! Records that cannot be read, and records that are lost.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    probe::Probe,
    require, run,
};

const RULES: &str = "\
# who may and who may not
[sets]
guests = [\"192.0.2.77\"]
banned = [\"192.0.2.66\"]

[[rule]]
name = \"game\"
port = \"1001/udp\"
deny = \"@banned\"

[[rule]]
name = \"door\"
port = \"1002/udp\"
from = [\"@guests\", \"198.51.100.0/24\"]
";

struct Bed<'a> {
    portdemux: Portdemux<'a>,
    probe: Probe,
}

impl<'a> Bed<'a> {
    /// The peer is a guest for an hour, and banned for good; each by a change of a set.
    fn new(lab: &'a Lab) -> Result<Self> {
        let portdemux = Portdemux::new(&lab.server)?;
        portdemux.ok(&["attach", INTERFACE])?;
        portdemux.apply(RULES)?;
        portdemux.ok(&["set", "add", "guests", "192.0.2.1", "--expires", "1h"])?;
        portdemux.ok(&["set", "add", "banned", "192.0.2.1"])?;
        let probe = Probe::new(lab)?;
        let bed = Self { portdemux, probe };
        bed.holds("at first")?;
        Ok(bed)
    }

    /// The one record of this ending.
    fn record(&self, ending: &str) -> Result<PathBuf> {
        let names = self.portdemux.records()?;
        let mut found = names.iter().filter(|name| name.ends_with(ending));
        let name = found
            .next()
            .with_context(|| format!("{ending} in {names:?}"))?;
        Ok(self.portdemux.state().join("default").join(name))
    }

    /// The peer is a guest for a time and banned for good, to packets and in the text.
    fn holds(&self, when: &str) -> Result<()> {
        let passing = self.probe.passing(&[1001, 1002])?;
        ensure!(passing.iter().eq(&[1002]), "{when}: {passing:?} pass");
        let sets = self.portdemux.json(&["set", "list"])?;
        let member = |set: &str| {
            let mut sets = sets["sets"].as_array().into_iter().flatten();
            let set = sets.find(|known| known["name"] == set)?;
            let mut members = set["prefixes"].as_array().into_iter().flatten();
            members
                .find(|member| member["prefix"] == "192.0.2.1/32")
                .cloned()
        };
        let guest = member("guests").with_context(|| format!("{when}: no guest in {sets}"))?;
        ensure!(guest["until"].is_string(), "{when}: {guest}");
        let banned = member("banned").with_context(|| format!("{when}: no ban in {sets}"))?;
        ensure!(banned["until"].is_null(), "{when}: {banned}");
        Ok(())
    }
}

#[test]
fn a_record_that_cannot_be_read_is_not_lost() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    let generation = bed.portdemux.stats()?.generation()?;
    for ending in [".toml", ".changes"] {
        let path = bed.record(ending)?;
        let aside = bed.portdemux.state().join("aside");
        fs::rename(&path, &aside)?;
        fs::create_dir(&path)?;
        for words in [
            &["add", "9/sctp"][..],
            &["remove", "game"],
            &["set", "remove", "banned", "192.0.2.1"],
            &["attach", INTERFACE],
            &["export"],
            &["rules"],
            &["set", "list"],
        ] {
            let said = bed.portdemux.fails(1, words)?.stderr;
            ensure!(
                said.contains(&format!("read {}: Is a directory", path.display()))
                    && said.contains("nothing was changed"),
                "{ending} {words:?}: {said}"
            );
        }
        ensure!(bed.portdemux.stats()?.generation()? == generation);
        fs::remove_dir(&path)?;
        fs::rename(&aside, &path)?;
        bed.holds(ending)?;
    }
    Ok(())
}

#[test]
fn a_limit_on_open_files_is_no_damage_and_no_loss() -> Result<()> {
    /// As many as the most needing of these commands opens at once, and some more.
    const ENOUGH: u32 = 100;
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    let binary = cli::binary()?.display().to_string();
    for words in [
        &["status"][..],
        &["add", "9/sctp"],
        &["set", "add", "guests", "192.0.2.9"],
    ] {
        let before = bed.portdemux.ok(&["export"])?.stdout;
        let mut most = 3;
        loop {
            let script = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
            let shell = ["sh", "-c", &script, &binary];
            let ended = run::run(bed.portdemux.command_through(&shell, words))?;
            let said = &ended.stderr;
            for wrong in ["detach --all", "rebuilt", "is lost", "panicked"] {
                ensure!(!said.contains(wrong), "{words:?} with {most}: {said}");
            }
            if ended.code() == Some(0) {
                break;
            }
            let after = bed.portdemux.ok(&["export"])?.stdout;
            ensure!(before == after, "{words:?} with {most}: {said}{after}");
            most += 1;
            ensure!(most < ENOUGH, "{words:?} never works: {said}");
        }
        ensure!(most > 5, "{words:?} opened nothing");
    }
    bed.holds("in the end")
}

#[test]
fn changes_of_sets_whose_record_is_lost_are_read_from_the_kernel() -> Result<()> {
    type RedirectDrop = (&'static str, fn(&str) -> Option<String>);
    const LOSSES: [RedirectDrop; 3] = [
        ("no record", |_| None),
        ("half of it", |text| {
            text.lines().next().map(|line| format!("{line}\n"))
        }),
        ("garbage", |_| Some("garbage\n".into())),
    ];
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    for (what, lose) in LOSSES {
        for words in [
            &["add", "9/sctp"][..],
            &["remove", "9/sctp"],
            &["set", "add", "guests", "192.0.2.9"],
            &["set", "remove", "banned", "192.0.2.66"],
        ] {
            let bed = Bed::new(&lab)?;
            if words[0] == "remove" {
                bed.portdemux.ok(&["add", "9/sctp"])?;
                for guest in ["192.0.2.10", "192.0.2.11"] {
                    bed.portdemux.ok(&["set", "add", "guests", guest])?;
                }
            }
            let path = bed.record(".changes")?;
            let text = fs::read_to_string(&path)?;
            match lose(&text) {
                Some(left) => fs::write(&path, left)?,
                None => fs::remove_file(&path)?,
            }
            let when = format!("{what}, {words:?}");
            let said = bed.portdemux.ok(&["export"])?;
            ensure!(
                said.stderr
                    .contains("the record of changes of sets is lost ("),
                "{when}: {}",
                said.stderr
            );
            bed.holds(&when)?;
            bed.portdemux.ok(words)?;
            bed.holds(&when)?;
            // And from then on it is on record again.
            let said = bed.portdemux.ok(&["export"])?;
            ensure!(said.stderr.is_empty(), "{when}: {}", said.stderr);
            ensure!(
                said.stdout.starts_with("# who may"),
                "{when}: {}",
                said.stdout
            );
        }
    }
    Ok(())
}

#[test]
fn a_whole_file_is_applied_whatever_the_records_say() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    for ending in [".changes", ".toml"] {
        fs::write(bed.record(ending)?, "\u{0}garbage\n")?;
        bed.portdemux.apply(RULES)?;
        let export = bed.portdemux.ok(&["export"])?;
        assert_eq!(
            (export.stdout.as_str(), export.stderr.as_str()),
            (RULES, "")
        );
        ensure!(bed.probe.passing(&[1001, 1002])?.iter().eq(&[1001]));
        bed.portdemux.ok(&["set", "add", "banned", "192.0.2.1"])?;
    }
    Ok(())
}

#[test]
fn what_is_rebuilt_keeps_the_names_of_sets_and_the_ends_of_their_members() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    fs::remove_file(bed.record(".toml")?)?;
    bed.holds("without a text")?;
    bed.portdemux.ok(&["add", "9/sctp"])?;
    bed.holds("after a change")?;
    let text = bed.portdemux.ok(&["export"])?.stdout;
    for part in [
        "guests = [",
        "banned = [",
        "\"@guests\"",
        "\"@banned\"",
        "198.51.100.0/24",
    ] {
        ensure!(text.contains(part), "{part}: {text}");
    }
    // Nor does a set that is changed lose the others.
    fs::remove_file(bed.record(".toml")?)?;
    bed.portdemux.ok(&["set", "add", "guests", "192.0.2.9"])?;
    bed.holds("after a change of a set")?;
    Ok(())
}
