//! Verbs whose report nobody reads, or that cannot be written: they do what they do otherwise.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    require,
    run::{self, Output},
};
use serde_json::{Value, json};

const FIRST: &str = "\
[flows]
track = true

[sets]
banned = [\"203.0.113.9\"]

[[rule]]
name = \"ssh\"
port = \"22/tcp\"
deny = \"@banned\"

[[rule]]
name = \"trial\"
port = \"23/tcp\"
to = \"drop\"
shadow = true
";

const SECOND: &str = "[[rule]]\nname = \"other\"\nport = \"7/udp\"\nto = \"drop\"\n";

/// What becomes of what a command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It goes to this program.
    To(&'static str),
    /// Its descriptors are these.
    Has(&'static str),
    /// It goes to a full device.
    Full,
}

const WAYS: [Way; 7] = [
    Way::To("true"),
    Way::To("head -1 >/dev/null"),
    Way::To("grep -q attached"),
    Way::Has(">&-"),
    Way::Has("<&- >&- 2>&-"),
    Way::Has("2>/dev/full"),
    Way::Full,
];

/// Runs a verb whose report goes this way, and returns what it said on standard error if it ended as it should.
fn run(portdemux: &Portdemux, way: Way, arguments: &[&str]) -> Result<String> {
    const STATUS: &str = "ended with ";
    let script = match way {
        Way::To(reader) => {
            format!("{{ {{ \"$0\" \"$@\" 3>&-; echo \"{STATUS}$?\" >&3; }} | {reader}; }} 3>&2")
        }
        Way::Has(redirected) => format!("\"$0\" \"$@\" {redirected}; echo \"{STATUS}$?\" >&2"),
        Way::Full => format!("\"$0\" \"$@\" >/dev/full; echo \"{STATUS}$?\" >&2"),
    };
    let binary = cli::binary()?.display().to_string();
    let words = ["sh", "-c", &script, &binary];
    let Output { stderr, .. } = run::run(portdemux.command_through(&words, arguments))?;
    let (said, status) = stderr.rsplit_once(STATUS).context("no exit status")?;
    let expected = if way == Way::Full { "1\n" } else { "0\n" };
    ensure!(
        status == expected,
        "{arguments:?} {way:?} ended with {status}{said}"
    );
    Ok(said.to_owned())
}

/// What is in force: the generation, the names of the rules, what became of the interface and whether a change
/// waits. Nothing if there is no instance.
fn in_force(portdemux: &Portdemux) -> Result<Value> {
    let output = portdemux.run(&["status", "--json"])?;
    if output.code() == Some(3) {
        return Ok(Value::Null);
    }
    let status: Value = serde_json::from_str(&output.success()?.stdout)?;
    let rules = portdemux.json(&["rules"])?;
    let rules = rules["rules"].as_array().context("rules")?;
    let names: Vec<&Value> = rules.iter().map(|rule| &rule["name"]).collect();
    Ok(json!([
        status["generation"],
        names,
        status["interfaces"][0]["state"],
        !status["pending"].is_null()
    ]))
}

#[test]
fn what_a_verb_does_does_not_depend_on_what_becomes_of_its_report() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    for way in WAYS {
        let portdemux = Portdemux::new(&lab.server)?;
        let first = portdemux.state().join("first.toml");
        let second = portdemux.state().join("second.toml");
        fs::write(&first, FIRST)?;
        fs::write(&second, SECOND)?;
        let first = first.to_str().context("a path")?;
        let second = second.to_str().context("a path")?;
        let (on, off) = ("attached", "detached");
        for (arguments, after) in [
            // A new instance.
            (
                &["attach", INTERFACE, "--rules", first][..],
                json!([1, ["ssh", "trial"], on, false]),
            ),
            (
                &["add", "9/sctp", "--name", "nine"],
                json!([2, ["ssh", "trial", "nine"], on, false]),
            ),
            (
                &["set", "add", "banned", "198.51.100.7"],
                json!([2, ["ssh", "trial", "nine"], on, false]),
            ),
            (
                &["promote", "trial"],
                json!([3, ["ssh", "trial", "nine"], on, false]),
            ),
            (&["remove", "nine"], json!([4, ["ssh", "trial"], on, false])),
            (
                &["flows", "kill", "--all"],
                json!([4, ["ssh", "trial"], on, false]),
            ),
            (
                &["apply", second, "--confirm", "1h"],
                json!([5, ["other"], on, true]),
            ),
            (
                &["confirm", "--undo"],
                json!([6, ["ssh", "trial"], on, false]),
            ),
            (
                &["apply", second, "--confirm", "1h"],
                json!([7, ["other"], on, true]),
            ),
            (&["confirm"], json!([7, ["other"], on, false])),
            (
                &["attach", INTERFACE, "--rules", first],
                json!([8, ["ssh", "trial"], on, false]),
            ),
            (&["apply", second], json!([9, ["other"], on, false])),
            (&["detach", INTERFACE], json!([9, ["other"], off, false])),
            (&["attach", INTERFACE], json!([9, ["other"], on, false])),
            (&["detach", "--all"], Value::Null),
            // One that needs no interface.
            (
                &["add", "80/tcp", "--to", "socket:web", "--name", "web"],
                json!([1, ["web"], null, false]),
            ),
        ] {
            let said = run(&portdemux, way, arguments)?;
            let found = in_force(&portdemux)?;
            ensure!(
                found == after,
                "{arguments:?} {way:?}: {found} instead of {after}\n{said}"
            );
            if arguments[0] == "set" {
                let export = portdemux.ok(&["export"])?.stdout;
                ensure!(export.contains("198.51.100.7"), "{way:?}: {export}");
            }
            let error =
                "error: write standard output: No space left on device (os error 28)\n help: ";
            if way == Way::Full {
                let attached = match (&after[0], &after[2]) {
                    (Value::Null, _) => "instance default is not loaded".to_owned(),
                    (generation, state) if *state == on => {
                        format!("generation {generation} is in force, attached to {INTERFACE}")
                    }
                    (generation, _) => {
                        format!("generation {generation} is in force, attached to no interface")
                    }
                };
                let end = format!("{error}{attached} (portdemux status)\n");
                ensure!(said.ends_with(&end), "{arguments:?}: {said}");
            } else {
                ensure!(!said.contains("error:"), "{arguments:?} {way:?}: {said}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_refusal_is_one_whatever_becomes_of_it() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    for redirected in ["| cat", ">&-", "2>&-", ">/dev/full", "2>/dev/full"] {
        let script = format!("set -o pipefail; \"$0\" \"$@\" {redirected}");
        let binary = cli::binary()?.display().to_string();
        let words = ["bash", "-c", &script, &binary];
        let command = portdemux.command_through(&words, &["remove", "absent"]);
        let ended = run::run(command)?;
        ensure!(ended.code() == Some(1), "{redirected}: {ended:?}");
        ensure!(
            redirected.starts_with('2') || ended.stderr.starts_with("error: "),
            "{redirected}: {}",
            ended.stderr
        );
    }
    Ok(())
}

#[test]
fn a_terminal_that_takes_nothing_keeps_nobody_from_the_lock() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    // A reader that never reads, and a pipe that is full before the command writes its first line.
    let script = "{ head -c 65536 /dev/zero; exec \"$0\" \"$@\"; } | { sleep 600 & wait; }";
    let binary = cli::binary()?.display().to_string();
    let words = ["sh", "-c", script, &binary];
    let blocked = run::Running::spawn(
        portdemux.command_through(&words, &["add", "1/tcp", "--name", "unread"]),
    )?;
    portdemux_tests::wait::wait_until("the change", portdemux_tests::wait::PATIENCE, || {
        Ok(portdemux.stats()?.generation()? == 1)
    })?;
    portdemux.ok(&["add", "2/tcp"])?;
    ensure!(portdemux.stats()?.generation()? == 2);
    drop(blocked);
    Ok(())
}
