//! What tables look like: on a terminal they fit it, elsewhere nothing is left out.

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require, run, terminal,
};

use crate::bed::busy;

/// The nouns with tables.
const NOUNS: [&str; 3] = ["stats", "rules", "status"];

const STATS_IN_80_COLUMNS: &str = "\
PORT            RULE                             RECEIVED  BYTES  PKT/S  DROPPED
20/udp          a-rule-with-a-name-that-is-rat…         3  150 B      0        3
30/udp          –                                       2  100 B      0        0
10/udp          –                                       1   50 B      0        0
9/tcp           quiet                                   0    0 B      0        0
1000-1999/sctp  a-rule-with-a-name-that-is-rat…         0    0 B      0        0
3000-3999/sctp  a-rule-with-a-name-that-is-rat…         0    0 B      0        0

RULE                                                RECEIVED  BYTES  DROPPED
a-rule-with-a-name-that-is-rather-long-for-a-table         3  150 B        3
quiet                                                      0    0 B        0

REASON     PACKETS  BYTES
unclaimed        3  150 B
rule_drop        3  150 B
non_ip           1   60 B
left out for want of room: LISTENER, WHY; a wider terminal or --json has them
";

const RULES_IN_80_COLUMNS: &str = "\
RULE                        PORTS                       TO     RECEIVED  DROPPED
a-rule-with-a-name-that-i…  20/udp 1000-1999/sctp 300…  drop          3        3
quiet                       9/tcp                       local         0        0
left out for want of room: ADDRESS, LISTENER, BYTES; see --json
";

/// Two rules for one port, of which one rejects nothing.
const ALIKE: &str = "\
[[rule]]
name = \"site\"
port = \"443/tcp\"
address = \"192.0.2.2\"
from = \"198.51.100.0/24\"

[[rule]]
name = \"rejected-for-now\"
port = \"443/tcp\"
address = \"192.0.2.3\"
to = \"reject\"
shadow = true
";

const ALIKE_IN_80_COLUMNS: &str = "\
RULE              PORTS    ADDRESS    FROM             TO      TERMS   RECEIVED
site              443/tcp  192.0.2.2  198.51.100.0/24  local   –              0
rejected-for-now  443/tcp  192.0.2.3  any              reject  shadow         0
left out for want of room: LISTENER, BYTES, DROPPED; see --json
";

const ALIKE_IN_100_COLUMNS: &str = "\
RULE              PORTS    ADDRESS    FROM             TO      TERMS   RECEIVED  BYTES  DROPPED
site              443/tcp  192.0.2.2  198.51.100.0/24  local   –              0    0 B        0
rejected-for-now  443/tcp  192.0.2.3  any              reject  shadow         0    0 B        0
left out for want of room: LISTENER; a wider terminal or --json has them
";

const STATS_IN_A_PIPE: &str = "\
PORT            RULE                                                LISTENER  RECEIVED  BYTES  PKT/S  DROPPED  WHY
20/udp          a-rule-with-a-name-that-is-rather-long-for-a-table  –                3  150 B      0        3  rule_drop
30/udp          –                                                   –                2  100 B      0        0  unclaimed
10/udp          –                                                   –                1   50 B      0        0  unclaimed
9/tcp           quiet                                               –                0    0 B      0        0  –
1000-1999/sctp  a-rule-with-a-name-that-is-rather-long-for-a-table  –                0    0 B      0        0  rule_drop
3000-3999/sctp  a-rule-with-a-name-that-is-rather-long-for-a-table  –                0    0 B      0        0  rule_drop

RULE                                                RECEIVED  BYTES  DROPPED
a-rule-with-a-name-that-is-rather-long-for-a-table         3  150 B        3
quiet                                                      0    0 B        0

REASON     PACKETS  BYTES
unclaimed        3  150 B
rule_drop        3  150 B
non_ip           1   60 B
";

const RULES_IN_A_PIPE: &str = "\
RULE                                                PORTS                                 ADDRESS  TO     LISTENER  RECEIVED  BYTES  DROPPED
a-rule-with-a-name-that-is-rather-long-for-a-table  20/udp 1000-1999/sctp 3000-3999/sctp  any      drop   –                3  150 B        3
quiet                                               9/tcp                                 any      local  –                0    0 B        0
";

const STATUS_IN_A_PIPE: &str = "\
default   generation 1   2 rules   FILE (in sync)
INTERFACE  HOOK        PACKETS  PACKETS/S  BITS/S  DROPPED/S
wire0      xdp native        7          0       0          0
";

/// What `status` says, without what is different on each machine.
fn without_memory(text: &str) -> Result<String> {
    let (before, memory) = text.split_once("kernel memory ").context("no memory")?;
    let version = env!("CARGO_PKG_VERSION");
    ensure!(
        memory.ends_with(&format!(" MiB   program {version} = binary\n")),
        "{memory}"
    );
    Ok(before.to_owned())
}

