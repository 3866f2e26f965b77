//! Mistakes in rules: what is said about each, and that nothing comes of it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    frames::SERVER_V4,
    lab::{INTERFACE, Lab},
    require,
};

use crate::bed::{Told, busy, refused};

/// A file and what is said about it.
struct Row {
    text: &'static str,
    said: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        text: "[[rule]]\nname = \"web\"\nprot = \"443/tcp\"\n",
        said: "error: unknown key `prot` in a rule\n  prot = \"443/tcp\"  FILE:3\n help: did you mean \
               `port`; nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nname = \"web\"\nport = \"443/tcp\"\ncolour = \"red\"\n",
        said: "error: unknown key `colour` in a rule\n  colour = \"red\"  FILE:4\n help: a rule has the \
               keys name, port, address, from, deny, to, fallback, mac, queue, connections, role, rate, burst, per, \
               new_rate, new_burst, shadow; nothing was changed\n",
    },
    Row {
        text: "[defaults]\nmalformed = \"pass\"\n",
        said: "error: unknown table `defaults`\n  [defaults]  FILE:1\n help: did you mean [default]; \
               nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nport = \"http\"\n",
        said: "error: `http` names no protocol\n  port = \"http\"  FILE:2\n help: write PORT/PROTOCOL or \
               FIRST-LAST/PROTOCOL, as in 443/tcp; nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nport = 443\n",
        said: "error: `port` takes text, not a number\n  port = 443  FILE:2\n help: write 443/tcp, \
               443/udp or 443/sctp, in quotes; nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nport = \"90-80/tcp\"\n",
        said: "error: `90-80/tcp` is a reversed range\n  port = \"90-80/tcp\"  FILE:2\n help: write the \
               lower port first: 80-90/tcp; nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nport = \"65536/udp\"\n",
        said: "error: `65536/udp`: port 65536 is out of range\n  port = \"65536/udp\"  FILE:2\n help: \
               ports go from 0 to 65535; nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nname = \"web\"\nport = \"1/tcp\"\n\n[[rule]]\nname = \"web\"\nport = \"2/tcp\"\n",
        said: "error: two rules are called `web`\n  web  1/tcp  FILE:1\n  web  2/tcp  FILE:5\n help: \
               give one another name; nothing was changed\n",
    },
    Row {
        text: "# two\n[[rule]]\nname = \"web\"\nport = \"8000-8100/tcp\"\n\n[[rule]]\nname = \
               \"admin\"\nport = \"8050-8200/tcp\"\n",
        said: "error: two rules claim the same entry points\n  web    8000-8100/tcp  FILE:2\n  admin  \
               8050-8200/tcp  FILE:6\n  both claim 8050-8100/tcp and neither is more specific\n help: \
               give one an address or split a range; nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nname = \"web\"\nport = \"1/tcp\"\nto = \"lcoal\"\n",
        said: "error: unknown destination `lcoal`\n  to = \"lcoal\"  FILE:4\n help: did you mean to = \
               \"local\"; nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nname = \"web\"\nport = \"1/tcp\"\naddress = \"10.0.0.0/8\"\n",
        said: "error: `10.0.0.0/8` is more than one address\n  address = \"10.0.0.0/8\"  FILE:4\n help: \
               list the addresses one by one, or leave `address` out for any; nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nname = \"web\"\n",
        said: "error: a rule without `port`\n  [[rule]]  FILE:1\n help: say which ports it claims, as \
               in port = \"443/tcp\"; nothing was changed\n",
    },
    Row {
        text: "[default]\nmalformed = \"pas\"\n[[rule]]\nport = \"1-/tcp\"\n",
        said: "error: `malformed` cannot be `pas`\n  malformed = \"pas\"  FILE:2\n help: did you mean \
               \"pass\"\nerror: `1-/tcp`: `` is not a port number\n  port = \"1-/tcp\"  FILE:4\n \
               help: ports are decimal numbers, as in 443/tcp or 8000-8999/tcp\n2 errors; nothing was \
               changed\n",
    },
    Row {
        text: "[sets]\noffice = \"192.0.2.0/24\"\n[[rule]]\nport = \"1/tcp\"\nfrom = \"@ofice\"\n",
        said: "error: no set is called `ofice`\n  1/tcp  from @ofice  FILE:3\n help: did you mean @office; \
               nothing was changed\n",
    },
    Row {
        text: "[sets]\noffice = \"192.0.2.7/24\"\n",
        said: "error: `192.0.2.7/24` has bits set behind its first 24\n  office = \"192.0.2.7/24\"  \
               FILE:2\n help: write 192.0.2.0/24, or 192.0.2.7 for the one address; nothing was \
               changed\n",
    },
    Row {
        text: "[[rule]]\nport = \"1/tcp\"\nfrom = []\n",
        said: "error: `from` is an empty list\n  from = []  FILE:3\n help: leave `from` out for \
               anyone, or write to = \"drop\" to let none in; nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nport = \"1/tcp\"\nburst = 5\n",
        said: "error: `burst` without `rate`\n  1/tcp  1/tcp  FILE:1\n help: leave `burst` out, or add a \
               rate, as in rate = \"1000/s\"; nothing was changed\n",
    },
    Row {
        text: "[flows]\ntrack = false\n[[rule]]\nport = \"1/tcp\"\nnew_rate = \"10/m\"\n",
        said: "error: `track = false`, but `new_rate = \"10/m\"` needs the state of flows\n  track = \
               false  FILE:2\n  1/tcp          new_rate = \"10/m\"  FILE:3\n help: leave \
               `track` out: flows are tracked where something needs them; nothing was changed\n",
    },
    Row {
        text: "[[rule]]\nport = \"1/tcp\n",
        said: "error: invalid basic string\n  port = \"1/tcp  FILE:2\n help: expected `\"`; nothing was \
               changed\n",
    },
];

