//! UDP sockets are found again by a process, of which nothing says that they are there.

use std::time::Duration;

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::Portdemux,
    netns::Netns,
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
    ensure!(
        second.contains("follows the sockets of instance default already"),
        "{second}"
    );
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
