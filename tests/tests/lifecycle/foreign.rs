//! Programs of others on the interface.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode, links::FdLink},
};
use portdemux::dataplane::objects;
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    probe::Probe,
    require,
};

use crate::bed::{self, PORTS, Rules};

/// The name of a program that is not ours.
const FOREIGN: &str = "empty";

#[test]
fn another_instance_on_the_interface_is_named_and_stays() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    Rules::Old.apply(&portdemux)?;
    let before = bed::program_on(&lab, INTERFACE)?;
    portdemux.set_instance("second");
    for mode in ["auto", "native", "generic"] {
        let error = portdemux
            .fails(1, &["attach", INTERFACE, "--mode", mode])?
            .stderr;
        let (id, _) = before.context("no program")?;
        for word in [
            "another portdemux instance's",
            &format!("id {id},"),
            " mode, of instance default\n",
            "help:",
            &format!("portdemux --instance default detach {INTERFACE}\n"),
        ] {
            ensure!(error.contains(word), "{error}");
        }
        portdemux.fails(3, &["status"])?;
        ensure!(!portdemux.pins().exists(), "a refused attach left pins");
    }
    portdemux.set_instance("default");
    ensure!(bed::program_on(&lab, INTERFACE)? == before);
    bed::holds(&lab, &portdemux, &probe, Rules::Old)
}

#[test]
fn a_foreign_program_with_a_link_is_named_and_stays() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let mut foreign = foreign_program()?;
    let program: &mut Xdp = foreign.program_mut(FOREIGN).context(FOREIGN)?.try_into()?;
    let link = lab.server.enter(|| {
        let id = program.attach(INTERFACE, XdpMode::Skb)?;
        Ok(FdLink::try_from(program.take_link(id)?)?)
    })?;
    is_refused(&lab, &portdemux)?;
    drop(link);
    portdemux.ok(&["attach", INTERFACE])?;
    Ok(())
}

#[test]
fn a_foreign_program_without_a_link_is_named_and_stays() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let mut foreign = foreign_program()?;
    let program: &mut Xdp = foreign.program_mut(FOREIGN).context(FOREIGN)?.try_into()?;
    let pin = portdemux.bpffs().join("foreign");
    program.pin(&pin)?;
    let pin = pin.display().to_string();
    for hook in ["xdpdrv", "xdpgeneric"] {
        lab.server
            .ip(&["link", "set", "dev", INTERFACE, hook, "pinned", &pin])?;
        is_refused(&lab, &portdemux)?;
        lab.server
            .ip(&["link", "set", "dev", INTERFACE, hook, "off"])?;
    }
    portdemux.ok(&["attach", INTERFACE])?;
    Ok(())
}

#[test]
fn a_foreign_program_on_one_of_several_interfaces_keeps_all_as_they_were() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    lab.server.ip(&[
        "link", "add", "other0", "type", "veth", "peer", "name", "other1",
    ])?;
    let mut foreign = foreign_program()?;
    let program: &mut Xdp = foreign.program_mut(FOREIGN).context(FOREIGN)?.try_into()?;
    let _link = lab.server.enter(|| {
        let id = program.attach("other0", XdpMode::Skb)?;
        Ok(FdLink::try_from(program.take_link(id)?)?)
    })?;
    let rules = Rules::Old.file(&portdemux)?.display().to_string();
    let error = portdemux
        .fails(1, &["attach", INTERFACE, "other0", "--rules", &rules])?
        .stderr;
    ensure!(error.contains("other0 has another XDP program"), "{error}");
    ensure!(bed::program_on(&lab, INTERFACE)?.is_none());
    ensure!(probe.passing(&PORTS)?.len() == PORTS.len());
    portdemux.fails(3, &["status"])?;
    ensure!(
        portdemux.records()?.is_empty(),
        "{:?}",
        portdemux.records()?
    );
    Ok(())
}

fn foreign_program() -> Result<Ebpf> {
    let cpus = u32::try_from(aya::util::nr_cpus().map_err(|(_, error)| error)?)?;
    let mut object = EbpfLoader::new()
        .map_max_entries("LIMIT_COUNTERS", cpus)
        .load(objects::BASELINE)?;
    let program: &mut Xdp = object.program_mut(FOREIGN).context(FOREIGN)?.try_into()?;
    program.load()?;
    Ok(object)
}

/// Attaching says whose program is there, in whatever mode, and changes nothing.
fn is_refused(lab: &Lab, portdemux: &Portdemux) -> Result<()> {
    let before = bed::program_on(lab, INTERFACE)?.context("no foreign program")?;
    for mode in ["auto", "native", "generic"] {
        let error = portdemux
            .fails(1, &["attach", INTERFACE, "--mode", mode])?
            .stderr;
        let id = format!("id {}, {FOREIGN},", before.0);
        for word in ["another XDP program", &id, "help:", "bpftool prog show id"] {
            ensure!(error.contains(word), "{word} is missing: {error}");
        }
        ensure!(bed::program_on(lab, INTERFACE)? == Some(before));
        portdemux.fails(3, &["status"])?;
    }
    Ok(())
}