#[test]
fn every_mistake_in_a_file_is_told_with_its_line_and_a_way_out_and_changes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    for Row { text, said } in ROWS {
        let file = portdemux.rules_file(text)?.display().to_string();
        let said = said.replace("FILE", &file);
        for command in [
            &["apply", &file][..],
            &["apply", &file, "--dry-run"],
            &["attach", INTERFACE, "--rules", &file],
        ] {
            let told = refused(&portdemux, &before, 1, command).context(*text)?;
            assert_eq!(told, said, "{command:?}");
        }
        // Who asks what would be is told the same, but not that nothing was changed.
        let packet = ["explain", "tcp", "192.0.2.1:1024", "192.0.2.2:80"];
        let explain = [&packet[..], &["--rules", &file]].concat();
        let told = refused(&portdemux, &before, 1, &explain)?;
        assert_eq!(told, said.replace("; nothing was changed", ""));
    }
    Ok(())
}

#[test]
fn a_file_that_cannot_be_read_is_named() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    let directory = portdemux.state().display().to_string();
    let absent = format!("{directory}/absent.toml");
    let binary = format!("{directory}/binary.toml");
    fs::write(&binary, [0xff, 0xfe])?;
    // These would be read to the end of the machine's memory, or of time.
    let zeroes = "/dev/zero".to_owned();
    let huge = format!("{directory}/huge.toml");
    fs::File::create(&huge)?.set_len(1 << 40)?;
    for (file, why) in [
        (&absent, "No such file or directory (os error 2)"),
        (&directory, "Is a directory (os error 21)"),
        (&binary, "it is no text: byte 1 is not UTF-8"),
        (&zeroes, "it is no text: there is a zero byte in it"),
        (&huge, "it is larger than 256 MiB"),
    ] {
        let said = format!(
            "error: read {file}: {why}\n help: a rules file is a file of text, - is standard input"
        );
        for command in [
            &["apply", file][..],
            &["apply", file, "--dry-run"],
            &["attach", INTERFACE, "--rules", file],
        ] {
            let told = refused(&portdemux, &before, 1, command)?;
            assert_eq!(
                told,
                format!("{said}; nothing was changed\n"),
                "{command:?}"
            );
        }
        let packet = ["explain", "tcp", "192.0.2.1:1024", "192.0.2.2:80"];
        let told = refused(
            &portdemux,
            &before,
            1,
            &[&packet[..], &["--rules", file]].concat(),
        )?;
        assert_eq!(told, format!("{said}\n"));
    }
    Ok(())
}

