//! `apply` is killed while it begins to track flows.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    frames::{CLIENT_V4, SERVER_V4},
    lab::{INTERFACE, Lab},
    require,
    steps::{self, Kill},
    wait::PATIENCE,
};

const PASS: &str = "# everything passes\n";
const DENY: &str = "[default]\ninbound = \"drop\"\n";

/// Every so many steps one is tried: programs are loaded for each.
const STRIDE: usize = 5;
/// More calls than the command makes.
const MANY: usize = 5_000;

#[test]
fn an_apply_killed_while_it_begins_to_track_flows_never_cuts_off_replies() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let deny = portdemux.state().join("deny.toml");
    fs::write(&deny, DENY)?;
    let (mut old_left, mut new_left) = (0, 0);
    for step in (1..=MANY).step_by(STRIDE) {
        portdemux.apply(PASS)?;
        let apply = portdemux.command(&["apply".as_ref(), deny.as_os_str()]);
        let course = steps::run(&apply, cli::binary()?, Kill::Before(step))?;
        let context = || format!("killed before step {step}: {course:?}");
        let in_force = portdemux.ok(&["export"]).with_context(context)?.stdout;
        ensure!(
            in_force == PASS || in_force == DENY,
            "{in_force}, {}",
            context()
        );
        hears_replies(&lab).with_context(context)?;
        if course.code.is_some() {
            ensure!(course.code == Some(0) && in_force == DENY, "{}", context());
            ensure!(old_left > 5 && new_left > 0, "{old_left} {new_left}");
            portdemux.ok(&["detach", "--all"])?;
            return Ok(());
        }
        if in_force == PASS {
            old_left += 1;
        } else {
            new_left += 1;
        }
        // Whatever was left half made is no obstacle.
        portdemux.apply(DENY).with_context(context)?;
        hears_replies(&lab).with_context(context)?;
    }
    anyhow::bail!("apply did not end within {MANY} steps");
}

/// The server asks the client something and hears the answer.
fn hears_replies(lab: &Lab) -> Result<()> {
    let peer = lab
        .client
        .enter(|| Ok(UdpSocket::bind(SocketAddr::new(CLIENT_V4.into(), 0))?))?;
    let host = lab
        .server
        .enter(|| Ok(UdpSocket::bind(SocketAddr::new(SERVER_V4.into(), 0))?))?;
    for socket in [&peer, &host] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    host.send_to(b"question", peer.local_addr()?)?;
    let mut heard = [0; 16];
    let (length, from) = peer.recv_from(&mut heard).context("hear the question")?;
    ensure!(&heard[..length] == b"question");
    peer.send_to(b"answer", from)?;
    let (length, _) = host.recv_from(&mut heard).context("hear the answer")?;
    ensure!(&heard[..length] == b"answer");
    Ok(())
}