#[test]
fn in_a_pipe_nothing_is_left_out() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    assert_eq!(portdemux.ok(&["stats"])?.stdout, STATS_IN_A_PIPE);
    assert_eq!(portdemux.ok(&["rules"])?.stdout, RULES_IN_A_PIPE);
    let status = without_memory(&portdemux.ok(&["status"])?.stdout)?;
    let file = portdemux.state().join("rules-under-test.toml");
    assert_eq!(
        status.replace(&file.display().to_string(), "FILE"),
        STATUS_IN_A_PIPE
    );
    Ok(())
}

#[test]
fn on_a_terminal_of_80_columns_tables_shed_columns_and_cut_long_words() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let shown = terminal::run(portdemux.command(&["stats"]), 80)?;
    assert_eq!(shown.text, STATS_IN_80_COLUMNS);
    let shown = terminal::run(portdemux.command(&["rules"]), 80)?;
    assert_eq!(shown.text, RULES_IN_80_COLUMNS);
    Ok(())
}

#[test]
fn what_a_rule_is_gives_way_after_what_it_counted_and_what_gave_way_is_named() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply(ALIKE)?;
    for (columns, expected) in [(80, ALIKE_IN_80_COLUMNS), (100, ALIKE_IN_100_COLUMNS)] {
        let shown = terminal::run(portdemux.command(&["rules"]), columns)?;
        assert_eq!(shown.text, expected);
    }
    let shown = terminal::run(portdemux.command(&["rules"]), 120)?;
    ensure!(!shown.text.contains("left out"), "{}", shown.text);
    Ok(())
}

#[test]
fn on_a_terminal_every_table_fits() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    // As long a name as there can be, in words of more than one byte, with many ports and addresses.
    let name = "ä".repeat(32);
    let ports: Vec<String> = (1..=50)
        .map(|port| format!("\"{}/tcp\"", port * 1000))
        .collect();
    let addresses: Vec<String> = (1..=20)
        .map(|host| format!("\"2001:db8::{host}\""))
        .collect();
    portdemux.apply(&format!(
        "[[rule]]\nname = \"{name}\"\nport = [{}]\naddress = [{}]\n",
        ports.join(", "),
        addresses.join(", ")
    ))?;
    for noun in NOUNS {
        for columns in [60, 80, 132] {
            let shown = terminal::run(portdemux.command(&[noun]), columns)?;
            ensure!(shown.status.success(), "{}", shown.text);
            // The file that the rules came from is no table's.
            let table = shown.text.lines().filter(|line| !line.contains(".toml"));
            let widest = table.map(|line| line.chars().count()).max();
            ensure!(
                widest <= Some(usize::from(columns)),
                "{noun} on {columns} columns takes {widest:?}:\n{}",
                shown.text
            );
        }
    }
    // Nothing is shed that has room.
    let shown = terminal::run(portdemux.command(&["stats", "1000/tcp"]), 132)?;
    let head = shown.text.lines().next().unwrap_or_default();
    ensure!(head.ends_with("  DROPPED  WHY"), "{head}");
    Ok(())
}

#[test]
fn names_of_wide_characters_align() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let said = portdemux.apply(
        "[[rule]]\nname = \"网关\"\nport = \"80/tcp\"\n[[rule]]\nname = \"web\"\nport = \"443/tcp\"\n",
    )?;
    let plan = "\
+ 网关  80/tcp   any address → local
+ web   443/tcp  any address → local
";
    ensure!(said.stdout.starts_with(plan), "{}", said.stdout);
    let table = "\
RULE  PORTS    ADDRESS  TO     LISTENER  RECEIVED  BYTES  DROPPED
网关  80/tcp   any      local  –                0    0 B        0
web   443/tcp  any      local  –                0    0 B        0
";
    assert_eq!(portdemux.ok(&["rules"])?.stdout, table);
    Ok(())
}

#[test]
fn there_is_colour_on_a_terminal_unless_it_is_not_wanted() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let command = |words: &[&str], no_color: Option<&str>| {
        let mut command = portdemux.command(words);
        command.env_remove("NO_COLOR");
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        command
    };
    // https://no-color.org: set, and not to nothing.
    for (no_color, has_colour) in [(None, true), (Some(""), true), (Some("1"), false)] {
        for noun in NOUNS {
            let shown = terminal::run(command(&[noun], no_color), 80)?;
            ensure!(
                shown.text.contains("\x1b[1m") == has_colour,
                "{noun}, {no_color:?}: {}",
                shown.text
            );
            // It carries nothing: the text is the same.
            if no_color.is_none() {
                let plain = terminal::run(command(&[noun], Some("1")), 80)?;
                assert_eq!(shown.screen.lines(), plain.screen.lines());
            }
        }
        let shown = terminal::run(command(&["attach", "eth9"], no_color), 80)?;
        let error = if has_colour {
            "\x1b[1;31merror:\x1b[0m "
        } else {
            "error: "
        };
        ensure!(
            shown.text.starts_with(error),
            "{no_color:?}: {}",
            shown.text
        );
    }
    for words in [&["stats"][..], &["rules"], &["status"], &["attach", "eth9"]] {
        let output = run::run(command(words, None))?;
        ensure!(
            !output.stdout.contains('\x1b') && !output.stderr.contains('\x1b'),
            "{words:?} is coloured in a pipe: {}{}",
            output.stdout,
            output.stderr
        );
    }
    Ok(())
}