#[test]
fn an_attach_with_a_mistake_in_its_rules_leaves_nothing_behind() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let file = portdemux.rules_file("[[rule]]\nport = \"1-/tcp\"\n")?;
    let file = file.display().to_string();
    portdemux.fails(1, &["attach", INTERFACE, "--rules", &file])?;
    portdemux.fails(3, &["status"])?;
    ensure!(!portdemux.pins().exists() && portdemux.records()?.is_empty());
    let link = lab.server.ip(&["link", "show", INTERFACE])?.stdout;
    ensure!(!link.contains("xdp"), "{link}");
    Ok(())
}

#[test]
fn a_clash_with_the_rules_in_force_names_both_and_changes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.apply("[[rule]]\nname = \"web\"\nport = \"80-90/tcp\"\n")?;
    let before = Told::by(&portdemux)?;
    for (command, said) in [
        (
            &["add", "80-90/tcp", "--name", "other"][..],
            "error: two rules claim the same entry points\n  web    80-90/tcp  in force\n  \
             other  80-90/tcp  the rule you add\n  both claim 80-90/tcp and neither is more specific\n help: remove one, or give one an \
             address; nothing was changed\n",
        ),
        (
            &["add", "85-95/tcp", "--name", "other"],
            "error: two rules claim the same entry points\n  web    80-90/tcp  in force\n  \
             other  85-95/tcp  the rule you add\n  both claim 85-90/tcp and neither is more specific\n help: give one an address or split a \
             range; nothing was changed\n",
        ),
        (
            &["add", "1/tcp", "--name", "web"],
            "error: two rules are called `web`\n  web  80-90/tcp  in force\n  web  1/tcp      \
             the rule you add\n help: give one another \
             name; nothing was changed\n",
        ),
        (
            &["add", "1/tcp", "--name", "two words"],
            "error: the name `two words` holds ' '\n  name = \"two words\"  the rule you add\n help: names have no spaces and no invisible characters, as in web-8080; nothing \
             was changed\n",
        ),
        (
            &["remove", "other"],
            "error: no rule is called `other`\n help: portdemux rules lists them; ports are written as \
             in 443/tcp; nothing was changed\n",
        ),
        (
            &["remove", "91/tcp"],
            "error: no rule claims 91/tcp\n help: portdemux rules lists what is claimed; nothing was \
             changed\n",
        ),
        (
            &["remove", "85/tcp"],
            "error: 85/tcp is only a part of a range\n  web  80-90/tcp  in force\n help: \
             remove 80-90/tcp, split it in the file, or claim 85/tcp with another rule; nothing was \
             changed\n",
        ),
        (
            // Of several nothing is removed if one is not there.
            &["remove", "web", "other"],
            "error: no rule is called `other`\n help: portdemux rules lists them; ports are written as \
             in 443/tcp; nothing was changed\n",
        ),
    ] {
        assert_eq!(
            refused(&portdemux, &before, 1, command)?,
            said,
            "{command:?}"
        );
    }
    // A claim that is more specific is no clash.
    portdemux.ok(&["add", "80-90/tcp", "--address", &SERVER_V4.to_string()])?;
    portdemux.ok(&["add", "0-1023/tcp", "--to", "drop"])?;
    portdemux.ok(&["add", "85/tcp"])?;
    Ok(())
}
