//! How the rules reach a socket: what is said of it, and what packets find.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::{SERVER_V4, SERVER_V6},
    lab::{INTERFACE, Lab},
    veth,
};
use serde_json::{Value, json};

use crate::bed::{self, Wish};

/// What a client finds that connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Listener,
    Reset,
    Nothing,
}

fn connect(lab: &Lab, address: IpAddr, port: u16) -> Result<Found> {
    lab.client.enter(|| {
        let end = SocketAddr::new(address, port);
        match TcpStream::connect_timeout(&end, Duration::from_millis(400)) {
            Ok(_) => Ok(Found::Listener),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Found::Reset),
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(Found::Nothing),
            Err(error) => bail!("{end}: {error}"),
        }
    })
}

/// A listener for both versions of IP on each port.
fn listeners_on(lab: &Lab, ports: &[u16]) -> Result<Vec<TcpListener>> {
    let ports = ports.iter();
    ports
        .map(|port| bed::listening(&lab.server, &format!("[::]:{port}"), Wish::default(), 16))
        .collect()
}

/// The words for the reach of a listener and of its parts, and the parts' rules.
fn reach(listener: &Value) -> (String, Vec<(String, Option<String>)>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let parts = listener["parts"].as_array().into_iter().flatten();
    let parts = parts.map(|part| {
        (
            text(&part["reach"]).unwrap_or_default(),
            text(&part["rule"]),
        )
    });
    (
        text(&listener["reach"]).unwrap_or_default(),
        parts.collect(),
    )
}

#[test]
fn packets_find_what_is_said() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE, "--mode", "generic"])?;
    let rule = |port: u16, rest: &str| {
        format!("[[rule]]\nname = \"r{port}\"\nport = \"{port}/tcp\"\n{rest}\n")
    };
    let rules = [
        rule(81, ""),
        rule(82, "to = \"drop\""),
        rule(83, "to = \"reject\""),
        rule(84, "from = [\"192.0.2.0/24\", \"2001:db8::/32\"]"),
        rule(85, "from = [\"198.51.100.0/24\", \"2001:db8:ffff::/48\"]"),
        rule(86, "connections = \"established\""),
        rule(87, "deny = [\"192.0.2.1\", \"2001:db8::1\"]"),
    ]
    .concat();
    let ports = [80, 81, 82, 83, 84, 85, 86, 87];
    let _listeners = listeners_on(&lab, &ports)?;
    for (inbound, of_80, found_at_80) in [
        ("pass", "direct", Found::Listener),
        ("drop", "dropped", Found::Nothing),
        ("reject", "rejected", Found::Reset),
    ] {
        portdemux.apply(&format!("[default]\ninbound = \"{inbound}\"\n{rules}"))?;
        for (port, word, found) in [
            (80, of_80, found_at_80),
            (81, "direct", Found::Listener),
            (82, "dropped", Found::Nothing),
            (83, "rejected", Found::Reset),
            (84, "sources", Found::Listener),
            (85, "sources", Found::Nothing),
            (86, "replies", Found::Nothing),
            (87, "sources", Found::Nothing),
        ] {
            let listener = bed::listener(&portdemux, &format!("{port}/tcp"))?;
            let rule = (port != 80).then(|| format!("r{port}"));
            let expected = (word.to_owned(), vec![(word.to_owned(), rule)]);
            assert_eq!(reach(&listener), expected, "{port} under {inbound}");
            let addresses = json!([SERVER_V4, SERVER_V6]);
            let part = &listener["parts"][0]["addresses"];
            let own = part.as_array().into_iter().flatten();
            let own: Vec<&Value> = own
                .filter(|own| own.as_str().is_none_or(|own| !own.starts_with("fe80:")))
                .collect();
            assert_eq!(json!(own), addresses, "{listener}");
            // Once for each port and each version, under one of the defaults.
            if port == 80 || inbound == "drop" {
                for address in [SERVER_V4.into(), SERVER_V6.into()] {
                    assert_eq!(
                        connect(&lab, address, port)?,
                        found,
                        "{address}:{port}, {inbound}"
                    );
                }
            }
        }
    }
    // Who is reached stands before who is not.
    let rows = bed::listeners(&portdemux, &[])?;
    let ports: Vec<u64> = rows.iter().filter_map(|row| row["port"].as_u64()).collect();
    assert_eq!(ports, [81, 84, 85, 87, 86, 80, 82, 83]);
    let table = portdemux.ok(&["listeners", "80-87/tcp"])?.stdout;
    let said: Vec<&str> = table
        .lines()
        .skip(1)
        .filter_map(|line| Some(line.split_once(" of 16  ")?.1))
        .collect();
    assert_eq!(
        said,
        [
            "directly, rule r81",
            "from some sources, rule r84",
            "from some sources, rule r85",
            "from some sources, rule r87",
            "replies only, rule r86",
            "not: rejected by [default] inbound",
            "not: dropped by rule r82",
            "not: rejected by rule r83",
        ]
    );
    Ok(())
}

