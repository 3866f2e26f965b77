//! Which ports `stats` shows, and in which order.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    probe::Probe,
    require,
};
use serde_json::Value;

use crate::bed::busy;

fn spelled(ports: &Value) -> Result<Vec<String>> {
    let ports = ports.as_array().context("no ports")?;
    ports
        .iter()
        .map(|port| {
            let protocol = port["protocol"].as_str().context("no protocol")?;
            Ok(format!("{}/{protocol}", port["port"]))
        })
        .collect()
}

/// Port, rule and count of the table of ports, and what stands below it.
fn table(text: &str) -> (Vec<(&str, &str, &str)>, &str) {
    let (table, _) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut rows = Vec::new();
    let mut more = "";
    for line in table.lines().skip(1) {
        if line.starts_with('…') {
            more = line;
            continue;
        }
        let mut words = line.split_whitespace();
        let mut next = || words.next().unwrap_or_default();
        let (port, rule, _listener, received) = (next(), next(), next(), next());
        rows.push((port, rule, received));
    }
    (rows, more)
}

#[test]
fn the_busiest_port_comes_first() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = busy(&lab)?;
    let ports = |arguments: &[&str]| -> Result<Vec<String>> {
        let stats = portdemux.json(&[&["stats"], arguments].concat())?;
        spelled(&stats["ports"])
    };
    let all = ports(&[])?;
    assert_eq!(all[..4], ["20/udp", "30/udp", "10/udp", "9/tcp"]);
    // Claimed ports are listed one by one though nothing came; others are not.
    assert_eq!(all.len(), 4 + 2000);
    ensure!(all.contains(&"1999/sctp".to_owned()) && !all.contains(&"40/udp".to_owned()));
    assert_eq!(ports(&["--all"])?, all);

    probe.passing(&[10; 10])?;
    assert_eq!(ports(&[])?[..3], ["10/udp", "20/udp", "30/udp"]);
    let text = portdemux.ok(&["stats"])?.stdout;
    assert_eq!(table(&text).0[0], ("10/udp", "–", "11"));
    let rules = portdemux.json(&["stats"])?["rules"].clone();
    assert_eq!(rules[1]["rule"], "quiet");
    Ok(())
}

#[test]
fn of_the_ports_that_are_asked_for_a_single_one_is_always_there() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    for (asked, expected) in [
        (&["40/udp"][..], &[("40/udp", "0")][..]),
        // A range shows what there is to see in it.
        (
            &["1-65535/udp"],
            &[("20/udp", "3"), ("30/udp", "2"), ("10/udp", "1")],
        ),
        (
            &["10/udp", "40/udp", "30/udp", "25-35/udp"],
            &[("30/udp", "2"), ("10/udp", "1"), ("40/udp", "0")],
        ),
        (&["1-5/tcp"], &[]),
        // Claimed ones that were asked for one by one stand one by one.
        (
            &["1000/sctp", "1001/sctp", "1002-1004/sctp", "20/udp"],
            &[
                ("20/udp", "3"),
                ("1000/sctp", "0"),
                ("1001/sctp", "0"),
                ("1002-1004/sctp", "0"),
            ],
        ),
    ] {
        let text = portdemux.ok(&[&["stats"], asked].concat())?.stdout;
        let (rows, _) = table(&text);
        let rows: Vec<_> = rows.iter().map(|row| (row.0, row.2)).collect();
        if expected.is_empty() {
            let said = "none of these ports saw traffic or is claimed\n\nRULE ";
            ensure!(text.starts_with(said), "{text}");
        } else {
            assert_eq!(rows, expected, "{asked:?}");
        }
        let stats = portdemux.json(&[&["stats"], asked].concat())?;
        let listed = spelled(&stats["ports"])?;
        let one_by_one = |port: &&(&str, &str)| !port.0.contains('-');
        let expected = expected.iter().filter(one_by_one);
        ensure!(
            expected
                .clone()
                .all(|port| listed.contains(&port.0.to_owned())),
            "{listed:?}"
        );
    }
    Ok(())
}

