//! A first look at portdemux: real servers and clients in a lab of network namespaces, portdemux on the
//! server's interface, the live table, a port that is claimed and dropped while traffic flows.
//!
//! Nothing outside the lab is touched, and nothing of it stays.

mod clients;
mod screen;
mod servers;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Parser;
use clients::{Clients, Seen};
use nix::sys::signal::{SigSet, Signal};
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    veth::Offloads,
};
use screen::Screen;

/// Where the demo's servers listen.
const HTTP: u16 = 80;
const ECHO: u16 = 7;
const TICKER: u16 = 9000;

/// Set by Ctrl-C: everything that waits looks at it.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Show portdemux at work on live traffic
#[derive(Debug, Parser)]
struct Args {
    /// How long each look at the table lasts, in seconds
    #[arg(long, default_value_t = 4.0)]
    look: f64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let screen = Screen::new();
    // The signal is waited for on a thread, so that the lab is taken down by the main one.
    heed_interrupts();
    let begun = Instant::now();
    match show(&screen, Duration::from_secs_f64(args.look.clamp(0.2, 60.0))) {
        Ok(()) => {
            screen.say(&format!(
                "Done in {:.0} seconds. Namespaces, programs, pins and files of the lab are gone.",
                begun.elapsed().as_secs_f64()
            ));
            screen.say("Next, on a real interface: sudo portdemux attach eth0");
            ExitCode::SUCCESS
        }
        Err(_) if is_stopped() => {
            screen.say("Interrupted. Namespaces, programs, pins and files of the lab are gone.");
            ExitCode::from(130)
        }
        Err(error) => {
            screen.say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn show(screen: &Screen, look: Duration) -> Result<()> {
    screen.head("A lab: two network namespaces and a wire between them");
    let lab = Lab::with(1500, Offloads::On)?;
    let portdemux = Portdemux::new(&lab.server)?;
    screen.say("  client 192.0.2.1, 2001:db8::1 ──── wire0 ──── 192.0.2.2, 2001:db8::2 server");
    screen.say("  This machine's own interfaces are not touched.");

    screen.head("Real servers: HTTP on 80/tcp, echo on 7/udp, a connection that stays on 9000/tcp");
    let _servers = servers::start(&lab.server)?;

    screen.head("Put portdemux on the server's interface");
    run(screen, &portdemux, &["attach", INTERFACE])?;
    let clients = Clients::start(&lab.client)?;
    clients.wait_until("every server answers", |seen| {
        seen.http > 4 && seen.echo > 4 && seen.ticks > 2
    })?;
    screen.head(
        "Clients ask over IPv4 and IPv6: nothing is claimed, everything passes and is counted",
    );
    watch(screen, &portdemux, look)?;

    screen.head("Claim 80/tcp, and drop 7/udp, while traffic flows");
    run(screen, &portdemux, &["add", "80/tcp", "--name", "web"])?;
    run(
        screen,
        &portdemux,
        &["add", "7/udp", "--name", "echo", "--to", "drop"],
    )?;
    let before = clients.seen();
    watch(screen, &portdemux, look)?;
    let dropped = clients.seen().since(before);
    tell(screen, "while 7/udp was dropped", dropped);
    expect(dropped.http > 0, "HTTP goes on")?;
    expect(dropped.ticks > 0, "the connection that was there goes on")?;
    // An answer may have been on its way when the rule came into force.
    expect(
        dropped.echo <= 2 && dropped.echo_lost > 2,
        "echo is cut off",
    )?;

    screen.head("Ask why");
    run(
        screen,
        &portdemux,
        &["explain", "udp", "192.0.2.1:40000", "192.0.2.2:7"],
    )?;

    screen.head("Give the port up again");
    run(screen, &portdemux, &["remove", "echo"])?;
    let before = clients.seen();
    clients.wait_until("echo answers again", |seen| seen.since(before).echo > 4)?;
    watch(screen, &portdemux, look)?;
    let after = clients.seen().since(before);
    tell(screen, "since 7/udp is open again", after);
    expect(after.echo > 0, "echo is back")?;

    screen.head("Take everything off");
    run(screen, &portdemux, &["detach", "--all"])?;
    drop(clients);
    Ok(())
}

/// Runs a command as a user would and shows both.
fn run(screen: &Screen, portdemux: &Portdemux<'_>, arguments: &[&str]) -> Result<()> {
    check_stopped()?;
    screen.command(&arguments.join(" "));
    let output = portdemux.ok(arguments)?;
    screen.output(&output.stdout);
    screen.output(&output.stderr);
    Ok(())
}

/// Shows the table again and again, in place on a terminal.
fn watch(screen: &Screen, portdemux: &Portdemux<'_>, look: Duration) -> Result<()> {
    screen.command("stats");
    let deadline = Instant::now() + look;
    let mut table = screen.table();
    loop {
        check_stopped()?;
        // It takes a third of a second, in which it measures rates.
        let output = portdemux.ok(&["stats"])?;
        let is_last = Instant::now() >= deadline;
        table.show(&output.stdout, is_last);
        if is_last {
            return Ok(());
        }
    }
}

fn tell(screen: &Screen, when: &str, seen: Seen) {
    screen.say(&format!(
        "  What the clients saw {when}: {} pages over HTTP, {} echoes and {} without answer, {} ticks \
         on the connection that stays.",
        seen.http, seen.echo, seen.echo_lost, seen.ticks
    ));
}

fn expect(is_so: bool, what: &str) -> Result<()> {
    if !is_so {
        bail!("it should be that {what}, and is not");
    }
    Ok(())
}

/// Notes Ctrl-C, from the first thread on: those that follow have its mask. Where that fails Ctrl-C ends the process,
/// and the next run sweeps up.
fn heed_interrupts() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    if signals.thread_block().is_ok() {
        thread::spawn(move || STOPPED.store(signals.wait().is_ok(), Ordering::Relaxed));
    }
}

fn is_stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

fn check_stopped() -> Result<()> {
    if is_stopped() {
        bail!("interrupted");
    }
    Ok(())
}
