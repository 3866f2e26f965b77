//! What rules ask of packets, on the command line: how it is refused, and what a terminal shows.

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require, terminal,
};

use crate::bed::{Told, busy, refused};

#[test]
fn a_flag_that_makes_no_sense_is_told_with_a_way_out_and_changes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    for (flag, place, argument, message, help) in [
        (
            "--connections",
            "WHICH",
            "establish",
            "unknown word `establish`",
            "did you mean established",
        ),
        (
            "--role",
            "ROLE",
            "peer",
            "unknown word `peer`",
            "write destination or source",
        ),
        (
            "--per",
            "WHOM",
            "host",
            "unknown word `host`",
            "write rule or source",
        ),
        (
            "--rate",
            "RATE",
            "1000",
            "`1000` says packets, but not per what",
            "write 1000/s, 1000/m or 1000/h",
        ),
        (
            "--new-rate",
            "RATE",
            "0/m",
            "`0/m` lets no packet in",
            "write to = \"drop\" for no packet at all",
        ),
        (
            "--burst",
            "PACKETS",
            "0",
            "a burst of 0 packets",
            "a burst has 1 to 4,294,967,296 packets",
        ),
        (
            "--new-burst",
            "PACKETS",
            "many",
            "`many` is no number",
            "write how many packets, as in 50",
        ),
    ] {
        let told = refused(&portdemux, &before, 2, &["add", "1/tcp", flag, argument])?;
        assert_eq!(
            told,
            format!(
                "error: invalid value '{argument}' for '{flag} <{place}>': {message}\n help: \
                 {help}\n\nFor more information, try '--help'.\n"
            )
        );
    }
    Ok(())
}

#[test]
fn flags_that_do_not_go_together_are_cited_as_the_rule_that_is_added() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    for (flags, message, help) in [
        (
            &["--burst", "5"][..],
            "`burst` without `rate`",
            "leave `burst` out, or add a rate, as in rate = \"1000/s\"",
        ),
        (
            &["--connections", "established", "--to", "drop"],
            "`connections = \"established\"` says what comes in, `to = \"drop\"` that nothing does",
            "leave one of them out",
        ),
        (
            &["--role", "source", "--address", "192.0.2.1"],
            "`role = \"source\"` with `address`",
            "leave `address` out: the ports of peers are claimed for all addresses of this host",
        ),
    ] {
        let arguments = [&["add", "1/tcp", "--name", "new"], flags].concat();
        assert_eq!(
            refused(&portdemux, &before, 1, &arguments)?,
            format!(
                "error: {message}\n  new  1/tcp  the rule you add\n help: {help}; nothing was \
                 changed\n"
            )
        );
    }
    assert_eq!(
        refused(&portdemux, &before, 1, &["promote", "quiet"])?,
        "error: `quiet` is no shadow\n  quiet  9/tcp  in force\n help: it does already what it \
         says; nothing was changed\n"
    );
    assert_eq!(
        refused(&portdemux, &before, 1, &["promote", "other"])?,
        "error: no shadow is called `other`\n help: there are no shadows; portdemux add --shadow \
         adds one; nothing was changed\n"
    );
    Ok(())
}

#[test]
fn what_is_not_obeyed_yet_is_not_added() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    for (flags, key) in [
        (&["--to", "reject"][..], "to = \"reject\""),
        (
            &["--connections", "established"],
            "connections = \"established\"",
        ),
        (&["--role", "source"], "role = \"source\""),
        (&["--rate", "10/s", "--burst", "5"], "rate"),
        (&["--new-rate", "10/m", "--per", "source"], "new_rate"),
        (&["--shadow"], "shadow = true"),
    ] {
        let arguments = [&["add", "1/tcp", "--name", "new"], flags].concat();
        assert_eq!(
            refused(&portdemux, &before, 1, &arguments)?,
            format!(
                "error: this version reads `{key}` and does not obey it\n  new  1/tcp  the rule \
                 you add\n help: leave it out, or wait for a version that does; nothing was \
                 changed\n"
            )
        );
    }
    Ok(())
}

#[test]
fn a_plan_fits_a_terminal() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let ports: Vec<String> = (1..=50)
        .map(|port| format!("\"{}/tcp\"", port * 1000))
        .collect();
    let addresses: Vec<String> = (1..=20)
        .map(|host| format!("\"2001:db8:1111:2222:3333::{host}\""))
        .collect();
    let (ports, addresses) = (ports.join(", "), addresses.join(", "));
    let text = format!(
        "[[rule]]\nname = \"{}\"\nport = [{ports}]\naddress = [{addresses}]\n[[rule]]\nname = \
         \"short\"\nport = \"9/udp\"\nfrom = [{addresses}]\n",
        "ä".repeat(32),
    );
    let file = portdemux.rules_file(&text)?.display().to_string();
    let shown = terminal::run(portdemux.command(&["apply", &file]), 80)?;
    for line in shown.text.lines() {
        ensure!(line.chars().count() <= 80, "{line}");
    }
    ensure!(shown.text.contains("… 19 more"), "{}", shown.text);
    Ok(())
}
