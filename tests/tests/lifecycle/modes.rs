//! Where the program runs, and what is said about it.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    netns::Netns,
    probe::Probe,
    require,
};

use crate::bed::{self, PORTS, Rules};

/// An interface whose driver has no XDP: every namespace has it.
const PLAIN: &str = "lo";

#[test]
fn native_mode_fails_where_the_driver_has_none_and_changes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let namespace = Netns::new("plain")?;
    let portdemux = Portdemux::new(&namespace)?;
    let rules = Rules::Old.file(&portdemux)?.display().to_string();
    let error = portdemux
        .fails(1, &["attach", PLAIN, "--mode", "native", "--rules", &rules])?
        .stderr;
    for word in [
        "attach to lo in native mode",
        "not supported",
        "help:",
        "--mode generic",
    ] {
        ensure!(error.contains(word), "{error}");
    }
    portdemux.fails(3, &["status"])?;
    ensure!(
        portdemux.records()?.is_empty(),
        "{:?}",
        portdemux.records()?
    );
    ensure!(!portdemux.pins().exists());

    // Nor where something is loaded.
    portdemux.ok(&["attach", PLAIN, "--mode", "generic"])?;
    portdemux.ok(&["detach", PLAIN])?;
    Rules::New.apply(&portdemux)?;
    let before = (
        portdemux.ok(&["export"])?.stdout,
        portdemux.json(&["rules"])?["rules"].clone(),
    );
    portdemux.fails(1, &["attach", PLAIN, "--mode", "native", "--rules", &rules])?;
    let after = (
        portdemux.ok(&["export"])?.stdout,
        portdemux.json(&["rules"])?["rules"].clone(),
    );
    ensure!(before == after, "{before:?} became {after:?}");
    ensure!(bed::state(&portdemux)?.as_deref() == Some("detached"));
    Ok(())
}

#[test]
fn auto_mode_says_loudly_that_it_fell_back() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let namespace = Netns::new("plain")?;
    let portdemux = Portdemux::new(&namespace)?;
    let attach = portdemux.ok(&["attach", PLAIN])?;
    ensure!(
        attach.stdout.contains("lo  attached  xdp generic"),
        "{}",
        attach.stdout
    );
    for word in [
        "warning: lo does not take the program in the driver",
        "generic mode is slower",
    ] {
        ensure!(attach.stderr.contains(word), "{}", attach.stderr);
    }
    let status = portdemux.ok(&["status"])?;
    ensure!(status.stdout.contains("xdp generic"), "{}", status.stdout);
    // Whoever asks for generic mode gets it without a word.
    portdemux.ok(&["detach", PLAIN])?;
    let attach = portdemux.ok(&["attach", PLAIN, "--mode", "generic"])?;
    ensure!(!attach.stderr.contains("generic"), "{}", attach.stderr);
    Ok(())
}

#[test]
fn the_mode_is_the_one_that_the_kernel_shows() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    for (asked, got, shown) in [
        ("auto", "native", 1),
        ("native", "native", 1),
        ("generic", "generic", 2),
    ] {
        let attach = portdemux.ok(&["attach", INTERFACE, "--mode", asked])?;
        let said = format!("{INTERFACE}  attached  xdp {got} (veth)");
        ensure!(attach.stdout.contains(&said), "{}", attach.stdout);
        let (_, mode) = bed::program_on(&lab, INTERFACE)?.context("no program")?;
        ensure!(mode == shown, "{asked}: mode {mode}");
        let status = portdemux.json(&["status"])?;
        ensure!(status["interfaces"][0]["mode"] == got, "{status}");

        // The mode of a program that runs does not change behind anyone's back.
        let other = if got == "native" { "generic" } else { "native" };
        let error = portdemux
            .fails(1, &["attach", INTERFACE, "--mode", other])?
            .stderr;
        ensure!(
            error.contains(&format!("attached in {got} mode")),
            "{error}"
        );
        ensure!(error.contains("portdemux detach wire0"), "{error}");
        let again = portdemux.ok(&["attach", INTERFACE])?;
        ensure!(
            again
                .stdout
                .contains(&format!("program replaced  xdp {got}")),
            "{}",
            again.stdout
        );
        portdemux.ok(&["detach", INTERFACE])?;
        ensure!(
            bed::program_on(&lab, INTERFACE)?.is_none(),
            "it is still there"
        );
    }
    Ok(())
}

#[test]
fn several_interfaces_are_attached_all_or_none() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    let rules = Rules::Old.file(&portdemux)?.display().to_string();
    for wrong in [
        &[INTERFACE, PLAIN, "--mode", "native"][..],
        &[INTERFACE, "nowhere0"],
    ] {
        let words = [&["attach"][..], wrong, &["--rules", &rules]].concat();
        portdemux.fails(1, &words)?;
        ensure!(bed::program_on(&lab, INTERFACE)?.is_none(), "{wrong:?}");
        ensure!(probe.passing(&PORTS)?.len() == PORTS.len(), "{wrong:?}");
        portdemux.fails(3, &["status"])?;
        ensure!(portdemux.records()?.is_empty(), "{wrong:?}");
    }
    // One that was attached before stays so, with its rules.
    portdemux.ok(&["attach", INTERFACE, "--mode", "native"])?;
    Rules::New.apply(&portdemux)?;
    portdemux.fails(
        1,
        &[
            "attach", INTERFACE, PLAIN, "--mode", "native", "--rules", &rules,
        ],
    )?;
    bed::holds(&lab, &portdemux, &probe, Rules::New)?;
    // And all of them come when they can.
    portdemux.ok(&[
        "attach", INTERFACE, PLAIN, "--mode", "auto", "--rules", &rules,
    ])?;
    bed::holds(&lab, &portdemux, &probe, Rules::Old)?;
    ensure!(bed::program_on(&lab, PLAIN)?.is_some());
    Ok(())
}
