//! Pins and records that are not as they were left.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use portdemux::maps;
use portdemux_common::blocks;
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    probe::Probe,
    require::{self, Need},
    run,
};

use crate::bed::{self, PORTS, Rules};

/// `BPF_F_MMAPABLE` of Linux `include/uapi/linux/bpf.h`.
const MMAPABLE: &str = "1024";

struct Bed<'a> {
    lab: &'a Lab,
    portdemux: Portdemux<'a>,
    probe: Probe,
}

impl<'a> Bed<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        Ok(Self {
            lab,
            portdemux: Portdemux::new(&lab.server)?,
            probe: Probe::new(lab)?,
        })
    }

    fn load(&self) -> Result<()> {
        self.portdemux.ok(&["attach", INTERFACE])?;
        Rules::Old.apply(&self.portdemux)
    }

    /// Every command says what is wrong and how to get out of it, packets meet the rules all the
    /// same, and the way out works.
    fn is_hopeless_but_removable(&self, what: &str, said: &[&str]) -> Result<()> {
        let said: Vec<&str> = said.iter().copied().chain(["detach --all"]).collect();
        self.is_hopeless(what, &said)?;
        self.is_removable(what)
    }

    fn is_hopeless(&self, what: &str, said: &[&str]) -> Result<()> {
        let file = Rules::New.file(&self.portdemux)?.display().to_string();
        for command in [
            &["status"][..],
            &["stats"],
            &["rules"],
            &["export"],
            &["apply", &file],
            &["add", "9/sctp"],
            &["attach", INTERFACE],
        ] {
            let output = self.portdemux.fails(1, command).context(what.to_owned())?;
            let error = &output.stderr;
            for word in said.iter().chain(&["error: ", "help: "]) {
                ensure!(
                    error.contains(word),
                    "{what}: {command:?} without {word}: {error}"
                );
            }
            ensure!(!error.contains("panicked"), "{what}: {command:?}: {error}");
        }
        let passing = self.probe.passing(&PORTS)?;
        ensure!(
            passing == Rules::Old.passing(),
            "{what}: {passing:?} passes"
        );
        Ok(())
    }

    fn is_removable(&self, what: &str) -> Result<()> {
        self.portdemux
            .ok(&["detach", "--all"])
            .context(what.to_owned())?;
        self.portdemux.fails(3, &["status"])?;
        let left: Vec<_> = fs::read_dir(self.portdemux.bpffs().join("portdemux"))?.collect();
        ensure!(left.is_empty(), "{what}: {left:?} is left");
        ensure!(
            bed::program_on(self.lab, INTERFACE)?.is_none(),
            "{what}: attached"
        );
        ensure!(
            self.probe.passing(&PORTS)?.len() == PORTS.len(),
            "{what}: still drops"
        );
        self.load().context(what.to_owned())?;
        bed::holds(self.lab, &self.portdemux, &self.probe, Rules::Old).context(what.to_owned())
    }
}

/// Pins another map in the place of one.
fn put_map(portdemux: &Portdemux, name: &str, words: &str) -> Result<()> {
    let path = portdemux.pins().join(name);
    if path.exists() {
        fs::remove_file(&path)?;
    }
    let mut command = std::process::Command::new("bpftool");
    command
        .args(["map", "create"])
        .arg(&path)
        .args(words.split(' '))
        .args(["name", "other"]);
    run::run(command)?.success()?;
    Ok(())
}

#[test]
fn a_map_that_is_missing_is_named_and_detach_all_gets_out_of_it() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    bed.load()?;
    for map in maps::ALL {
        fs::remove_file(bed.portdemux.pins().join(map))?;
        bed.is_hopeless_but_removable(map, &[map])?;
    }
    Ok(())
}

#[test]
fn a_map_that_is_another_is_named_and_detach_all_gets_out_of_it() -> Result<()> {
    if !require::have(&[require::WIRE, &[Need::Tool("bpftool")]].concat()) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    bed.load()?;
    let counters = blocks::BYTES;
    for (name, words) in [
        ("RULESETS", "type array key 4 value 64 entries 1".to_owned()),
        ("RULESETS", "type hash key 4 value 64 entries 1".to_owned()),
        (
            "COUNTERS",
            format!("type array key 4 value {counters} entries 1 flags {MMAPABLE}"),
        ),
        (
            "COUNTERS",
            format!("type array key 4 value {counters} entries 64"),
        ),
        (
            "COUNTERS",
            format!("type array key 4 value 64 entries 2 flags {MMAPABLE}"),
        ),
        ("LEDGER", "type array key 4 value 8 entries 1".to_owned()),
    ] {
        put_map(&bed.portdemux, name, &words)?;
        bed.is_hopeless_but_removable(&format!("{name} is {words}"), &[name])?;
    }
    Ok(())
}

