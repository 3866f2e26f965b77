//! What the kernel does not tell its programs is found again by a process: UDP sockets that are opened anew,
//! and what became of attached interfaces.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::signal::kill, unistd::Pid};
use portdemux_tests::{
    cli::Portdemux,
    frames::{CLIENT_V4, SERVER_V4},
    lab::{INTERFACE, Lab},
    netns::Netns,
    veth,
    wait::{PATIENCE, wait_until},
};
use serde_json::Value;

use crate::bed::{self, have, rule};

fn sockets(portdemux: &Portdemux) -> Result<Value> {
    Ok(portdemux.json(&["status"])?["sockets"].clone())
}

#[test]
fn a_udp_socket_that_is_opened_anew_is_found_again_and_the_process_ends_with_the_need() -> Result<()>
{
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("follow")?;
    let portdemux = Portdemux::new(&namespace)?;
    portdemux.apply(&rule("log", "\"514/udp\"", "127.0.0.1:5140", ""))?;
    ensure!(sockets(&portdemux)?["follower_runs"] == true);
    let client = bed::bind(&namespace, "127.0.0.1:0")?;
    let mut line = [0; 16];
    for _ in 0..2 {
        client.send_to(b"nobody", "127.0.0.1:514")?;
        let server = bed::bind(&namespace, "127.0.0.1:5140")?;
        server.set_read_timeout(Some(Duration::from_millis(50)))?;
        wait_until("a line of the log", PATIENCE, || {
            client.send_to(b"line", "127.0.0.1:514")?;
            Ok(server
                .recv(&mut line)
                .is_ok_and(|length| &line[..length] == b"line"))
        })?;
    }
    ensure!(bed::reason(&portdemux, "no_socket")? >= 2);
    // Another is refused while this one runs.
    let second = portdemux.fails(1, &["follow"])?.stderr;
    ensure!(second.contains("runs for instance default"), "{second}");
    portdemux.apply(&rule("log", "\"514/tcp\"", "127.0.0.1:5140", ""))?;
    wait_until("the end of the process", PATIENCE, || {
        Ok(sockets(&portdemux)?["follower_runs"] == false)
    })?;
    ensure!(sockets(&portdemux)?["tcp_followed_by"] == "kernel");
    // Whoever needs it again starts it again.
    portdemux.ok(&["add", "515/udp", "--to", "socket:127.0.0.1:5150"])?;
    ensure!(sockets(&portdemux)?["follower_runs"] == true);
    Ok(())
}

/// Whether a process is there.
fn is_alive(process: Pid) -> bool {
    kill(process, None).is_ok()
}

#[test]
fn whoever_follows_ends_with_its_instance_and_goes_on_for_others() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let namespace = Netns::new("follow")?;
    let mut portdemux = Portdemux::new(&namespace)?;
    let rules = rule("log", "\"514/udp\"", "127.0.0.1:5140", "");
    let mut followers = Vec::new();
    for instance in ["default", "second"] {
        portdemux.set_instance(instance);
        let rules = rules.replace("514/", &format!("{}/", 514 + followers.len()));
        portdemux.apply(&rules)?;
        followers.push(portdemux.follower()?.context("no follower")?);
    }
    let [first, second] = followers[..] else {
        bail!("{followers:?}");
    };
    ensure!(first != second && is_alive(first) && is_alive(second));
    portdemux.ok(&["detach", "--all"])?;
    // An instance of the same name is another, and has a follower of its own.
    portdemux.apply(&rules)?;
    let third = portdemux.follower()?.context("no follower")?;
    ensure!(third != second);
    wait_until("the end of the second", PATIENCE, || Ok(!is_alive(second)))?;
    ensure!(is_alive(first) && is_alive(third));
    portdemux.ok(&["detach", "--all"])?;
    wait_until("the end of the third", PATIENCE, || Ok(!is_alive(third)))?;
    ensure!(portdemux.records()?.is_empty());
    // Killed, it is missed by those who ask, and started anew by those who change something.
    portdemux.set_instance("default");
    portdemux.kill_follower()?;
    let told = portdemux.ok(&["status"])?.stderr;
    ensure!(
        told.contains("nothing finds the sockets of rules"),
        "{told}"
    );
    portdemux.ok(&["add", "80/tcp"])?;
    ensure!(sockets(&portdemux)?["follower_runs"] == true);
    portdemux.ok(&["detach", "--all"])?;
    Ok(())
}

#[test]
fn what_gets_the_number_of_an_attached_interface_that_is_gone_is_decided_about() -> Result<()> {
    if !have(&[]) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let listener = bed::listen(&lab.server, "127.0.0.1:8080")?;
    let denied = format!("deny = [\"{CLIENT_V4}\"]");
    portdemux.apply(&rule("web", "\"80/tcp\"", "127.0.0.1:8080", &denied))?;
    ensure!(sockets(&portdemux)?["follower_needed"] == false);
    // Lookups leave to the program on the interface what comes by it: somebody has to see to it that it is
    // still there.
    portdemux.ok(&["attach", INTERFACE])?;
    ensure!(sockets(&portdemux)?["follower_runs"] == true);
    ensure!(sockets(&portdemux)?["tcp_followed_by"] == "kernel");
    let index = lab
        .server
        .enter(|| Ok(nix::net::if_::if_nametoindex(INTERFACE)?))?;
    lab.server.ip(&["link", "delete", INTERFACE])?;
    let peer = ["peer", "name", "other0", "netns", lab.client.name()];
    let index = index.to_string();
    let other = ["link", "add", "other0", "index", &index, "type", "veth"];
    lab.server.ip(&[&other[..], &peer].concat())?;
    for (namespace, address) in [(&lab.server, SERVER_V4), (&lab.client, CLIENT_V4)] {
        namespace.ip(&["link", "set", "other0", "up"])?;
        veth::add_address(namespace, "other0", address.into())?;
    }
    let to = bed::at(SERVER_V4, 80);
    wait_until("a lookup that is decided about", PATIENCE, || {
        Ok(bed::connect(&lab.client, &to).is_err())
    })?;
    ensure!(bed::reason(&portdemux, "source_denied")? >= 1);
    drop(listener);
    portdemux.ok(&["detach", INTERFACE])?;
    wait_until("the end of the process", PATIENCE, || {
        Ok(sockets(&portdemux)?["follower_runs"] == false)
    })
}
