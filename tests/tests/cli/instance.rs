//! Commands that messages name: typed as they stand, they mean the instance that the message is about.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    require,
};

const NAME: &str = "lan";

const RULES: &str = "\
[sets]
banned = [\"192.0.2.66\"]

[[rule]]
name = \"web\"
port = \"80/tcp\"
deny = \"@banned\"
";

/// Checks that a text names a command, and no command for another instance.
fn check(words: &[&str], said: &str) -> Result<()> {
    const COMMAND: &str = "portdemux ";
    let named = said.match_indices(COMMAND);
    let named: Vec<&str> = named.map(|(at, _)| &said[at + COMMAND.len()..]).collect();
    ensure!(!named.is_empty(), "{words:?} names no command: {said}");
    let option = format!("--instance {NAME} ");
    ensure!(
        named.iter().all(|rest| rest.starts_with(&option)),
        "{words:?}: {said}"
    );
    Ok(())
}

#[test]
fn no_message_names_a_command_that_means_another_instance() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let mut portdemux = Portdemux::new(&lab.server)?;
    portdemux.set_instance(NAME);
    let file = portdemux.rules_file(RULES)?.display().to_string();
    let capture = portdemux.state().join("frames.gz");
    fs::write(&capture, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0])?;
    let capture = capture.to_str().context("a path")?;
    // With its exit status.
    let said = |status: i32, words: &[&str]| -> Result<()> {
        let output = portdemux.run(words)?;
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(output.code() == Some(status), "{words:?}: {said}");
        check(words, &said)
    };
    said(3, &["status"])?;
    said(3, &["attach"])?;
    said(3, &["explain", "tcp", "192.0.2.1:1", "192.0.2.2:80"])?;
    said(1, &["explain", "--pcap", capture])?;
    said(1, &["attach", "--rules", &file])?;
    said(1, &["attach", "--rules", &file, "--wait"])?;
    said(0, &["attach", INTERFACE])?;
    said(1, &["attach"])?;
    said(1, &["save"])?;
    said(0, &["apply", &file, "--confirm", "1h"])?;
    said(0, &["status"])?;
    for words in [
        &["add", "443/tcp"][..],
        &["remove", "web"],
        &["set", "add", "banned", "192.0.2.7"],
    ] {
        said(1, words)?;
    }
    portdemux.ok(&["confirm"])?;
    said(0, &["save"])?;
    said(0, &["status"])?;
    portdemux.ok(&["add", "443/tcp", "--name", "more"])?;
    said(0, &["status"])?;
    for words in [
        &["remove", "absent"][..],
        &["remove", "9/tcp"],
        &["promote", "absent"],
        &["set", "remove", "banned", "192.0.2.9"],
        &["set", "add", "banned", "192.0.2.64/29"],
        &["socket", "remove", "absent"],
        &["detach", "absent"],
        &["attach", INTERFACE, "--mode", "generic"],
    ] {
        said(1, words)?;
    }
    said(
        0,
        &[
            "add",
            "7/udp",
            "--to",
            "interface:absent0",
            "--name",
            "elsewhere",
        ],
    )?;
    lab.server.ip(&[
        "link", "add", "gone0", "type", "veth", "peer", "name", "gone1",
    ])?;
    portdemux.ok(&["attach", "gone0"])?;
    lab.server.ip(&["link", "delete", "gone0"])?;
    said(0, &["status"])?;
    lab.server.ip(&[
        "link", "add", "gone0", "type", "veth", "peer", "name", "gone1",
    ])?;
    said(0, &["status"])?;
    portdemux.ok(&["detach", "gone0"])?;
    said(0, &["detach", INTERFACE])?;
    Ok(())
}
