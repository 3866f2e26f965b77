//! `stats --watch`: for people on a terminal, for programs, in a pipe.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portdemux_tests::{
    cli::Portdemux,
    lab::{INTERFACE, Lab},
    probe::Probe,
    require,
    run::Running,
    terminal::{Screen, Session},
    wait::{PATIENCE, wait_for, wait_until},
};
use serde_json::Value;

use crate::bed::busy;

#[test]
fn programs_get_one_document_on_a_line_for_each_interval() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = busy(&lab)?;
    let mut command = portdemux.command(&["stats", "10/udp", "--watch", "0.1", "--json"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
    let (mut received, mut times) = (Vec::new(), Vec::new());
    // Sent after a document was read, a packet is in one of the next.
    while received.last() != Some(&4) {
        let line = lines.next().context("it ended")??;
        let document: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let ports = document["ports"].as_array().context("no ports")?;
        ensure!(ports.len() == 1 && ports[0]["port"] == 10, "{line}");
        let packets = ports[0]["received"]["packets"].as_u64();
        received.push(packets.context("no packets")?);
        times.push(document["time"].as_f64().context("no time")?);
        probe.passing(&[10])?;
    }
    assert_eq!(received[0], 1);
    ensure!(received.is_sorted() && received.len() >= 4, "{received:?}");
    ensure!(times.is_sorted(), "{times:?}");
    // However late single documents are, there is an interval between the first and the last.
    let span = times.last().context("no time")? - times[0];
    ensure!(span >= 0.1, "{times:?}");
    // The reader goes away: that is no failure.
    drop(lines);
    let output = child.wait_with_output()?;
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    Ok(())
}

#[test]
fn a_pipe_gets_plain_pages_with_rates() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, probe) = busy(&lab)?;
    let watch = Running::spawn(portdemux.command(&["stats", "--watch", "0.1"]))?;
    let busy_page = wait_for("a page with rates", PATIENCE, || {
        probe.passing(&[10, 10, 10])?;
        let said = watch.stdout();
        // All but the last are complete.
        let mut pages: Vec<&str> = said.split("\n\nPORT ").collect();
        pages.pop();
        let page = pages.into_iter().find(|page| is_busy(page, "10/udp"));
        Ok(page.map(str::to_owned))
    })?;
    // What is busiest now is first, whatever came for others before.
    let first = busy_page.lines().nth(1).unwrap_or_default();
    ensure!(first.starts_with("10/udp "), "{busy_page}");
    watch.signal(Signal::SIGINT)?;
    let output = watch.wait(PATIENCE)?;
    assert_eq!(output.code(), Some(0));
    assert_eq!(output.stderr, "");
    ensure!(!output.stdout.contains('\x1b'), "{}", output.stdout);
    let heads = output
        .stdout
        .lines()
        .filter(|line| line.starts_with("PORT ") && line.ends_with("  PKT/S  DROPPED  WHY"));
    ensure!(heads.count() >= 2, "{}", output.stdout);
    Ok(())
}

/// Whether the line of a port has a rate, in a page that has all columns.
fn is_busy(page: &str, port: &str) -> bool {
    let mut lines = page.lines();
    let line = lines.find(|line| line.split(' ').next() == Some(port));
    // PORT RULE LISTENER RECEIVED BYTES (number and unit) PKT/S
    let rate = line.and_then(|line| line.split_whitespace().nth(6));
    rate.is_some_and(|rate| rate != "0")
}

