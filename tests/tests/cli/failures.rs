//! What is said where there is nothing, or not what was named.

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    netns::Netns,
    require,
};

use crate::bed::{Told, busy, refused};

#[test]
fn where_nothing_is_loaded_every_command_says_so_and_ends_with_3() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let namespace = Netns::new("empty")?;
    let mut portdemux = Portdemux::new(&namespace)?;
    portdemux.set_instance("other");
    let file = portdemux.rules_file("[default]\n")?.display().to_string();
    let packet = ["explain", "tcp", "192.0.2.1:1024", "192.0.2.2:80"];
    for arguments in [
        &["apply", &file][..],
        &["apply", &file, "--dry-run"],
        &["add", "1/tcp"],
        &["remove", "1/tcp"],
        &["export"],
        &["status"],
        &["status", "--json"],
        &["rules"],
        &["rules", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["stats", "--watch"],
        &["detach", "lo"],
        &["detach", "--all"],
        &packet,
    ] {
        let output = portdemux.fails(3, arguments)?;
        let way_out = if arguments[0] == "explain" {
            ", or name a rules file: --rules FILE"
        } else {
            ""
        };
        assert_eq!(
            output.stderr,
            format!(
                "error: instance other is not loaded\n help: portdemux --instance other attach IFACE \
                 loads it{way_out}\n"
            ),
            "{arguments:?}"
        );
        ensure!(output.stdout.is_empty(), "{arguments:?}: {}", output.stdout);
    }
    ensure!(!portdemux.pins().exists() && portdemux.records()?.is_empty());
    Ok(())
}

#[test]
fn an_interface_that_does_not_exist_is_named_with_those_that_do() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let said = "error: no interface eth9 in this network namespace\n help: there are lo, wire0; \
                nothing was changed\n";
    // Nothing is loaded for it, nor for one that does exist and was named with it.
    for interfaces in [&["eth9"][..], &[INTERFACE, "eth9"]] {
        let output = portdemux.fails(1, &[&["attach"], interfaces].concat())?;
        assert_eq!(output.stderr, said);
        ensure!(output.stdout.is_empty(), "{}", output.stdout);
        portdemux.fails(3, &["status"])?;
        ensure!(!portdemux.pins().exists());
    }

    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    assert_eq!(refused(&portdemux, &before, 1, &["attach", "eth9"])?, said);
    for interfaces in [&["eth9"][..], &[INTERFACE, "eth9"]] {
        assert_eq!(
            refused(&portdemux, &before, 1, &[&["detach"], interfaces].concat())?,
            "error: eth9 is not attached to instance default\n help: portdemux status shows what is; \
             nothing was changed\n"
        );
    }
    let status = portdemux.json(&["status"])?;
    ensure!(status["interfaces"][0]["state"] == "attached", "{status}");
    Ok(())
}

#[test]
fn a_capture_that_is_not_there_is_named() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    let absent = portdemux.state().join("absent.pcap").display().to_string();
    assert_eq!(
        refused(&portdemux, &before, 1, &["explain", "--pcap", &absent])?,
        format!("error: {absent}: cannot be opened: No such file or directory (os error 2)\n")
    );
    Ok(())
}
