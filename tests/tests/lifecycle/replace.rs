//! The program is replaced while traffic flows.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    frames::{CLIENT_V4, SERVER_V4},
    lab::{INTERFACE, Lab},
    netns::Netns,
    probe::Probe,
    require,
    run::Running,
    wait::PATIENCE,
};

use crate::bed::{self, PORTS, Rules};

/// How often the program is replaced.
const TIMES: usize = 20;

/// Rules that begin or end to track flows exchange the program before the interface comes to its turn.
#[test]
fn rules_that_an_interface_is_attached_with_again_never_take_it_off() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let rules = |are_tracking: bool| -> Result<String> {
        let text = if are_tracking {
            "[default]\ninbound = \"drop\"\n"
        } else {
            "[[rule]]\nport = \"23/tcp\"\nto = \"drop\"\n"
        };
        Ok(portdemux.rules_file(text)?.display().to_string())
    };
    portdemux.ok(&["attach", INTERFACE, "--rules", &rules(false)?])?;
    for are_tracking in [true, false] {
        let said = portdemux.ok(&["attach", INTERFACE, "--rules", &rules(are_tracking)?])?;
        ensure!(said.stdout.contains("program replaced"), "{said:?}");
        // Another interface that cannot be attached leaves this one as it was.
        let other = rules(!are_tracking)?;
        let words = ["attach", INTERFACE, "lo", "--mode", "native", "--rules"];
        let said = portdemux.fails(1, &[&words[..], &[&other]].concat())?;
        ensure!(!said.stdout.contains("detached"), "{said:?}");
        ensure!(bed::program_on(&lab, INTERFACE)?.is_some(), "{said:?}");
    }
    Ok(())
}

#[test]
fn no_packet_is_lost_and_none_slips_by_while_the_program_is_replaced() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    for mode in ["native", "generic"] {
        let lab = Lab::new()?;
        let portdemux = Portdemux::new(&lab.server)?;
        let probe = Probe::new(&lab)?;
        portdemux.ok(&["attach", INTERFACE, "--mode", mode])?;
        Rules::Old.apply(&portdemux)?;
        let before = bed::program_on(&lab, INTERFACE)?;
        let conversation = Conversation::begin(&lab)?;
        let script = format!(
            "set -e; for i in $(seq {TIMES}); do \"$0\" attach {INTERFACE} --instance default; done"
        );
        let binary = cli::binary()?.display().to_string();
        let words = ["sh", "-c", &script, &binary];
        let mut replacing = Running::spawn(portdemux.command_through(&words, &[]))?;
        let mut rounds: u64 = 0;
        while replacing.is_running()? {
            let passing = probe.passing(&PORTS)?;
            ensure!(
                passing == Rules::Old.passing(),
                "{mode}: {passing:?} after {rounds}"
            );
            for number in 0..10 {
                conversation.say(u64::MAX - rounds * 10 - number)?;
            }
            rounds += 1;
        }
        let said = replacing.wait(PATIENCE)?.success()?.stdout;
        ensure!(said.matches("program replaced").count() == TIMES, "{said}");
        ensure!(rounds > TIMES as u64, "{rounds} rounds");
        // Every frame was counted once, whichever program it met.
        let stats = portdemux.stats()?;
        for port in PORTS {
            let traffic = stats.port(&format!("{port}/udp"))?;
            let dropped = if Rules::Old.passing().contains(&port) {
                0
            } else {
                rounds
            };
            ensure!(
                traffic.received.packets == rounds,
                "{mode}: {port}: {traffic:?}"
            );
            ensure!(
                traffic.dropped.packets == dropped,
                "{mode}: {port}: {traffic:?}"
            );
        }
        ensure!(
            bed::program_on(&lab, INTERFACE)? != before,
            "the program is the same"
        );
    }
    Ok(())
}

/// Sockets of the client and the server: the one speaks, the other repeats.
struct Conversation {
    client: UdpSocket,
    server: UdpSocket,
}

impl Conversation {
    fn begin(lab: &Lab) -> Result<Self> {
        let open = |namespace: &Netns, here: (Ipv4Addr, u16), there: (Ipv4Addr, u16)| {
            namespace.enter(|| {
                let socket = UdpSocket::bind(here)?;
                socket.connect(there)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                Ok(socket)
            })
        };
        let (client, server) = ((CLIENT_V4, 4007), (SERVER_V4, 7));
        Ok(Self {
            client: open(&lab.client, client, server)?,
            server: open(&lab.server, server, client)?,
        })
    }

    /// Says a number and hears it back.
    fn say(&self, number: u64) -> Result<()> {
        let mut heard = [0; 8];
        for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            from.send(&number.to_be_bytes())?;
            to.recv(&mut heard)
                .with_context(|| format!("datagram {number} was lost"))?;
            ensure!(
                heard == number.to_be_bytes(),
                "{heard:?} instead of {number}"
            );
        }
        Ok(())
    }
}
