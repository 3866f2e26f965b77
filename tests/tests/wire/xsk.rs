//! Frames that go to a program that takes raw frames: the example, which sends datagrams back.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    lab::{INTERFACE, Lab},
    run::Running,
    wait::{PATIENCE, wait_until},
};

use crate::{Mode, SERVERS, in_both_modes};

in_both_modes! {
    datagrams_are_echoed_by_a_program_that_takes_raw_frames [];
    a_queue_without_a_socket_falls_back_as_its_rule_says [];
}

pub(crate) fn rule(fallback: &str) -> String {
    format!("[[rule]]\nname = \"echo\"\nport = \"7/udp\"\nto = \"xsk:echo\"\n{fallback}")
}

/// Starts the example on the first queue, and waits until it has its place in the map.
pub(crate) fn start(lab: &Lab, portdemux: &Portdemux<'_>) -> Result<Running> {
    let mut command = lab.server.command(cli::xsk_echo()?);
    command
        .arg(INTERFACE)
        .arg(portdemux.pins().join("xsk/echo"));
    let mut echo = Running::spawn(command)?;
    wait_until("the echo to be ready", PATIENCE, || {
        ensure!(echo.is_running()?, "it ended: {}", echo.stderr());
        Ok(echo.stdout().contains("echoing"))
    })?;
    Ok(echo)
}

/// What comes back of a datagram of this many bytes, if anything does.
fn echoed(lab: &Lab, to: SocketAddr, length: usize, patience: Duration) -> Result<bool> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = lab.client.enter(|| Ok(UdpSocket::bind(any)?))?;
    client.set_read_timeout(Some(patience))?;
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
    client.send_to(&sent, to)?;
    let mut received = vec![0; 2000];
    let Ok((count, from)) = client.recv_from(&mut received) else {
        return Ok(false);
    };
    ensure!(
        from == to && received[..count] == sent,
        "{from} sent something else"
    );
    Ok(true)
}

fn datagrams_are_echoed_by_a_program_that_takes_raw_frames(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, &rule(""))?;
    let _echo = start(&lab, &portdemux)?;
    for server in SERVERS {
        // More than the program has memory for at once.
        for number in 0..300 {
            let to = SocketAddr::new(server, 7);
            ensure!(
                echoed(&lab, to, 1 + number * 4, PATIENCE)?,
                "{to}, {number}"
            );
        }
    }
    let stats = portdemux.stats()?;
    assert_eq!(stats.reason("rule_xsk")?.packets, 600);
    assert_eq!(stats.rule("echo")?.dropped.packets, 0);
    // The stack has had none of them: nobody listens there, and it would have said so.
    Ok(())
}

fn a_queue_without_a_socket_falls_back_as_its_rule_says(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, &rule(""))?;
    let to = SocketAddr::new(SERVERS[0], 7);
    let short = Duration::from_millis(200);
    ensure!(!echoed(&lab, to, 9, short)?, "nobody is there");
    assert_eq!(portdemux.stats()?.reason("no_xsk")?.packets, 1);
    assert_eq!(portdemux.stats()?.rule("echo")?.dropped.packets, 1);

    let echo = start(&lab, &portdemux)?;
    ensure!(echoed(&lab, to, 9, PATIENCE)?, "the program is there");
    drop(echo);
    wait_until("the socket to be gone", PATIENCE, || {
        Ok(!echoed(&lab, to, 9, short)?)
    })?;

    // The host's own stack, where somebody listens.
    portdemux.apply(&rule("fallback = \"local\"\n"))?;
    let socket = lab.server.enter(|| Ok(UdpSocket::bind(to)?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    ensure!(!echoed(&lab, to, 9, short)?, "the socket does not answer");
    assert_eq!(socket.recv(&mut [0; 16])?, 9);
    // Rules that name it no more leave nothing of it.
    ensure!(
        portdemux.pins().join("xsk/echo").exists(),
        "it is still named"
    );
    portdemux.apply("[default]\n")?;
    ensure!(
        !portdemux.pins().join("xsk/echo").exists(),
        "nobody names it"
    );
    Ok(())
}