#[test]
fn a_terminal_is_redrawn_in_place_and_left_as_it_was() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    for end in [Signal::SIGINT, Signal::SIGTERM] {
        let portdemux = Portdemux::new(&lab.server)?;
        let probe = Probe::new(&lab)?;
        portdemux.ok(&["attach", INTERFACE])?;
        portdemux.ok(&["add", "20/udp", "--name", "twenty"])?;
        probe.passing(&[20, 20, 20, 20])?;
        let command = portdemux.command(&["stats", "--watch", "0.1"]);
        let session = Session::start(command, 80, 24)?;
        let busy_page = |packets: u64| {
            wait_for("the other port in front", PATIENCE, || {
                probe.passing(&[10, 10, 10])?;
                let screen = session.screen()?;
                let lines = screen.lines();
                let first = lines.get(1).map_or("", String::as_str);
                let received = first.split_whitespace().nth(3).unwrap_or_default();
                let received = received.parse().unwrap_or(0);
                let is_it = is_busy(first, "10/udp") && received > packets;
                Ok(is_it.then_some((screen, received)))
            })
        };
        // The busiest is first, and the next page is drawn over the one before.
        let (_, received) = busy_page(0)?;
        let (screen, _) = busy_page(received)?;
        is_one_page(&screen)?;
        ensure!(
            screen.lines()[2].starts_with("20/udp  twenty "),
            "{screen:?}"
        );
        session.signal(end)?;
        let shown = session.end()?;
        assert_eq!(shown.status.code(), Some(0), "{end}");
        ensure!(
            !shown.screen.is_alternate() && shown.screen.has_cursor,
            "{}",
            shown.text
        );
        assert_eq!(shown.screen.lines(), [""; 0]);
        ensure!(shown.text.matches("\x1b[H").count() >= 2, "{}", shown.text);
    }
    Ok(())
}

/// Whether a screen shows one page and nothing else.
fn is_one_page(screen: &Screen) -> Result<()> {
    let lines = screen.lines();
    let heads = lines.iter().filter(|line| line.starts_with("PORT "));
    ensure!(
        screen.is_alternate()
            && !screen.has_cursor
            && screen.scrolled == 0
            && screen.wrapped == 0
            && heads.count() == 1
            && lines[0].starts_with("PORT "),
        "{lines:#?}"
    );
    Ok(())
}

#[test]
fn a_page_never_leaves_the_screen() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let portdemux = Portdemux::new(&lab.server)?;
    let probe = Probe::new(&lab)?;
    portdemux.ok(&["attach", INTERFACE])?;
    let rule = |port: u16| {
        format!(
            "[[rule]]\nname = \"{}{port}\"\nport = \"{port}/udp\"\n",
            "long-".repeat(10)
        )
    };
    portdemux.apply(&(1..=40).map(rule).collect::<String>())?;
    let ports: Vec<u16> = (1..=60).collect();
    probe.passing(&ports)?;
    let mut received = 1;
    for (arguments, columns, lines) in [
        (&["stats", "--watch", "0.1"][..], 80, 24),
        (&["stats", "--watch", "0.1", "--all"], 80, 24),
        (&["stats", "--watch", "0.1"], 100, 50),
        (&["stats", "--watch", "0.1", "59-60/udp"], 60, 12),
        (&["stats", "--watch", "0.1"], 60, 10),
        (&["stats", "--watch", "0.1"], 40, 3),
    ] {
        let session = Session::start(portdemux.command(arguments), columns, lines)?;
        wait_until("a page", PATIENCE, || {
            Ok(!session.screen()?.lines().is_empty())
        })?;
        // The next is drawn over it.
        probe.passing(&[60; 60])?;
        received += 60;
        let screen = wait_for("the next page", PATIENCE, || {
            let screen = session.screen()?;
            let lines = screen.lines();
            let mut first = lines.get(1).map_or("", String::as_str).split_whitespace();
            let is_it =
                first.next() == Some("60/udp") && first.any(|it| it == received.to_string());
            Ok(is_it.then_some(screen))
        })?;
        is_one_page(&screen)?;
        let shown = screen.lines();
        if lines >= 24 {
            assert_eq!(shown.len(), usize::from(lines), "{shown:#?}");
            for head in ["RULE ", "REASON "] {
                ensure!(
                    shown.iter().any(|line| line.starts_with(head)),
                    "{shown:#?}"
                );
            }
            let more = shown
                .iter()
                .any(|line| line.ends_with("ports saw traffic or are claimed (--all)"));
            ensure!(more != arguments.contains(&"--all"), "{shown:#?}");
        }
        if lines == 12 {
            // What follows the ports is cut too, and says so.
            let mut rules = shown.iter().skip_while(|line| !line.starts_with("RULE "));
            ensure!(rules.next().is_some(), "{shown:#?}");
            ensure!(
                rules.any(|line| line.starts_with("… ") && line.ends_with(" more rules (--all)")),
                "{shown:#?}"
            );
        }
        session.signal(Signal::SIGINT)?;
        assert_eq!(session.end()?.status.code(), Some(0));
    }
    Ok(())
}