#[test]
fn where_addresses_differ_it_is_said_which_is_which() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let other = "192.0.2.3".parse()?;
    lab.add_server_address(other)?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(&format!(
        "[[rule]]\nname = \"web\"\nport = \"80/tcp\"\n[[rule]]\nname = \"not\"\nport = \
         \"80/tcp\"\naddress = \"{other}\"\nto = \"drop\"\n"
    ))?;
    let _everywhere = bed::listening(&lab.server, "0.0.0.0:80", Wish::default(), 4)?;
    let listener = bed::listener(&portdemux, "80/tcp")?;
    assert_eq!(listener["reach"], "partly");
    let part = |reach: &str, rule: &str, address: Value| {
        json!({
            "reach": reach, "rule": rule, "addresses": [address], "peers_of": null, "ports": [],
            "to": null, "interface": null,
        })
    };
    let parts = json!([
        part("direct", "web", json!(SERVER_V4)),
        part("dropped", "not", json!(other))
    ]);
    assert_eq!(listener["parts"], parts);
    assert_eq!(connect(&lab, SERVER_V4.into(), 80)?, Found::Listener);
    assert_eq!(connect(&lab, other, 80)?, Found::Nothing);
    let table = portdemux.ok(&["listeners"])?.stdout;
    let said = "  partly: not: dropped by rule not, at 192.0.2.3; else directly, rule web\n";
    ensure!(table.ends_with(said), "{table}");
    // It is the other way round for sockets of one address.
    let _second = bed::listening(&lab.server, "192.0.2.3:81", Wish::default(), 4)?;
    portdemux.ok(&["add", "81/tcp", "--to", "drop"])?;
    let listener = bed::listener(&portdemux, "81/tcp")?;
    let expected = (
        "dropped".into(),
        vec![("dropped".into(), Some("81/tcp".into()))],
    );
    assert_eq!(reach(&listener), expected);
    Ok(())
}

#[test]
fn who_listens_on_loopback_or_past_the_program_is_told() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let server = &lab.server;
    server.ip(&[
        "link", "add", "other0", "type", "veth", "peer", "name", "other1",
    ])?;
    server.ip(&["link", "set", "other0", "up"])?;
    veth::add_address(server, "other0", "198.51.100.2".parse()?)?;
    let portdemux = Portdemux::new(server)?;
    let on_interface = Wish {
        on_interface: true,
        ..Wish::default()
    };
    let _listeners = [
        bed::listening(server, "127.0.0.1:80", Wish::default(), 4)?,
        bed::listening(server, "[::1]:81", Wish::default(), 4)?,
        bed::listening(server, "198.51.100.2:82", Wish::default(), 4)?,
        bed::listening(server, "0.0.0.0:83", on_interface, 4)?,
        bed::listening(server, "0.0.0.0:84", Wish::default(), 4)?,
    ];
    // Nothing is loaded: who listens is told all the same.
    let document = portdemux.json(&["listeners"])?;
    assert_eq!(document["loaded"], false);
    assert_eq!(document["generation"], Value::Null);
    let rows = document["listeners"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert_eq!(rows.len(), 5);
    ensure!(
        rows.iter()
            .all(|row| row["reach"].is_null() && row["parts"] == json!([])),
        "{document}"
    );
    let told = portdemux.ok(&["listeners"])?;
    assert_eq!(
        told.stderr,
        "note: instance default is not loaded: no rules stand before these sockets\n"
    );
    ensure!(
        told.stdout
            .lines()
            .skip(1)
            .all(|line| line.ends_with(" of 4  –")),
        "{}",
        told.stdout
    );

    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply("[default]\ninbound = \"drop\"\n")?;
    let words = |port: &str| Ok::<_, anyhow::Error>(reach(&bed::listener(&portdemux, port)?).0);
    assert_eq!(words("80/tcp")?, "loopback");
    assert_eq!(words("81/tcp")?, "loopback");
    assert_eq!(words("82/tcp")?, "unwatched");
    assert_eq!(words("83/tcp")?, "dropped");
    let past = bed::listener(&portdemux, "82/tcp")?;
    assert_eq!(past["parts"][0]["interface"], "other0");
    // Who listens on every address is reached past the rules as soon as packets can come by the other one.
    assert_eq!(words("84/tcp")?, "dropped");
    server.ip(&["link", "set", "other1", "up"])?;
    assert_eq!(words("84/tcp")?, "partly");
    let everywhere = bed::listener(&portdemux, "84/tcp")?;
    let parts = everywhere["parts"].as_array().cloned().unwrap_or_default();
    let unwatched = parts.iter().find(|part| part["reach"] == "unwatched");
    assert_eq!(
        unwatched.map(|part| [&part["interface"], &part["addresses"]]),
        Some([&json!("other0"), &json!(["198.51.100.2"])]),
        "{everywhere}"
    );
    let page = portdemux.ok(&["listeners", "84/tcp"])?.stdout;
    ensure!(
        page.contains(
            "  partly: past the rules, by other0; else not: dropped by [default] inbound\n"
        ),
        "{page}"
    );
    assert_eq!(words("83/tcp")?, "dropped");
    server.ip(&["link", "set", "other1", "down"])?;
    assert_eq!(connect(&lab, SERVER_V4.into(), 80)?, Found::Nothing);
    portdemux.apply("[default]\n")?;
    assert_eq!(connect(&lab, SERVER_V4.into(), 80)?, Found::Reset);
    assert_eq!(words("83/tcp")?, "direct");
    let table = portdemux.ok(&["listeners", "80/tcp", "82/tcp"])?.stdout;
    let said: Vec<&str> = table
        .lines()
        .filter_map(|line| Some(line.split_once(" of 4  ")?.1))
        .collect();
    assert_eq!(said, ["past the rules, by other0", "not: only on loopback"]);
    // Without the program nothing is watched.
    portdemux.ok(&["detach", INTERFACE])?;
    assert_eq!(words("83/tcp")?, "unwatched");
    Ok(())
}

