//! Changes: what is said of each, and that it is done.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    probe::Probe,
    require, run,
};

use crate::bed::{Told, without_time};

const BEFORE: &str = "\
# The rules of this host.

[[rule]]
name = \"telnet\"                # nobody needs it
port = \"23/tcp\"
to   = \"drop\"

[[rule]]
name    = \"https\"
port    = [ \"443/tcp\" ]   # QUIC later
address = \"192.0.2.2\"

[[rule]]
port = \"22/tcp\"
# the end
";

const AFTER: &str = "\
[[rule]]
port = \"22/tcp\"

[[rule]]
name    = \"https\"
port    = [\"443/tcp\", \"443/udp\"]
address = [\"192.0.2.2\", \"2001:db8::2\"]

[[rule]]
name = \"dns\"
port = [\"53/udp\", \"53/tcp\"]
";

const PLAN: &str = "\
+ dns     53/udp 53/tcp  any address → local
~ https   443/tcp → 443/tcp 443/udp, 192.0.2.2 → 192.0.2.2 2001:db8::2
- telnet  23/tcp
= 1 unchanged
";

/// An instance with [`BEFORE`] in force.
fn loaded(lab: &Lab) -> Result<Portdemux<'_>> {
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(BEFORE)?;
    Ok(portdemux)
}

/// Runs a change and returns what it said, without the time it took.
fn changed(portdemux: &Portdemux, words: &[&str]) -> Result<String> {
    let output = portdemux.ok(words)?;
    ensure!(output.stderr.is_empty(), "{}", output.stderr);
    without_time(&output.stdout).with_context(|| output.stdout.clone())
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let probe = Probe::new(&lab)?;
    probe.passing(&[7, 23, 53])?;
    let before = Told::by(&portdemux)?;
    let file = portdemux.rules_file(AFTER)?.display().to_string();
    let dry = portdemux.ok(&["apply", &file, "--dry-run"])?;
    assert_eq!(dry.stdout, format!("{PLAN}dry run: nothing was changed\n"));
    assert_eq!(dry.stderr, "");
    assert_eq!(Told::by(&portdemux)?, before);

    assert_eq!(
        changed(&portdemux, &["apply", &file])?,
        format!("{PLAN}generation 2, TIME, counters kept\n")
    );
    assert_eq!(portdemux.ok(&["export"])?.stdout, AFTER);
    // The same once more is no change, nor would it be one.
    let dry = portdemux.ok(&["apply", &file, "--dry-run"])?;
    assert_eq!(dry.stdout, "= 3 unchanged\ndry run: nothing was changed\n");
    assert_eq!(
        changed(&portdemux, &["apply", &file])?,
        "= 3 unchanged\ngeneration 2, TIME, counters kept\n"
    );
    Ok(())
}

#[test]
fn a_change_of_the_defaults_is_in_the_plan() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let text = format!("[default]\nmalformed = \"pass\"\n{BEFORE}");
    let file = portdemux.rules_file(&text)?.display().to_string();
    assert_eq!(
        changed(&portdemux, &["apply", &file])?,
        "~ [default]  malformed drop → pass\n= 3 unchanged\ngeneration 2, TIME, counters kept\n"
    );
    Ok(())
}

#[test]
fn a_long_plan_is_cut_in_the_middle() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let rule = |port: u16| format!("[[rule]]\nport = \"{port}/sctp\"\n");
    let text: String = (1..=300).map(rule).collect();
    let file = portdemux.rules_file(&text)?.display().to_string();
    let said = changed(&portdemux, &["apply", &file])?;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 20 + 1 + 2);
    assert_eq!(lines[0], "+ 1/sctp    1/sctp    any address → local");
    assert_eq!(lines[10], "… 283 more");
    assert_eq!(lines[20], "- 22/tcp    22/tcp");
    assert_eq!(lines[21], "= 0 unchanged");
    Ok(())
}

