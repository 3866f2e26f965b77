//! Documents for programs: they have the keys that are documented, and values of these types.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::fd::OwnedFd,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require,
};
use serde_json::{Map, Value, json};

use crate::bed::busy;

/// A page of the documentation.
pub(crate) fn page(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// The keys in the first column of each table of a page.
pub(crate) fn documented(page: &str) -> Vec<Vec<&str>> {
    let mut tables = Vec::new();
    let mut is_inside = false;
    for line in page.lines() {
        let Some(row) = line.strip_prefix('|') else {
            is_inside = false;
            continue;
        };
        if !is_inside {
            tables.push(Vec::new());
        }
        is_inside = true;
        let cell = row.split('|').next().unwrap_or_default();
        let keys = cell.split(',').map(str::trim);
        let keys = keys.filter_map(|key| key.strip_prefix('`')?.strip_suffix('`'));
        if let Some(table) = tables.last_mut() {
            table.extend(keys);
        }
    }
    tables
}

/// The document with the name of the type in the place of each value. Of a list, the types of its
/// elements, each once.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(number) if number.is_u64() => "integer".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(values) => {
            let mut shapes: Vec<Value> = Vec::new();
            for shape in values.iter().map(shape) {
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
            Value::Array(shapes)
        }
        Value::Object(values) => {
            let shapes: Map<String, Value> = values
                .iter()
                .map(|(key, value)| (key.clone(), shape(value)))
                .collect();
            Value::Object(shapes)
        }
    }
}

/// Whether an object has these keys and no others.
pub(crate) fn has_keys(object: &Value, keys: &[&str]) -> Result<()> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let mut found: Vec<&str> = object
        .as_object()
        .with_context(|| format!("{object} is no object"))?
        .keys()
        .map(String::as_str)
        .collect();
    found.sort_unstable();
    assert_eq!(found, keys);
    Ok(())
}

fn traffic() -> Value {
    json!({"packets": "integer", "bytes": "integer"})
}

fn interface() -> Value {
    json!({
        "name": "string", "renamed": "null", "index": "integer", "hook": "string", "mode": "string",
        "state": "string", "program_version": "string", "received": traffic(), "dropped": traffic(),
    })
}

#[test]
fn documents_have_the_keys_that_are_documented() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = busy(&lab)?;
    let page = page("json.md")?;
    let tables = documented(&page);
    let [
        stats_keys,
        sets_keys,
        sockets_keys,
        rules_keys,
        rule,
        keys_of_status,
        interface,
        keys_of_flows,
        flow,
        keys_of_listeners,
        listener,
        part,
    ] = &tables[..]
    else {
        anyhow::bail!("the page has {} tables", tables.len());
    };
    let document = portdemux.json(&["stats"])?;
    has_keys(&document, stats_keys)?;
    has_keys(&document["interfaces"][0], interface)?;
    let (_, example) = page.split_once("```json\n").context("no example")?;
    let (example, _) = example.split_once('\n').context("no line")?;
    let mut example: Value = serde_json::from_str(example)?;
    for key in ["flows", "sent"] {
        ensure!(example[key].is_object(), "{example}");
        example[key] = Value::Null;
    }
    ensure!(example["listeners"].is_array(), "{example}");
    example["listeners"] = json!([]);
    assert_eq!(shape(&document["ports"][0]), shape(&example));
    has_keys(&portdemux.json(&["set", "list"])?, sets_keys)?;
    has_keys(&portdemux.json(&["socket", "list"])?, sockets_keys)?;
    let document = portdemux.json(&["rules"])?;
    has_keys(&document, rules_keys)?;
    has_keys(&document["rules"][0], rule)?;
    let document = portdemux.json(&["status"])?;
    has_keys(&document, keys_of_status)?;
    has_keys(&document["interfaces"][0], interface)?;

    portdemux.apply("[flows]\ntrack = true\n")?;
    probe.passing(&[10])?;
    let document = portdemux.json(&["flows"])?;
    has_keys(&document, keys_of_flows)?;
    assert_eq!(
        shape(&document["flows"][0]),
        json!({
            "protocol": "string", "local_address": "string", "local_port": "integer",
            "peer_address": "string", "peer_port": "integer", "identifier": "null",
            "begun_by": "string", "state": "string", "half_open": "bool", "rule": "null",
            "verdict": "string", "reason": "string", "received": traffic(), "sent": traffic(),
            "known_seconds": "number", "left_seconds": "number",
        })
    );
    has_keys(&document["flows"][0], flow)?;

    let sockets = [("0.0.0.0:20", true), ("127.0.0.1:21", false)];
    let _sockets = lab.server.enter(|| {
        let sockets = sockets.map(|(address, is_udp)| -> Result<OwnedFd> {
            Ok(if is_udp {
                UdpSocket::bind(address)?.into()
            } else {
                TcpListener::bind(address)?.into()
            })
        });
        sockets.into_iter().collect::<Result<Vec<_>>>()
    })?;
    let document = portdemux.json(&["listeners"])?;
    has_keys(&document, keys_of_listeners)?;
    let expected = |accept_queue: Value, receive_queue: Value, addresses: Value| {
        json!({
            "protocol": "string", "port": "integer", "addresses": ["string"],
            "ip_versions": ["integer"], "interface": "null",
            "processes": [{"pid": "integer", "name": "string", "fd": "integer"}],
            "uid": "integer", "user": "string", "accept_queue": accept_queue,
            "receive_queue": receive_queue, "reach": "string",
            "parts": [{
                "reach": "string", "rule": "null", "addresses": addresses, "peers_of": "null",
                "ports": [], "to": "null", "interface": "null",
            }],
        })
    };
    let receive_queue = json!({"bytes": "integer", "size": "integer", "dropped": "integer"});
    let accept_queue = json!({"waiting": "integer", "backlog": "integer"});
    assert_eq!(
        shape(&document["listeners"]),
        json!([
            expected("null".into(), receive_queue, json!(["string"])),
            expected(accept_queue, "null".into(), json!([])),
        ])
    );
    assert_eq!(document["loaded"], true);
    assert_eq!(document["generation"], 2);
    has_keys(&document["listeners"][0], listener)?;
    has_keys(&document["listeners"][0]["parts"][0], part)
}

