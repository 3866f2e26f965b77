//! The process that finds sockets again: it finds them whatever fails once, or says that it cannot begin.

use std::{net::UdpSocket, thread};

use anyhow::{Result, anyhow, ensure};
use portdemux_tests::{
    faults::{Ended, Fault},
    wait::{PATIENCE, wait_until},
};

use crate::{
    Scenario,
    bed::{Bed, PLAIN, words},
    each,
};

/// The port of [`SOCKET`] that leads to a socket.
const PORT: u16 = 1003;

const SOCKET: &str = "\
[[rule]]
name = \"stays\"
port = \"1002/udp\"
to = \"drop\"

[[rule]]
name = \"web\"
port = \"1003/udp\"
to = \"socket:127.0.0.1:9\"
fallback = \"drop\"
";

/// Rules whose socket is missing, and nobody looks for it.
fn missing(bed: &Bed) -> Result<()> {
    if bed.portdemux.pins().exists() {
        bed.apply(SOCKET)?;
    } else {
        bed.load(SOCKET)?;
    }
    bed.portdemux.kill_follower()
}

/// Follows until the socket is found, and then until nothing is to be followed. One that is not ready ends, as whoever
/// started it waits for either.
fn follow(bed: &Bed, fault: Option<Fault>) -> Result<Ended> {
    thread::scope(|scope| {
        let follower = scope.spawn(|| bed.run(&words(&["follow", "--background"]), fault));
        let bound = bed.lab.server.enter(|| Ok(UdpSocket::bind("127.0.0.1:9")?));
        let mut has_found = false;
        let found = wait_until("its socket", PATIENCE, || {
            let has_ended = follower.is_finished();
            has_found = bed.passing()?.contains(&PORT);
            Ok(has_ended || has_found)
        });
        if !follower.is_finished() {
            bed.apply(PLAIN)?;
        }
        let ended = follower.join();
        let ended = ended.map_err(|_| anyhow!("the thread of the follower panicked"))??;
        drop(bound?);
        found?;
        let is_ready = ended.stdout == "ready\n";
        ensure!(
            if is_ready {
                has_found
            } else {
                ended.code == Some(1)
            },
            "the follower ended with {:?} (ready: {is_ready}, found: {has_found}): {}",
            ended.code,
            ended.stderr
        );
        Ok(ended)
    })
}

#[test]
fn follower() -> Result<()> {
    each(&Scenario {
        name: "follower",
        prepare: &missing,
        run: &follow,
        check: None,
        most: 12,
    })
}