/// The mistake that the documentation of rules warns of.
#[test]
fn a_rule_for_the_ports_of_peers_that_opens_a_port_is_told() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let rules = "[default]\ninbound = \"drop\"\n[[rule]]\nname = \"web-replies\"\nport = \
                 \"443/tcp\"\nrole = \"source\"\n";
    portdemux.apply(rules)?;
    let _listeners = listeners_on(&lab, &[80])?;
    let listener = bed::listener(&portdemux, "80/tcp")?;
    assert_eq!(listener["reach"], "partly");
    assert_eq!(listener["parts"][0]["peers_of"], "web-replies");
    let table = portdemux.ok(&["listeners"])?.stdout;
    let said = "  partly: directly, rule web-replies, from the ports of rule web-replies; else not: \
                dropped by [default] inbound\n";
    ensure!(table.ends_with(said), "{table}");
    portdemux.apply(&format!("{rules}connections = \"established\"\n"))?;
    assert_eq!(reach(&bed::listener(&portdemux, "80/tcp")?).0, "dropped");
    Ok(())
}

#[test]
fn who_is_passed_by_is_told_where_packets_go() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let server = &lab.server;
    server.ip(&[
        "link", "add", "other0", "type", "veth", "peer", "name", "other1",
    ])?;
    server.ip(&["link", "set", "other0", "up"])?;
    let portdemux = Portdemux::new(server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(
        "[[rule]]\nname = \"away\"\nport = \"80/tcp\"\nto = \"interface:other0\"\n[[rule]]\nname = \
         \"spread\"\nport = \"81/tcp\"\nto = \"cpu:0\"\n",
    )?;
    let _listeners = listeners_on(&lab, &[80, 81])?;
    let away = bed::listener(&portdemux, "80/tcp")?;
    let expected = vec![("elsewhere".into(), Some("away".into()))];
    assert_eq!(reach(&away), ("elsewhere".into(), expected));
    assert_eq!(away["parts"][0]["to"], "interface:other0");
    assert_eq!(connect(&lab, SERVER_V4.into(), 80)?, Found::Nothing);
    // From another CPU they come to the same socket.
    let spread = bed::listener(&portdemux, "81/tcp")?;
    let expected = vec![("direct".into(), Some("spread".into()))];
    assert_eq!(reach(&spread), ("direct".into(), expected));
    let table = portdemux.ok(&["listeners", "80/tcp"])?.stdout;
    let said = "  not: rule away sends to interface:other0\n";
    ensure!(table.ends_with(said), "{table}");
    let rules = portdemux.json(&["rules"])?;
    assert_eq!(rules["rules"][0]["listeners"], json!([]));
    ensure!(rules["rules"][1]["listeners"] != json!([]), "{rules}");
    // Where the interface is gone, the rule's fallback says what becomes of them.
    server.ip(&["link", "delete", "other0"])?;
    let away = bed::listener(&portdemux, "80/tcp")?;
    let expected = vec![("dropped".into(), Some("away".into()))];
    assert_eq!(reach(&away), ("dropped".into(), expected));
    assert_eq!(connect(&lab, SERVER_V4.into(), 80)?, Found::Nothing);
    Ok(())
}