#[test]
fn idle_neighbours_of_one_rule_share_a_line_and_busy_ones_stand_out() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(
        "[[rule]]\nname = \"wide\"\nport = [\"0-65535/udp\", \"0-65535/tcp\"]\n\n[[rule]]\nname = \
         \"narrow\"\nport = \"100-199/udp\"\nto = \"drop\"\n\n[[rule]]\nname = \"single\"\nport = \
         \"150/udp\"\naddress = \"192.0.2.9\"\n",
    )?;
    probe.passing(&[0, 120, 120, 300, 300, 300, 65_535, 65_535, 65_535, 65_535])?;
    let text = portdemux.ok(&["stats"])?.stdout;
    let (rows, more) = table(&text);
    assert_eq!(
        rows,
        [
            ("65535/udp", "wide", "4"),
            ("300/udp", "wide", "3"),
            ("120/udp", "narrow", "2"),
            ("0/udp", "wide", "1"),
            ("0-65535/tcp", "wide", "0"),
            ("1-99/udp", "wide", "0"),
            ("100-119/udp", "narrow", "0"),
            ("121-199/udp", "narrow", "0"),
            ("200-299/udp", "wide", "0"),
            ("301-65534/udp", "wide", "0"),
        ]
    );
    assert_eq!(more, "");
    // What is left out is counted in ports.
    let busy: Vec<u16> = (1000..1030).collect();
    probe.passing(&busy)?;
    let text = portdemux.ok(&["stats"])?.stdout;
    let (rows, more) = table(&text);
    assert_eq!(rows.len(), 20);
    assert_eq!(
        more,
        format!(
            "… {} more ports saw traffic or are claimed (--all)",
            "131,052"
        )
    );
    let text = portdemux.ok(&["stats", "--all"])?.stdout;
    let (rows, more) = table(&text);
    assert_eq!(rows.len(), 4 + 30 + 7);
    ensure!(rows.contains(&("1030-65534/udp", "wide", "0")), "{text}");
    assert_eq!(more, "");
    // For programs they are ports.
    let stats = portdemux.json(&["stats", "100-199/udp"])?;
    let listed = spelled(&stats["ports"])?;
    assert_eq!(listed.len(), 100);
    assert_eq!(listed[..2], ["120/udp", "100/udp"]);
    Ok(())
}

#[test]
fn before_there_is_anything_to_show_that_is_said() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    assert_eq!(
        portdemux.ok(&["stats"])?.stdout,
        "no port saw traffic yet\n"
    );
    assert_eq!(
        portdemux.ok(&["rules"])?.stdout,
        "No rules: all that is well-formed passes and is counted\n"
    );
    // It can be applied.
    assert_eq!(
        portdemux.ok(&["export"])?.stdout,
        "# No rules: all that is well-formed passes and is counted.\n"
    );
    Ok(())
}

#[test]
fn of_many_rules_ten_are_shown_unless_all_are_asked_for() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let rule = |port: u16| format!("[[rule]]\nport = \"{port}/tcp\"\n");
    portdemux.apply(&(1..=25).map(rule).collect::<String>())?;
    let tables = |arguments: &[&str]| -> Result<Vec<usize>> {
        let text = portdemux.ok(arguments)?.stdout;
        Ok(text
            .split("\n\n")
            .map(|table| table.lines().count())
            .collect())
    };
    // A head, and the line that says how many more there are.
    assert_eq!(tables(&["stats"])?, [1 + 20 + 1, 1 + 10 + 1]);
    assert_eq!(tables(&["stats", "--all"])?, [1 + 25, 1 + 25]);
    let text = portdemux.ok(&["stats"])?.stdout;
    ensure!(text.ends_with("… 15 more rules (--all)\n"), "{text}");
    Ok(())
}