#[test]
fn the_document_of_stats_has_values_of_the_documented_types() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let port = |rule: &str| {
        json!({
            "protocol": "string", "port": "integer", "rule": rule, "received": traffic(),
            "dropped": traffic(), "flows": "null", "sent": "null", "listeners": [],
        })
    };
    let stats = portdemux.json(&["stats", "20/udp", "30/udp"])?;
    assert_eq!(
        shape(&stats),
        json!({
            "instance": "string", "generation": "integer", "time": "number",
            "interfaces": [interface()],
            "ports": [port("string"), port("null")],
            "rules": [{"rule": "string", "received": traffic(), "dropped": traffic()}],
            "reasons": [{"reason": "string", "packets": "integer", "bytes": "integer"}],
            "lost": [],
        })
    );
    assert_eq!(stats["instance"], "default");
    assert_eq!(stats["generation"], 1);
    let name = "a-rule-with-a-name-that-is-rather-long-for-a-table";
    let three = json!({"packets": 3, "bytes": 150});
    let none = json!({"packets": 0, "bytes": 0});
    assert_eq!(
        stats["ports"],
        json!([
            {"protocol": "udp", "port": 20, "rule": name, "received": three, "dropped": three,
             "flows": null, "sent": null, "listeners": []},
            {
                "protocol": "udp", "port": 30, "rule": null,
                "received": {"packets": 2, "bytes": 100}, "dropped": none, "flows": null, "sent": null,
                "listeners": [],
            },
        ])
    );
    assert_eq!(
        stats["rules"],
        json!([
            {"rule": name, "received": three, "dropped": three},
            {"rule": "quiet", "received": none, "dropped": none},
        ])
    );
    assert_eq!(
        stats["reasons"],
        json!([
            {"reason": "unclaimed", "packets": 3, "bytes": 150},
            {"reason": "rule_drop", "packets": 3, "bytes": 150},
            {"reason": "non_ip", "packets": 1, "bytes": 60},
        ])
    );
    Ok(())
}

