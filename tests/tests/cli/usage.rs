//! Command lines that make no sense.

use std::process::Command;

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli,
    lab::{INTERFACE, Lab},
    require, run,
};

use crate::bed::{Told, busy, refused};

/// What stands below every message about wrong usage.
const MORE: &str = "\n\nFor more information, try '--help'.\n";

#[test]
fn an_argument_that_makes_no_sense_is_told_with_a_way_out_and_changes_nothing() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    let ports = |of: &str, message: &str, help: &str| {
        format!("error: invalid value {of}: {message}\n help: {help}{MORE}")
    };
    for (argument, message, help) in [
        (
            "443",
            "`443` names no protocol",
            "write 443/tcp, 443/udp or 443/sctp",
        ),
        (
            "http",
            "`http` names no protocol",
            "write PORT/PROTOCOL or FIRST-LAST/PROTOCOL, as in 443/tcp",
        ),
        (
            "9-3/tcp",
            "`9-3/tcp` is a reversed range",
            "write the lower port first: 3-9/tcp",
        ),
        (
            "65536/tcp",
            "`65536/tcp`: port 65536 is out of range",
            "ports go from 0 to 65535",
        ),
        (
            "1-65536/udp",
            "`1-65536/udp`: port 65536 is out of range",
            "ports go from 0 to 65535",
        ),
        (
            "http/tcp",
            "`http/tcp`: `http` is not a port number",
            "ports are decimal numbers, as in 443/tcp or 8000-8999/tcp",
        ),
        (
            "1/icmp",
            "`1/icmp` names the unknown protocol `icmp`",
            "the protocols are tcp, udp and sctp",
        ),
    ] {
        let told = refused(&portdemux, &before, 2, &["add", "1/tcp", argument])?;
        assert_eq!(
            told,
            ports(&format!("'{argument}' for '<PORT>...'"), message, help)
        );
        let told = refused(&portdemux, &before, 2, &["stats", argument])?;
        assert_eq!(
            told,
            ports(&format!("'{argument}' for '[PORT]...'"), message, help)
        );
    }
    for (argument, message, help) in [
        (
            "here",
            "`here` is not an IP address",
            "write it as in 203.0.113.10 or 2001:db8::10",
        ),
        (
            "10.0.0.0/8",
            "`10.0.0.0/8` is more than one address",
            "list the addresses one by one, or leave `address` out for any",
        ),
    ] {
        let told = refused(
            &portdemux,
            &before,
            2,
            &["add", "1/tcp", "--address", argument],
        )?;
        let of = format!("'{argument}' for '--address <ADDRESS>'");
        assert_eq!(told, ports(&of, message, help));
    }
    let told = refused(&portdemux, &before, 2, &["add", "1/tcp", "--to", "nowhere"])?;
    assert_eq!(
        told,
        ports(
            "'nowhere' for '--to <DESTINATION>'",
            "unknown destination `nowhere`",
            "the destinations are local, drop, reject, socket:…, interface:…, cpu:… and xsk:…"
        )
    );
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    for (arguments, said) in [
        (
            &["frobnicate"][..],
            "error: unrecognized subcommand 'frobnicate'\n\nUsage: portdemux [OPTIONS] <COMMAND>",
        ),
        (
            &["statu"],
            "error: unrecognized subcommand 'statu'\n\n  tip: some similar subcommands exist: \
             'stats', 'status'\n\nUsage: portdemux [OPTIONS] <COMMAND>",
        ),
        (
            &["status", "--jsno"],
            "error: unexpected argument '--jsno' found\n\n  tip: a similar argument exists: \
             '--json'\n\nUsage: portdemux status --json",
        ),
        (
            &["export", "file"],
            "error: unexpected argument 'file' found\n\nUsage: portdemux export [OPTIONS]",
        ),
        (
            &["add", "--name", "web"],
            "error: the following required arguments were not provided:\n  <PORT>...\n\nUsage: \
             portdemux add --name <NAME> <PORT>...",
        ),
        (
            &["remove"],
            "error: the following required arguments were not provided:\n  <PORT|NAME>...\n\nUsage: \
             portdemux remove <PORT|NAME>...",
        ),
        (
            &["apply", "--dry-run"],
            "error: the following required arguments were not provided:\n  <FILE>\n\nUsage: portdemux \
             apply --dry-run <FILE>",
        ),
        (
            &["detach"],
            "error: the following required arguments were not provided:\n  <IFACE>...\n\nUsage: \
             portdemux detach [OPTIONS] IFACE...\n       portdemux detach [OPTIONS] --all\n       portdemux \
             detach --all-instances",
        ),
        (
            &["detach", INTERFACE, "--all"],
            "error: the argument '[IFACE]...' cannot be used with '--all'\n\nUsage: portdemux detach \
             [OPTIONS] IFACE...\n       portdemux detach [OPTIONS] --all\n       portdemux detach \
             --all-instances",
        ),
        (
            &["attach", INTERFACE, "--mode", "fast"],
            "error: invalid value 'fast' for '--mode <MODE>'\n  [possible values: auto, native, \
             generic]",
        ),
        (
            &["stats", "--watch", "0"],
            "error: invalid value '0' for '--watch [<TIME>]': write seconds, or a number and its unit, \
             from 50ms to 24h",
        ),
        (
            &["stats", "--watch", "443/tcp"],
            "error: invalid value '443/tcp' for '--watch [<TIME>]': ports stand before --watch",
        ),
        (
            &["explain", "tcp", "192.0.2.1:1024"],
            "error: the following required arguments were not provided:\n  <DST:PORT>\n\nUsage: \
             portdemux explain [OPTIONS] PROTO SRC:PORT DST:PORT\n       portdemux explain [OPTIONS] \
             --pcap FILE",
        ),
        (
            &["explain", "--pcap", "frames.pcap", "--log"],
            "error: the following required arguments were not provided:\n  --kernel\n\nUsage: \
             portdemux explain [OPTIONS] PROTO SRC:PORT DST:PORT\n       portdemux explain [OPTIONS] \
             --pcap FILE",
        ),
        (
            &["explain", "tcp", "192.0.2.1", "192.0.2.2:80"],
            "error: invalid value '192.0.2.1' for '[SRC:PORT]': a port is missing: write \
             ADDRESS:PORT, as in 192.0.2.1:443",
        ),
        (
            &["explain", "tcp", "192.0.2.1:1024", "[2001:db8::2]:80"],
            "error: 192.0.2.1 and 2001:db8::2 are of different versions of IP: no packet goes from one \
             to the other\n\nUsage: portdemux explain [OPTIONS] PROTO SRC:PORT DST:PORT\n       portdemux \
             explain [OPTIONS] --pcap FILE",
        ),
    ] {
        // The flag is the harness's.
        let told = refused(&portdemux, &before, 2, arguments)?.replace(" --instance <NAME>", "");
        assert_eq!(told.strip_suffix(MORE), Some(said), "{arguments:?}: {told}");
    }
    Ok(())
}

