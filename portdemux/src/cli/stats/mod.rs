//! `portdemux stats`: live counters of ports, rules and reasons.

mod document;
mod page;
mod watch;

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::Result;
pub(super) use document::{Lost, Traffic};

use super::Context;
use crate::{
    listeners::Behind,
    rules::PortRange,
    snapshot::{PortKey, Snapshot},
};

/// How long rates are measured where nobody watches.
const SAMPLE: Duration = Duration::from_millis(300);

/// Show what came to ports, rules and for which reasons packets went where they did
///
/// Without ports: those that saw traffic or are claimed, the busiest first. Neighbouring ports of one
/// rule to which nothing came share a line.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux stats
  portdemux stats 443/tcp 8000-8999/tcp
  portdemux stats --watch           again every second, with rates
  portdemux stats --watch 5 --json  one document every 5 seconds, one on each line")]
pub(super) struct Args {
    /// Only these ports: PORT/PROTOCOL or FIRST-LAST/PROTOCOL
    #[arg(value_name = "PORT", value_parser = super::port)]
    ports: Vec<PortRange>,
    /// Every port, however many there are
    #[arg(long)]
    all: bool,
    /// Again and again, every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
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

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ if text.contains('/') => Err("ports stand before --watch".into()),
        _ => Err("seconds are a number from 0.05 to 86400".into()),
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    if let Some(interval) = args.watch {
        return watch::run(args, context, interval);
    }
    let maps = context.open()?;
    let now = Snapshot::take(&maps);
    let mut behind = Behind::default();
    let text = if args.json {
        document::line(args, context, &maps, &now, behind.again(&maps))?
    } else {
        thread::sleep(SAMPLE);
        let later = Snapshot::take(&maps);
        page::text(
            args,
            &context.output,
            &now,
            &later,
            behind.again(&maps),
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