#[test]
fn counters_stay_with_their_rules_and_ports() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(
        "[[rule]]\nname = \"a\"\nport = \"7/udp\"\nto = \"drop\"\n[[rule]]\nname = \"b\"\nport = \
         \"8/udp\"\n",
    )?;
    probe.passing(&[7, 7, 8])?;
    let before = portdemux.stats()?;
    assert_eq!(before.rule("a")?.dropped.packets, 2);
    assert_eq!(before.rule("b")?.received.packets, 1);
    // `a` claims another port, `b` goes, `c` is new and claims the port that was `b`'s.
    portdemux.apply(
        "[[rule]]\nname = \"c\"\nport = \"8/udp\"\n[[rule]]\nname = \"a\"\nport = \"9/udp\"\n",
    )?;
    let after = portdemux.stats()?;
    assert_eq!(after.rule("a")?, before.rule("a")?);
    assert_eq!(after.rule("c")?.received.packets, 0);
    for port in ["7/udp", "8/udp"] {
        assert_eq!(after.port(port)?, before.port(port)?, "{port}");
    }
    assert_eq!(after.rule_of("8/udp")?.as_deref(), Some("c"));
    // A rule that comes back begins anew.
    portdemux.ok(&["add", "10/udp", "--name", "b"])?;
    assert_eq!(portdemux.stats()?.rule("b")?.received.packets, 0);
    Ok(())
}

#[test]
fn what_is_exported_and_applied_again_is_unchanged() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let export = portdemux.ok(&["export"])?.stdout;
    assert_eq!(export, BEFORE);
    let before = Told::by(&portdemux)?;
    let binary = cli::binary()?.display().to_string();
    let piped = |through: &str| -> Result<String> {
        let script = format!("\"$0\" export \"$@\" | {through} | \"$0\" apply - \"$@\"");
        let words = ["sh", "-c", &script, &binary];
        let output = run::run(portdemux.command_through::<&str>(&words, &[]))?.success()?;
        without_time(&output.stdout)
    };
    assert_eq!(
        piped("cat")?,
        "= 3 unchanged\ngeneration 1, TIME, counters kept\n"
    );
    let after = Told::by(&portdemux)?;
    assert_eq!(after, before);
    // The text came from no file.
    ensure!(portdemux.json(&["status"])?["source"].is_null());
    assert_eq!(
        piped("sed s,23/tcp,24/tcp,")?,
        "~ telnet  23/tcp → 24/tcp\n= 2 unchanged\ngeneration 2, TIME, counters kept\n"
    );
    assert_eq!(
        portdemux.ok(&["export"])?.stdout,
        BEFORE.replace("23/tcp", "24/tcp")
    );
    Ok(())
}

#[test]
fn adding_and_removing_leave_every_other_byte_of_the_text_alone() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = loaded(&lab)?;
    let export = || Ok::<_, anyhow::Error>(portdemux.ok(&["export"])?.stdout);
    let ports = ["8000-8999/tcp", "53/udp"];
    let add = [&["add"], &ports[..], &["--name", "more", "--to", "drop"]].concat();
    assert_eq!(
        changed(&portdemux, &add)?,
        "+ more  8000-8999/tcp 53/udp  any address → drop\n= 3 unchanged\ngeneration 2, TIME, \
         counters kept\n"
    );
    let added = "\n[[rule]]\nname = \"more\"\nport = [\"8000-8999/tcp\", \"53/udp\"]\nto   = \
                 \"drop\"\n";
    assert_eq!(export()?, format!("{BEFORE}{added}"));
    assert_eq!(
        changed(&portdemux, &["remove", "53/udp"])?,
        "~ more  8000-8999/tcp 53/udp → 8000-8999/tcp\n= 3 unchanged\ngeneration 3, TIME, counters \
         kept\n"
    );
    assert_eq!(
        changed(&portdemux, &["remove", "more"])?,
        "- more  8000-8999/tcp\n= 3 unchanged\ngeneration 4, TIME, counters kept\n"
    );
    assert_eq!(export()?, BEFORE);

    assert_eq!(
        changed(&portdemux, &["remove", "telnet"])?,
        "- telnet  23/tcp\n= 2 unchanged\ngeneration 5, TIME, counters kept\n"
    );
    let (before, rest) = BEFORE.split_once("[[rule]]").context("no rule")?;
    let (_, rest) = rest.split_once("[[rule]]").context("no second rule")?;
    assert_eq!(export()?, format!("{before}[[rule]]{rest}"));
    assert_eq!(
        changed(&portdemux, &["remove", "22/tcp", "https"])?,
        "- https   443/tcp\n- 22/tcp  22/tcp\n= 0 unchanged\ngeneration 6, TIME, counters kept\n"
    );
    let text = export()?;
    ensure!(text.contains("# The rules of this host."), "{text}");
    let rules = portdemux.json(&["rules"])?;
    assert_eq!(rules["rules"].as_array().map(Vec::len), Some(0));
    Ok(())
}