#[test]
fn a_value_is_proposed_only_where_it_is_near() -> Result<()> {
    for (value, is_near) in [("icmp", false), ("tcpp", true)] {
        let mut command = Command::new(cli::binary()?);
        command.args(["explain", value, "192.0.2.1:1024", "192.0.2.2:80"]);
        let said = run::run(command)?.stderr;
        let tip = "\n  tip: a similar value exists: 'tcp'\n";
        ensure!(
            said.contains("\n  [possible values: tcp, udp, sctp]\n")
                && said.contains(tip) == is_near,
            "{said}"
        );
    }
    Ok(())
}

/// What `--confirm` starts is no verb for people.
#[test]
fn a_process_of_our_own_is_neither_listed_nor_proposed() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let before = Told::by(&portdemux)?;
    for (arguments, said) in [
        (
            &[][..],
            "error: 'portdemux' requires a subcommand but one was not provided\n  [subcommands: attach, \
             detach, apply, add, remove, set, promote, confirm, upgrade, export, save, status, rules, stats, \
             flows, listeners, socket, follow, explain, help]\n\nUsage: portdemux [OPTIONS] <COMMAND>",
        ),
        (
            &["guar"],
            "error: unrecognized subcommand 'guar'\n\nUsage: portdemux [OPTIONS] <COMMAND>",
        ),
    ] {
        let told = refused(&portdemux, &before, 2, arguments)?;
        assert_eq!(told.strip_suffix(MORE), Some(said), "{arguments:?}: {told}");
    }
    Ok(())
}

#[test]
fn the_name_of_an_instance_cannot_lead_elsewhere() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (mut portdemux, _) = busy(&lab)?;
    for name in ["", ".", "..", "a/b", "a b", "ä", &"a".repeat(33)] {
        portdemux.set_instance(name);
        let output = run::run(portdemux.command(&["detach", "--all"]))?;
        ensure!(output.code() == Some(2), "{name}: {:?}", output.code());
        assert_eq!(
            output.stderr,
            format!(
                "error: invalid value '{name}' for '--instance <NAME>': an instance's name has 1 to 32 \
                 letters, digits, - and _{MORE}"
            )
        );
    }
    portdemux.set_instance("default");
    portdemux.ok(&["status"])?;
    Ok(())
}