#[test]
fn the_document_of_rules_says_what_the_text_says() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = busy(&lab)?;
    portdemux.apply(
        "[default]\nmalformed = \"pass\"\n\n[[rule]]\nname = \"no\"\nport = [\"7/udp\", \
         \"8000-8999/tcp\"]\naddress = [\"192.0.2.2\", \"2001:db8::2\"]\nto = \"drop\"\n\n[[rule]]\nport \
         = \"22/tcp\"\nfrom = [\"@lan\", \"::1\"]\ndeny = \"10.0.0.0/8\"\n[sets]\nlan = \
         [\"fe80::/10\", \"192.0.2.0/24\"]\n",
    )?;
    probe.passing(&[7, 7])?;
    let two = json!({"packets": 2, "bytes": 100});
    let none = json!({"packets": 0, "bytes": 0});
    assert_eq!(
        portdemux.json(&["rules"])?,
        json!({
            "instance": "default", "generation": 2,
            "attach": null,
            "defaults": {
                "inbound": "pass", "malformed": "pass", "fragments": "pass", "icmp": "pass",
            },
            "flows": null,
            "sets": [{"name": "lan", "prefixes": ["fe80::/10", "192.0.2.0/24"]}],
            "rules": [
                {
                    "name": "no", "ports": ["7/udp", "8000-8999/tcp"],
                    "addresses": ["192.0.2.2", "2001:db8::2"], "from": [], "deny": [],
                    "to": "drop", "sockets": null, "fallback": null, "mac": null, "queue": null,
                    "role": "destination", "connections": "all", "rate": null,
                    "new_rate": null, "per": "rule", "shadow": false, "line": 4,
                    "received": two, "dropped": two, "listeners": [],
                },
                {
                    "name": "22/tcp", "ports": ["22/tcp"], "addresses": [],
                    "from": ["@lan", "::1"], "deny": ["10.0.0.0/8"], "to": "local",
                    "sockets": null, "fallback": null, "mac": null, "queue": null,
                    "role": "destination", "connections": "all", "rate": null, "new_rate": null,
                    "per": "rule", "shadow": false, "line": 10, "received": none, "dropped": none,
                    "listeners": [],
                },
            ],
        })
    );
    Ok(())
}

fn kind() -> Value {
    json!({"kind": "string", "needs": "string", "available": "bool", "used": "bool"})
}

#[test]
fn the_document_of_status_says_where_the_rules_came_from() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let mut expected = json!({
        "instance": "string", "generation": "integer", "rules": "integer", "source": "null",
        "in_sync": "null", "saved": "null", "fell_back": "bool",
        "pending": "null", "undone": "null", "interfaces": [interface()],
        "answers": {"limited": "integer", "sent": "integer", "unanswerable": "integer"},
        "sockets": {
            "attached": "bool", "groups": "integer", "members": "integer",
            "tcp_followed_by": "null", "follower_needed": "bool", "follower_runs": "bool",
            "features": {
                "sk_lookup": "bool", "pidfd_getfd": "bool", "sock_ops": "bool",
                "ingress_ifindex": "bool",
            },
        },
        "flows": "null", "destinations": [], "kinds": [kind()],
        "losses_counted": "null", "lost": [],
        "kernel_memory_bytes": "integer", "version": "string",
    });
    let status = portdemux.json(&["status"])?;
    assert_eq!(shape(&status), expected);
    ensure!(
        status["generation"] == 0 && status["rules"] == 0,
        "{status}"
    );
    drop(portdemux);

    let (portdemux, _) = busy(&lab)?;
    let status = portdemux.json(&["status"])?;
    expected["source"] = "string".into();
    expected["in_sync"] = "bool".into();
    assert_eq!(shape(&status), expected);
    ensure!(
        status["generation"] == 1 && status["rules"] == 2,
        "{status}"
    );
    let known = &status["interfaces"][0];
    for (key, value) in [
        ("name", json!(INTERFACE)),
        ("hook", json!("xdp")),
        ("mode", json!("native")),
        ("state", json!("attached")),
        ("received", json!({"packets": 7, "bytes": 360})),
        ("dropped", json!({"packets": 3, "bytes": 150})),
    ] {
        assert_eq!(known[key], value, "{key}");
    }

    assert_eq!(status["in_sync"], true);
    let file = portdemux.rules_file("# edited\n")?;
    assert_eq!(portdemux.json(&["status"])?["in_sync"], false);
    fs::remove_file(file)?;
    assert_eq!(portdemux.json(&["status"])?["in_sync"], Value::Null);
    Ok(())
}
