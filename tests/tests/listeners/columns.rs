//! What listens behind a port, in the tables of rules and ports.

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::SockType;
use portdemux_tests::{
    cli::Portdemux,
    frames::SERVER_V4,
    lab::{INTERFACE, Lab},
    require::Need,
    run::Running,
    server::Server,
    terminal,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

use crate::bed::{self, Wish};

const RULES: &str = "\
[[rule]]
name = \"web\"
port = [\"80/tcp\", \"8000-8010/tcp\"]

[[rule]]
name = \"at\"
port = \"53/udp\"
address = \"192.0.2.2\"

[[rule]]
name = \"elsewhere\"
port = \"53/udp\"
address = \"192.0.2.9\"

[[rule]]
name = \"inside\"
port = \"81/tcp\"

[[rule]]
name = \"peers\"
port = \"80/tcp\"
role = \"source\"
";

/// The listeners of each rule, or of each port.
fn listeners(document: &Value, of: &str) -> Vec<(String, Value)> {
    let rows = document[of].as_array().into_iter().flatten();
    let name = |row: &Value| match of {
        "rules" => row["name"].as_str().unwrap_or_default().to_owned(),
        _ => format!(
            "{}/{}",
            row["port"],
            row["protocol"].as_str().unwrap_or_default()
        ),
    };
    rows.map(|row| (name(row), row["listeners"].clone()))
        .collect()
}

#[test]
fn rules_and_ports_say_which_programs_are_behind_them() -> Result<()> {
    if !bed::have(&[Need::Tool("nginx")]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let server = &lab.server;
    let portdemux = Portdemux::new(server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(RULES)?;
    let _nginx = Server::nginx(server, 80)?;
    let _socat = Server::tcp_echo(server, 8005)?;
    let _datagrams = bed::bound(
        server,
        SockType::Datagram,
        &format!("{SERVER_V4}:53"),
        Wish::default(),
    )?;
    let _inside = bed::listening(server, "127.0.0.1:81", Wish::default(), 1)?;
    let this = std::fs::read_to_string("/proc/self/comm")?;
    let this = this.trim_end();
    // A process that another test is just starting has the sockets of this one for a moment.
    let mut rules = Vec::new();
    let expected = [
        ("web", json!(["nginx", "socat"])),
        ("at", json!([this])),
        ("elsewhere", json!([])),
        ("inside", json!([])),
        ("peers", json!([])),
    ]
    .map(|(name, listeners)| (name.to_owned(), listeners));
    let waited = wait_until("its own name", PATIENCE, || {
        rules = listeners(&portdemux.json(&["rules"])?, "rules");
        Ok(rules == expected)
    });
    assert_eq!(rules, expected);
    waited?;
    let ports = ["80/tcp", "81/tcp", "8005/tcp", "8006/tcp"];
    let stats = portdemux.json(&[&["stats"], &ports[..]].concat())?;
    let expected = [
        ("80/tcp", json!(["nginx"])),
        ("81/tcp", json!([])),
        ("8005/tcp", json!(["socat"])),
        ("8006/tcp", json!([])),
    ]
    .map(|(name, listeners)| (name.to_owned(), listeners));
    assert_eq!(listeners(&stats, "ports"), expected);

    let column = |command: &[&str]| -> Result<Vec<String>> {
        let table = portdemux.ok(command)?.stdout;
        let (head, _) = table.split_once('\n').context("no table")?;
        let at = head.split_once("LISTENER").context("no column")?.0.len();
        let rows = table.lines().take_while(|line| !line.is_empty()).skip(1);
        // Whatever stands before it is in ASCII.
        Ok(rows
            .filter_map(|row| Some(row.get(at..)?.split("  ").next()?.to_owned()))
            .collect())
    };
    assert_eq!(column(&["rules"])?[..1], ["nginx +1"]);
    // What a range has in common is told of all of it.
    assert_eq!(column(&["stats", "8000-8010/tcp"])?, ["socat"]);
    assert_eq!(column(&["stats", "80/tcp", "81/tcp"])?, ["nginx", "–"]);

    // It is the first column to go, and the only one where that is enough.
    for noun in ["rules", "stats"] {
        let table = portdemux.ok(&[noun])?.stdout;
        let table = table.split("\n\n").next().unwrap_or_default();
        let widest = table.lines().map(|line| line.chars().count()).max();
        let widest = u16::try_from(widest.context("no table")?)?;
        let head = |columns| -> Result<Vec<String>> {
            let shown = terminal::run(portdemux.command(&[noun]), columns)?;
            let head = shown.text.lines().next().unwrap_or_default();
            Ok(head.split_whitespace().map(str::to_owned).collect())
        };
        let mut columns = head(widest)?;
        ensure!(columns.contains(&"LISTENER".to_owned()), "{columns:?}");
        columns.retain(|column| column != "LISTENER");
        assert_eq!(head(widest - 1)?, columns);
    }
    Ok(())
}

#[test]
fn who_begins_to_listen_is_seen_by_whoever_watches() -> Result<()> {
    if !bed::have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(RULES)?;
    let watching = ["stats", "80/tcp", "--watch", "0.05", "--json"];
    let watcher = Running::spawn(portdemux.command(&watching))?;
    let last = || -> Result<Option<Value>> {
        let text = watcher.stdout();
        // The last line may not be whole yet.
        let line = text.rsplit('\n').nth(1);
        let document: Option<Value> = line.map(serde_json::from_str).transpose()?;
        Ok(document.map(|document| document["ports"][0]["listeners"].clone()))
    };
    let sees = |what: &Value| {
        wait_until(&what.to_string(), PATIENCE, || {
            Ok(last()?.as_ref() == Some(what))
        })
    };
    sees(&json!([]))?;
    let server = Server::tcp_echo(&lab.server, 80)?;
    sees(&json!(["socat"]))?;
    drop(server);
    sees(&json!([]))?;
    Ok(())
}
