//! Counters again and again.

use std::time::Duration;

use anyhow::Result;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{Args, SAMPLE, document, page};
use crate::{
    cli::{Context, output::Output},
    dataplane::maps::Maps,
    listeners::Behind,
    snapshot::Snapshot,
};

/// The alternate screen, without a cursor: what was on the terminal stays as it was.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l";
const END: &str = "\x1b[?25h\x1b[?1049l";

/// Prints at every interval, until Ctrl-C or the reader goes away.
pub(super) fn run(args: &Args, context: &Context, maps: &Maps, interval: Duration) -> Result<()> {
    if args.json {
        let mut pace = Pace::new(Duration::ZERO, interval)?;
        let mut behind = Behind::default();
        while context.output.is_read() && pace.goes_on() {
            let behind = behind.again(maps);
            let line = document::line(args, context, maps, &Snapshot::take(maps), behind)?;
            context.output.write(&line);
        }
        return Ok(());
    }
    // A rate takes two looks.
    let mut pace = Pace::new(SAMPLE.min(interval), interval)?;
    let output = &context.output;
    if !output.is_terminal() {
        print(args, output, maps, &mut pace);
        return Ok(());
    }
    output.write_as_it_is(BEGIN);
    print(args, output, maps, &mut pace);
    output.write_as_it_is(END);
    Ok(())
}

fn print(args: &Args, output: &Output, maps: &Maps, pace: &mut Pace) {
    let mut before = Snapshot::take(maps);
    let mut behind = Behind::default();
    while output.is_read() && pace.goes_on() {
        let now = Snapshot::take(maps);
        let behind = behind.again(maps);
        let text = if output.is_terminal() {
            let lines = output.size().1;
            let text = page::text(args, output, &before, &now, behind, Some(lines));
            redrawn(&text, lines)
        } else {
            page::text(args, output, &before, &now, behind, None) + "\n"
        };
        output.write_as_it_is(&text);
        before = now;
    }
}

/// A page over the one before it: every line is cleared to its end, and what is below. Nothing comes
/// after the last line of the screen, which would scroll it.
fn redrawn(page: &str, lines: usize) -> String {
    let lines: Vec<String> = page
        .lines()
        .take(lines)
        .map(|line| format!("{line}\x1b[K"))
        .collect();
    format!("\x1b[H{}\x1b[J", lines.join("\r\n"))
}

/// An interval again and again, until somebody wants an end.
struct Pace {
    runtime: Runtime,
    ticks: Interval,
    interrupted: Signal,
    terminated: Signal,
}

impl Pace {
    fn new(first: Duration, interval: Duration) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let mut ticks = interval_at(Instant::now() + first, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let interrupted = signal(SignalKind::interrupt())?;
        let terminated = signal(SignalKind::terminate())?;
        drop(inside);
        Ok(Self {
            runtime,
            ticks,
            interrupted,
            terminated,
        })
    }

    /// Waits for the end of the interval; false after Ctrl-C or SIGTERM.
    fn goes_on(&mut self) -> bool {
        // Only the wait is asynchronous: what is printed asks the kernel in a runtime of its own, and
        // one cannot be started within another.
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = self.interrupted.recv() => false,
                _ = self.terminated.recv() => false,
                _ = self.ticks.tick() => true,
            }
        })
    }
}
