//! What is said about sockets that cannot be had.

use std::{
    fs::{self, Permissions},
    net::TcpStream,
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::fs::PermissionsExt as _,
    },
};

use anyhow::{Result, ensure};
use portdemux_tests::{cli::Portdemux, netns::Netns};

use crate::bed::{self, have, rule};

#[test]
fn what_is_no_socket_to_hand_packets_to_is_refused_and_nothing_is_left() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let (namespace, other) = (Netns::new("mistakes")?, Netns::new("other")?);
    let portdemux = Portdemux::new(&namespace)?;
    let listener = bed::listen(&namespace, "127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let connected = namespace.enter(|| Ok(TcpStream::connect(at)?))?;
    let peer = bed::bind(&namespace, "127.0.0.1:0")?;
    let elsewhere = bed::listen(&other, "127.0.0.1:0")?;
    let datagrams = bed::bind(&namespace, "127.0.0.1:0")?;
    datagrams.connect(peer.local_addr()?)?;
    let file = fs::File::open("/dev/null")?;
    let pid = std::process::id().to_string();
    let number = |socket: &dyn AsFd| socket.as_fd().as_raw_fd().to_string();
    let rows = [
        (pid.as_str(), number(&file), "it is no socket"),
        (
            &pid,
            number(&connected),
            "a TCP socket that does not listen",
        ),
        (&pid, number(&datagrams), "a UDP socket that is connected"),
        (&pid, number(&elsewhere), "of another network namespace"),
        (&pid, "999999".into(), "has no descriptor 999999"),
        ("4194303", "3".into(), "there is no process 4194303"),
    ];
    for (pid, descriptor, error) in rows {
        let command = ["socket", "add", "web", "--pid", pid, "--fd", &descriptor];
        let said = portdemux.fails(1, &command)?.stderr;
        ensure!(said.contains(error), "{said}");
        ensure!(said.contains("nothing was changed"), "{said}");
    }
    // Nothing was loaded by any of them.
    portdemux.fails(3, &["status"])?;
    let own = number(&listener);
    portdemux.ok(&["socket", "add", "web", "--pid", &pid, "--fd", &own])?;
    let again = portdemux.ok(&["socket", "add", "web", "--pid", &pid, "--fd", &own])?;
    ensure!(
        again.stdout.contains("is one of them already"),
        "{}",
        again.stdout
    );
    let said = portdemux.fails(1, &["socket", "remove", "wbe"])?.stderr;
    ensure!(said.contains("no socket is called wbe"), "{said}");
    for name in ["127.0.0.1:80", "a b", ""] {
        portdemux.fails(2, &["socket", "remove", name])?;
    }
    portdemux.ok(&["socket", "remove", "web"])?;
    let listed = portdemux.json(&["socket", "list"])?;
    ensure!(
        listed["sockets"].as_array().is_some_and(Vec::is_empty),
        "{listed}"
    );
    Ok(())
}

#[test]
fn sockets_are_those_of_one_network_namespace() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let (namespace, other) = (Netns::new("here")?, Netns::new("there")?);
    let portdemux = Portdemux::new(&namespace)?;
    portdemux.apply(&rule("web", "\"80/tcp\"", "127.0.0.1:8080", ""))?;
    let elsewhere = portdemux.command_in(&other, &["add", "81/tcp", "--to", "socket:web"]);
    let output = portdemux_tests::run::run(elsewhere)?;
    ensure!(output.code() == Some(1));
    let said = output.stderr;
    ensure!(said.contains("are in another network namespace"), "{said}");
    ensure!(said.contains("nothing was changed"), "{said}");
    ensure!(!portdemux.ok(&["export"])?.stdout.contains("81/tcp"));
    // What listens there is not what the rule names.
    let stranger = bed::listen(&other, "127.0.0.1:8080")?;
    ensure!(bed::connect(&namespace, "127.0.0.1:80").is_err());
    drop(stranger);
    Ok(())
}

#[test]
fn who_may_not_is_told_what_it_takes() -> Result<()> {
    if !have(&["setpriv"]) {
        return Ok(());
    }
    let namespace = Netns::new("nobody")?;
    let portdemux = Portdemux::new(&namespace)?;
    portdemux.apply(&rule("web", "\"80/tcp\"", "127.0.0.1:8080", ""))?;
    let binary = portdemux.state().join("portdemux");
    fs::copy(portdemux_tests::cli::binary()?, &binary)?;
    fs::set_permissions(portdemux.state(), Permissions::from_mode(0o755))?;
    let binary = binary.display().to_string();
    let words = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        "--inh-caps=-all",
        &binary,
    ];
    let pid = std::process::id().to_string();
    for (command, error) in [
        (
            &["socket", "add", "web", "--pid", &pid, "--fd", "0"][..],
            "may not be taken",
        ),
        (&["socket", "remove", "web"], "lacks CAP_BPF"),
        (
            &["socket", "list"],
            "run it as root, or let this user read the pins",
        ),
    ] {
        let output = portdemux_tests::run::run(portdemux.command_through(&words, command))?;
        ensure!(output.code() == Some(1), "{command:?}: {:?}", output.code());
        ensure!(output.stderr.contains(error), "{}", output.stderr);
    }
    Ok(())
}