#[test]
fn an_empty_directory_of_pins_is_named_and_detach_all_gets_out_of_it() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    bed.load()?;
    let pins = bed.portdemux.pins();
    for entry in fs::read_dir(&pins)? {
        fs::remove_file(entry?.path())?;
    }
    // The link was among them.
    let error = bed.portdemux.fails(1, &["status"])?.stderr;
    ensure!(error.contains("detach --all"), "{error}");
    bed.is_removable("no pins")?;

    // A directory of the instance without any is no instance.
    bed.portdemux.ok(&["detach", "--all"])?;
    fs::create_dir(pins.parent().context("parent")?)?;
    bed.portdemux.fails(3, &["status"])?;
    bed.load()?;
    bed::holds(&lab, &bed.portdemux, &bed.probe, Rules::Old)
}

#[test]
fn foreign_pins_are_left_alone_until_everything_is_removed() -> Result<()> {
    if !require::have(&[require::WIRE, &[Need::Tool("bpftool")]].concat()) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    bed.load()?;
    let array = "type array key 4 value 8 entries 1";
    for name in ["foreign", "link", "link7", "link99", "linkage"] {
        put_map(&bed.portdemux, name, array)?;
    }
    fs::create_dir(bed.portdemux.pins().join("directory"))?;
    bed::holds(&lab, &bed.portdemux, &bed.probe, Rules::Old)?;
    bed.portdemux.ok(&["attach", INTERFACE])?;
    Rules::New.apply(&bed.portdemux)?;
    bed::holds(&lab, &bed.portdemux, &bed.probe, Rules::New)?;
    ensure!(bed.portdemux.pins().join("foreign").exists());
    bed.is_removable("foreign pins")?;

    // What stands in the place of the link is no link: the program is gone with the link.
    put_map(&bed.portdemux, "link0", array)?;
    let status = bed.portdemux.ok(&["status"])?;
    ensure!(status.stderr.contains("attach wire0"), "{}", status.stderr);
    bed.portdemux.ok(&["attach", INTERFACE])?;
    bed::holds(&lab, &bed.portdemux, &bed.probe, Rules::Old)?;

    // Another's directory beside the instances is none of ours.
    let other = bed.portdemux.bpffs().join("other");
    fs::create_dir(&other)?;
    bed.is_removable("another directory")?;
    ensure!(other.exists());
    Ok(())
}

#[test]
fn pins_of_another_abi_are_refused_by_name_and_stay() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    bed.load()?;
    let pins = bed.portdemux.pins();
    // A newer version's are left to that.
    let newer = pins.with_file_name("abi999");
    fs::rename(&pins, &newer)?;
    let said = ["newer version", "ABI 999", "use that version"];
    bed.is_hopeless("a newer ABI", &said)?;
    let refused = bed.portdemux.fails(1, &["detach", "--all"])?;
    for word in said {
        ensure!(refused.stderr.contains(word), "{}", refused.stderr);
    }
    ensure!(newer.exists());
    // What is too old to be taken over can still be removed.
    let older = pins.with_file_name("abi4");
    fs::rename(&newer, &older)?;
    let said = ["older version", "ABI 4", "attach again", "detach --all"];
    bed.is_hopeless("an older ABI", &said)?;
    bed.is_removable("an older ABI")
}

#[test]
fn a_lost_or_damaged_record_is_rebuilt_and_said() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    bed.load()?;
    let directory = bed.portdemux.state().join("default");
    for damage in ["lost", "cut short", "another text"] {
        Rules::Old.apply(&bed.portdemux)?;
        let record = bed.portdemux.records()?.pop().context("no record")?;
        let record = directory.join(record);
        let text = fs::read_to_string(&record)?;
        match damage {
            "lost" => fs::remove_file(&record)?,
            "cut short" => fs::write(&record, &text[..text.len() / 2])?,
            _ => fs::write(&record, text.replace("drop", "local"))?,
        }
        let generation = bed.portdemux.stats()?.generation()?;
        let export = bed.portdemux.ok(&["export"])?;
        ensure!(
            export.stderr.contains("rebuilt from the kernel"),
            "{damage}: {}",
            export.stderr
        );
        // The rebuilt text says the same: it changes nothing but the record.
        let rebuilt = bed.portdemux.apply(&export.stdout)?;
        ensure!(
            rebuilt.stdout.contains("= 3 unchanged"),
            "{}",
            rebuilt.stdout
        );
        ensure!(bed.probe.passing(&PORTS)? == Rules::Old.passing());
        bed.portdemux.ok(&["add", "9/sctp"])?;
        ensure!(bed.portdemux.stats()?.generation()? > generation);
        ensure!(bed.portdemux.records()?.len() == 1);
    }
    // The real text mends it, comments included.
    Rules::Old.apply(&bed.portdemux)?;
    bed::holds(&lab, &bed.portdemux, &bed.probe, Rules::Old)
}

#[test]
fn without_a_state_directory_everything_still_works() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let bed = Bed::new(&lab)?;
    bed.load()?;
    fs::remove_dir_all(bed.portdemux.state().join("default"))?;
    bed.portdemux.ok(&["status"])?;
    Rules::New.apply(&bed.portdemux)?;
    bed::holds(&lab, &bed.portdemux, &bed.probe, Rules::New)?;
    fs::remove_dir_all(bed.portdemux.state().join("default"))?;
    bed.is_removable("no state directory")
}
