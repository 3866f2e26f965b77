//! What rules ask of packets, on the command line: how it is refused, and what a terminal shows.

use std::fs;

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require, terminal,
};
use serde_json::json;

use crate::bed::{Told, busy, refused, without_time};

#[test]
fn a_flag_that_makes_no_sense_is_told_with_a_way_out_and_changes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    for (flag, value_name, argument, message, help) in [
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
                "error: invalid value '{argument}' for '{flag} <{value_name}>': {message}\n help: \
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

const REPLIES: &str = "\
RULE         PORTS            ADDRESS  TO     LISTENER  TERMS                                 RECEIVED  BYTES  DROPPED
web-replies  443/tcp          any      local  –         role source, connections established         0    0 B        0
replies      32768-60999/udp  any      local  –         connections established                      0    0 B        0
ssh          22/tcp           any      local  –         –                                            0    0 B        0
";

const REPLIES_IN_80_COLUMNS: &str = "\
RULE         PORTS            TO     TERMS                     RECEIVED  DROPPED
web-replies  443/tcp          local  role source, connection…         0        0
replies      32768-60999/udp  local  connections established          0        0
ssh          22/tcp           local  –                                0        0
left out for want of room: ADDRESS, LISTENER, BYTES; see --json
";

#[test]
fn what_a_rule_asks_is_added_shown_and_removed() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let said = portdemux.ok(&[
        "add",
        "443/tcp",
        "--name",
        "web-replies",
        "--role",
        "source",
        "--connections",
        "established",
    ])?;
    assert_eq!(
        without_time(&said.stdout)?,
        "~ [flows]      track false → true\n+ web-replies  443/tcp  any address → local, role \
         source, connections established\n= 0 unchanged\ngeneration 1, TIME, counters kept\n"
    );
    let add = ["add", "32768-60999/udp", "--connections", "established"];
    portdemux.ok(&[&add[..], &["--name", "replies"]].concat())?;
    portdemux.ok(&["add", "22/tcp", "--name", "ssh"])?;
    assert_eq!(portdemux.ok(&["rules"])?.stdout, REPLIES);
    let shown = terminal::run(portdemux.command(&["rules"]), 80)?;
    assert_eq!(shown.text, REPLIES_IN_80_COLUMNS);
    let document = portdemux.json(&["rules"])?;
    assert_eq!(
        document["flows"],
        json!({
            "size": 65_536, "half_open": 65_536,
            "timeouts": {
                "handshake": 30.0, "tcp": 86_400.0, "closing": 60.0, "one_way": 30.0,
                "udp": 180.0, "sctp": 86_400.0, "echo": 30.0,
            },
        })
    );
    let rule = &document["rules"][0];
    assert_eq!(
        [&rule["role"], &rule["connections"], &rule["rate"]],
        [&json!("source"), &json!("established"), &json!(null)]
    );
    let text = portdemux.ok(&["export"])?.stdout;
    assert!(
        text.starts_with(
            "[[rule]]\nname        = \"web-replies\"\nport        = \"443/tcp\"\nto          = \
             \"local\"\nrole        = \"source\"\nconnections = \"established\"\n"
        ),
        "{text}"
    );
    // The text is lost, and what is rebuilt says the same.
    for record in portdemux.records()? {
        fs::remove_file(portdemux.state().join("default").join(record))?;
    }
    assert_eq!(portdemux.ok(&["rules"])?.stdout, REPLIES);
    let said = portdemux.ok(&["remove", "replies", "web-replies"])?;
    assert_eq!(
        without_time(&said.stdout)?,
        "~ [flows]      track true → false\n- web-replies  443/tcp\n- replies      \
         32768-60999/udp\n= 1 unchanged\ngeneration 4, TIME, counters kept\n"
    );
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
