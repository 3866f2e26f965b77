//! Counters again and again.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{Args, SAMPLE, document, page};
use crate::{
    cli::{Context, output::Output},
    error::NothingLoaded,
    instance::Instance,
    listeners::Behind,
    snapshot::Snapshot,
    syscalls,
};

/// The alternate screen, without a cursor: what was on the terminal stays as it was.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l";
const END: &str = "\x1b[?25h\x1b[?1049l";

/// Prints at every interval, until Ctrl-C, the reader goes away or the instance is removed.
///
/// # Errors
///
/// The instance was removed, or cannot be opened.
pub(super) fn run(args: &Args, context: &Context, interval: Duration) -> Result<()> {
    let mut watched = WatchedInstance::open(context)?;
    if args.json {
        let mut pace = Pace::new(Duration::ZERO, interval)?;
        while context.output.is_read() && pace.goes_on()? {
            if watched.is_there()? {
                let now = Snapshot::take(&watched.instance.maps);
                let behind = watched.behind.again(&watched.instance.maps);
                let line = document::line(args, &watched.context, &watched.instance, &now, behind)?;
                context.output.write(&line);
            }
        }
        return Ok(());
    }
    // A rate takes two looks.
    let mut pace = Pace::new(SAMPLE.min(interval), interval)?;
    let output = &context.output;
    if !output.is_terminal() {
        return print(args, output, &mut watched, &mut pace);
    }
    output.write_as_it_is(BEGIN);
    let printed = print(args, output, &mut watched, &mut pace);
    output.write_as_it_is(END);
    printed
}

fn print(
    args: &Args,
    output: &Output,
    watched: &mut WatchedInstance,
    pace: &mut Pace,
) -> Result<()> {
    let mut before = Snapshot::take(&watched.instance.maps);
    while output.is_read() && pace.goes_on()? {
        if !watched.is_there()? {
            continue;
        }
        let now = Snapshot::take(&watched.instance.maps);
        if watched.is_another {
            before = now;
            continue;
        }
        let behind = watched.behind.again(&watched.instance.maps);
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
    Ok(())
}

/// The instance, which may become one of another version, or another one of the same name.
struct WatchedInstance {
    context: Context,
    instance: Instance,
    behind: Behind,
    /// Whether it was opened anew for the present look, so that what was counted before may be another's.
    is_another: bool,
    /// Whether it was not there at the last look.
    is_missing: bool,
}

impl WatchedInstance {
    fn open(context: &Context) -> Result<Self> {
        let paths = context.paths.as_found();
        let context = context.at(paths.unwrap_or_else(|_| context.paths.clone()));
        Ok(Self {
            instance: context.open()?,
            context,
            behind: Behind::default(),
            is_another: false,
            is_missing: false,
        })
    }

    /// Whether it is there, opened anew if it was taken over or made anew.
    ///
    /// # Errors
    ///
    /// It was not there at the last look either, or it cannot be opened.
    fn is_there(&mut self) -> Result<bool> {
        self.is_another = false;
        let paths = self.context.paths.as_found()?;
        if self.instance.maps.are_pinned(&paths.pins())? {
            self.is_missing = false;
            return Ok(true);
        }
        match Self::open(&self.context) {
            Ok(opened) => {
                *self = Self {
                    is_another: true,
                    ..opened
                };
                Ok(true)
            }
            // On its way from one version to another it may be nowhere for a moment.
            Err(error) if error.is::<NothingLoaded>() && !self.is_missing => {
                self.is_missing = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
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
    next: Instant,
    interval: Duration,
    ending: OwnedFd,
}

impl Pace {
    fn new(first: Duration, interval: Duration) -> Result<Self> {
        Ok(Self {
            next: Instant::now() + first,
            interval,
            ending: syscalls::ending_signals().context("wait for Ctrl-C")?,
        })
    }

    /// Waits for the end of the interval; false after Ctrl-C or SIGTERM.
    fn goes_on(&mut self) -> Result<bool> {
        loop {
            let left = self.next.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).context("wait for so long")?;
            let mut signals = [PollFd::new(&self.ending, PollFlags::IN)];
            match poll(&mut signals, Some(&left)) {
                Ok(0) => break,
                Ok(_) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for the next look"),
            }
        }
        // One that comes late puts the others off.
        self.next = (self.next + self.interval).max(Instant::now());
        Ok(true)
    }
}
