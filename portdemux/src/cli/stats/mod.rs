//! `portdemux stats`: live counters of ports, rules and reasons.

mod document;
mod page;
mod watch;

use std::{collections::BTreeSet, ops::RangeInclusive, thread, time::Duration};

use anyhow::Result;

use super::Context;
use crate::{
    listeners::Behind,
    rules::{
        PortRange,
        duration::{duration_text, parse_duration},
    },
    snapshot::{PortKey, Snapshot},
};

/// How long rates are measured where nobody watches.
const SAMPLE: Duration = Duration::from_millis(300);

/// Show what came for ports and rules, and why packets passed or were dropped
///
/// Without PORT it shows the ports that saw traffic or are claimed, the busiest first. Neighbouring ports of one
/// rule that saw nothing share a line.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "portdemux stats [PORT]... [OPTIONS]",
    after_help = "\
Examples:
  portdemux stats
  portdemux stats 443/tcp 8000-8999/tcp
  portdemux stats --watch            again every second
  portdemux stats --watch 5s --json  a document on a line every 5 seconds"
)]
pub(super) struct Args {
    /// Ports to show: PORT/PROTOCOL or FIRST-LAST/PROTOCOL
    #[arg(value_name = "PORT", value_parser = super::port)]
    ports: Vec<PortRange>,
    /// Show every port, however many there are
    #[arg(long)]
    all: bool,
    /// Show it again and again until Ctrl-C, every second or every TIME: 5 for seconds, or as in 500ms or 1m; PORT
    /// goes before it
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1s", value_parser = interval)]
    watch: Option<Duration>,
    /// Print JSON: one document, with --watch one on each line
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether it is shown again and again.
    pub(super) const fn goes_on(&self) -> bool {
        self.watch.is_some()
    }
}

/// How long it may be from one page to the next.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_hours(24);

/// Reads the time from one page to the next: a number of seconds or a duration.
fn interval(text: &str) -> Result<Duration, String> {
    if text.contains('/') {
        return Err("ports stand before --watch".into());
    }
    let seconds = text.parse().ok().map(Duration::try_from_secs_f64);
    let interval = match seconds {
        Some(seconds) => seconds.ok(),
        None => parse_duration(text).ok(),
    };
    interval
        .filter(|time| INTERVALS.contains(time))
        .ok_or_else(|| {
            format!(
                "write seconds, or a number and its unit, from {} to {}",
                duration_text(*INTERVALS.start()),
                duration_text(*INTERVALS.end())
            )
        })
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    if let Some(interval) = args.watch {
        return watch::run(args, context, interval);
    }
    let instance = context.open()?;
    let now = Snapshot::take(&instance.maps);
    let mut behind = Behind::default();
    let text = if args.json {
        document::line(args, context, &instance, &now, behind.again(&instance.maps))?
    } else {
        thread::sleep(SAMPLE);
        let later = Snapshot::take(&instance.maps);
        page::text(
            args,
            &context.output,
            &now,
            &later,
            behind.again(&instance.maps),
            None,
        )
    };
    context.output.write(&text);
    Ok(())
}

/// The ports that were asked for, or those of interest, ascending.
fn chosen(args: &Args, snapshot: &Snapshot) -> Vec<PortKey> {
    if args.ports.is_empty() {
        return snapshot.ports();
    }
    let mut keys: BTreeSet<PortKey> = BTreeSet::new();
    for range in &args.ports {
        keys.extend(
            (range.first..=range.last)
                .map(|port| (range.transport, port))
                // A port that was named is shown though nothing came; a range shows what is there.
                .filter(|&key| is_single(*range) || snapshot.is_of_interest(key)),
        );
    }
    keys.into_iter().collect()
}

const fn is_single(range: PortRange) -> bool {
    range.first == range.last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another_after_seconds_or_a_duration() {
        for (text, milliseconds) in [
            ("5", 5_000),
            ("0.05", 50),
            ("500ms", 500),
            ("1m30s", 90_000),
        ] {
            assert_eq!(
                interval(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in ["0", "49ms", "2d", "86401", "-1", "inf", "NaN", "5x", ""] {
            let error = interval(text).unwrap_err();
            assert!(error.ends_with("from 50ms to 24h"), "{text}: {error}");
        }
        assert_eq!(
            interval("443/tcp"),
            Err("ports stand before --watch".into())
        );
    }
}
