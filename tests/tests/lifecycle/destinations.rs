//! Rules that name destinations come and go, and programs are killed over it.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    probe::Probe,
    require,
    steps::{self, Kill},
};

/// More calls than the command makes.
const MANY: usize = 5_000;

/// How many steps lie between one kill and the next.
const STRIDE: usize = 7;

const OLD: &str = "[[rule]]\nname = \"a\"\nport = \"1001/udp\"\nto = \"interface:gone0\"\nfallback = \"local\"\n\
                   [[rule]]\nname = \"b\"\nport = \"1002/udp\"\nto = \"xsk:one\"\n";
const NEW: &str = "[[rule]]\nname = \"a\"\nport = \"1001/udp\"\nto = \"xsk:two\"\n\
                   [[rule]]\nname = \"b\"\nport = \"1002/udp\"\nto = \"interface:gone1\"\nfallback = \"local\"\n\
                   [[rule]]\nname = \"c\"\nport = \"1003/udp\"\nto = \"cpu:0\"\n";

/// The maps of `AF_XDP` sockets that are pinned.
fn xsks(portdemux: &Portdemux<'_>) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(portdemux.pins().join("xsk")).context("list the maps")?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

#[test]
fn an_apply_killed_at_any_step_leaves_destinations_that_go_with_its_rules() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let file = |name: &str, text| -> Result<_> {
        let path = portdemux.state().join(name);
        fs::write(&path, text)?;
        Ok(path)
    };
    let (old, new) = (file("old.toml", OLD)?, file("new.toml", NEW)?);
    let (mut old_left, mut new_left) = (0, 0);
    for step in (1..MANY).step_by(STRIDE) {
        portdemux.ok(&["apply".as_ref(), old.as_os_str()])?;
        assert_eq!(xsks(&portdemux)?, ["one".to_owned()].into());
        let apply = portdemux.command(&["apply".as_ref(), new.as_os_str()]);
        let course = steps::run(&apply, cli::binary()?, Kill::Before(step))?;
        let text = portdemux.ok(&["export"])?.stdout;
        let passing = probe.passing(&[1001, 1002])?;
        let (expected, name) = match &*text {
            OLD => (1001, "one"),
            NEW => (1002, "two"),
            other => anyhow::bail!("step {step}: {other}"),
        };
        ensure!(
            passing == [expected].into(),
            "step {step}: {passing:?}\n{text}"
        );
        ensure!(
            xsks(&portdemux)?.contains(name),
            "step {step}: {name} is gone"
        );
        old_left += usize::from(text == OLD);
        new_left += usize::from(text == NEW);
        if course.code.is_some() {
            ensure!(old_left > 5 && new_left > 0, "{old_left}, {new_left}");
            assert_eq!(xsks(&portdemux)?, ["two".to_owned()].into());
            portdemux.ok(&["detach", "--all"])?;
            ensure!(!portdemux.pins().exists(), "pins are left");
            return Ok(());
        }
    }
    anyhow::bail!("apply did not end within {MANY} steps");
}