#[test]
fn who_is_handed_packets_for_other_ports_is_told_which() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    // In native mode the other end would have to take what the program sends back.
    portdemux.ok(&["attach", INTERFACE, "--mode", "generic"])?;
    let inside = bed::listening(&lab.server, "127.0.0.1:8080", Wish::default(), 16)?;
    let _outside = bed::listening(&lab.server, "0.0.0.0:80", Wish::default(), 16)?;
    let rules = "[[rule]]\nname = \"web\"\nport = \"80/tcp\"\nto = \"socket:127.0.0.1:8080\"\n\
                 fallback = \"local\"\n";
    portdemux.apply(rules)?;
    let word = |port: &str| Ok::<_, anyhow::Error>(reach(&bed::listener(&portdemux, port)?));
    let of = |word: &str| {
        (
            word.to_owned(),
            vec![(word.to_owned(), Some("web".to_owned()))],
        )
    };
    assert_eq!(word("8080/tcp")?, of("socket"));
    assert_eq!(
        bed::listener(&portdemux, "8080/tcp")?["parts"][0]["ports"],
        json!(["80/tcp"])
    );
    assert_eq!(word("80/tcp")?, of("elsewhere"));
    assert_eq!(connect(&lab, SERVER_V4.into(), 80)?, Found::Listener);
    let waiting = |port: &str| {
        let listener = bed::listener(&portdemux, port)?;
        Ok::<_, anyhow::Error>(listener["accept_queue"]["waiting"].clone())
    };
    assert_eq!(
        (waiting("8080/tcp")?, waiting("80/tcp")?),
        (json!(1), json!(0))
    );
    let table = portdemux.ok(&["listeners"])?.stdout;
    let said: Vec<&str> = table
        .lines()
        .filter_map(|line| Some(line.split_once(" of 16  ")?.1))
        .collect();
    assert_eq!(
        said,
        [
            "through sk_lookup from 80/tcp, rule web",
            "not: rule web sends to socket:127.0.0.1:8080",
        ]
    );
    // Where it is gone, the rule says who gets what comes.
    drop(inside);
    assert_eq!(word("80/tcp")?, of("direct"));
    assert_eq!(connect(&lab, SERVER_V4.into(), 80)?, Found::Listener);
    assert_eq!(waiting("80/tcp")?, json!(1));
    portdemux.apply(&rules.replace("\"local\"", "\"reject\""))?;
    assert_eq!(word("80/tcp")?, of("rejected"));
    assert_eq!(connect(&lab, SERVER_V4.into(), 80)?, Found::Reset);
    Ok(())
}

#[test]
fn the_sockets_of_a_name_are_those_that_were_given_it() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(
        "[[rule]]\nname = \"web\"\nport = [\"80/tcp\", \"53/udp\"]\nto = \"socket:web\"\n\
         fallback = \"drop\"\n",
    )?;
    // Two that share a port of their own; one of them is given the name.
    let given = bed::sharing(&lab.server, "0.0.0.0:8080")?;
    let _other = bed::sharing(&lab.server, "0.0.0.0:8080")?;
    let _passed_by = bed::listening(&lab.server, "0.0.0.0:80", Wish::default(), 16)?;
    let behind = |noun: &str, list: &str, at: &str, is_it: Value| -> Result<Value> {
        let document = portdemux.json(&[noun])?;
        let mut all = document[list].as_array().into_iter().flatten();
        let found = all.find(|one| one[at] == is_it);
        Ok(found.map_or(Value::Null, |found| found["listeners"].clone()))
    };
    let of_rule = || behind("rules", "rules", "name", json!("web"));
    let of_port = || behind("stats", "ports", "port", json!(80));
    assert_eq!((of_rule()?, of_port()?), (json!([]), json!([])));
    assert_eq!(
        reach(&bed::listener(&portdemux, "80/tcp")?).0,
        "dropped",
        "while nobody has the name"
    );

    let pid = std::process::id().to_string();
    let descriptor = given.as_raw_fd().to_string();
    portdemux.ok(&["socket", "add", "web", "--pid", &pid, "--fd", &descriptor])?;
    let name = std::fs::read_to_string("/proc/self/comm")?;
    let name = json!([name.trim_end()]);
    assert_eq!((of_rule()?, of_port()?), (name.clone(), name));
    assert_eq!(reach(&bed::listener(&portdemux, "80/tcp")?).0, "elsewhere");
    let mut found = Vec::new();
    for listener in bed::listeners(&portdemux, &["8080/tcp"])? {
        let parts = listener["parts"].as_array().into_iter().flatten();
        let mut parts = parts.map(|part| (part["reach"].clone(), part["ports"].clone()));
        let handed = parts.find(|(word, _)| *word == "socket");
        found.push((listener["processes"][0]["fd"].clone(), handed));
    }
    found.retain(|(_, handed)| handed.is_some());
    let handed = Some((json!("socket"), json!(["80/tcp"])));
    assert_eq!(found, [(json!(given.as_raw_fd()), handed)]);
    Ok(())
}
