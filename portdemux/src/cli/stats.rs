//! `portdemux stats`: live counters of ports, rules and reasons.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use portdemux_common::{counters::Counter, ruleset::Action, wire::Transport};
use serde::Serialize;

use super::{
    Context,
    output::{Align, Style, Table, grouped, rate, size},
    status::Interface,
};
use crate::{
    attached,
    dataplane::{counters, maps::Maps},
    rules::PortRange,
    snapshot::{PortKey, Snapshot},
};

/// How many ports are shown where nobody asked for all.
const PORTS_SHOWN: usize = 20;
/// How many rules are shown where nobody asked for all.
const RULES_SHOWN: usize = 10;
/// How long rates are measured where nobody watches.
const SAMPLE: Duration = Duration::from_millis(300);

/// Show what came to ports, rules and for which reasons packets went where they did
///
/// Without ports: those that saw traffic or are claimed, the busiest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux stats
  portdemux stats 443/tcp 8000-8999/tcp
  portdemux stats --watch          again every second, with rates
  portdemux stats --watch 5 --json one document every 5 seconds, one on each line")]
pub(super) struct Args {
    /// Only these ports: PORT/PROTOCOL or FIRST-LAST/PROTOCOL
    #[arg(value_name = "PORT")]
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

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds are a number from 0.05 to 86400".into()),
    }
}

/// Packets and bytes, as they stand in JSON.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Traffic {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl From<Counter> for Traffic {
    fn from(counter: Counter) -> Self {
        Self {
            packets: counter.packets,
            bytes: counter.bytes,
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    instance: String,
    generation: u64,
    time: f64,
    interfaces: Vec<Interface>,
    ports: Vec<PortReport<'a>>,
    rules: Vec<RuleReport<'a>>,
    reasons: Vec<ReasonReport>,
}

#[derive(Serialize)]
struct PortReport<'a> {
    protocol: &'static str,
    port: u16,
    rule: Option<&'a str>,
    received: Traffic,
    dropped: Traffic,
}

#[derive(Serialize)]
struct RuleReport<'a> {
    rule: &'a str,
    received: Traffic,
    dropped: Traffic,
}

#[derive(Serialize)]
struct ReasonReport {
    reason: &'static str,
    packets: u64,
    bytes: u64,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let maps = context.open()?;
    match args.watch {
        Some(interval) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(watch(args, context, &maps, interval))
        }
        None if args.json => print_json(args, context, &maps, &Snapshot::take(&maps)),
        None => {
            let before = Snapshot::take(&maps);
            thread::sleep(SAMPLE);
            let after = Snapshot::take(&maps);
            Ok(context
                .output
                .write(&page(args, context, &before, &after, None))?)
        }
    }
}

/// Prints again at every interval, until Ctrl-C or the reader goes away.
async fn watch(args: &Args, context: &Context, maps: &Maps, interval: Duration) -> Result<()> {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: Option<Snapshot> = None;
    let redraws = context.output.is_terminal() && !args.json;
    if redraws {
        // The alternate screen leaves what was on the terminal as it was.
        context.output.write("\x1b[?1049h\x1b[?25l")?;
    }
    let ended = loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = tokio::signal::ctrl_c() => break Ok(()),
        }
        let now = Snapshot::take(maps);
        let printed = if args.json {
            print_json(args, context, maps, &now)
        } else {
            let before = before.as_ref().unwrap_or(&now);
            let lines = redraws.then(|| context.output.size().1);
            let page = page(args, context, before, &now, lines);
            let page = if redraws { redrawn(&page) } else { page + "\n" };
            context.output.write(&page).map_err(Into::into)
        };
        if printed.is_err() {
            break printed;
        }
        before = Some(now);
    };
    if redraws {
        context.output.write("\x1b[?25h\x1b[?1049l")?;
    }
    ended
}

/// A page over the one before it: every line is cleared to its end, and what is below.
fn redrawn(page: &str) -> String {
    let mut text = String::from("\x1b[H");
    for line in page.lines() {
        text.push_str(line);
        text.push_str("\x1b[K\r\n");
    }
    text.push_str("\x1b[J");
    text
}

/// The ports that were asked for, or those of interest.
fn chosen(args: &Args, snapshot: &Snapshot) -> Vec<PortKey> {
    if args.ports.is_empty() {
        return snapshot.ports();
    }
    let mut keys: BTreeSet<PortKey> = BTreeSet::new();
    for range in &args.ports {
        let is_single = range.first == range.last;
        keys.extend(
            (range.first..=range.last)
                .map(|port| (range.transport, port))
                // A port that was named is shown though nothing came; a range shows what is there.
                .filter(|&key| is_single || snapshot.is_of_interest(key)),
        );
    }
    keys.into_iter().collect()
}

fn print_json(args: &Args, context: &Context, maps: &Maps, snapshot: &Snapshot) -> Result<()> {
    let mut keys = chosen(args, snapshot);
    keys.sort_by_cached_key(|&key| {
        (
            std::cmp::Reverse(snapshot.traffic(key).received.packets),
            key,
        )
    });
    let ports = keys.into_iter().map(|key| {
        let traffic = snapshot.traffic(key);
        PortReport {
            protocol: key.0.name(),
            port: key.1,
            rule: snapshot.rule(key),
            received: traffic.received.into(),
            dropped: traffic.dropped.into(),
        }
    });
    let report = Report {
        instance: context.places.instance.to_string(),
        generation: snapshot.generation,
        time: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |now| now.as_secs_f64()),
        interfaces: attached::interfaces(&context.places, maps)?
            .iter()
            .map(Interface::from)
            .collect(),
        ports: ports.collect(),
        rules: rules(snapshot)
            .into_iter()
            .map(|(rule, traffic)| RuleReport {
                rule,
                received: traffic.received.into(),
                dropped: traffic.dropped.into(),
            })
            .collect(),
        reasons: snapshot
            .reasons()
            .into_iter()
            .map(|(reason, counter)| ReasonReport {
                reason,
                packets: counter.packets,
                bytes: counter.bytes,
            })
            .collect(),
    };
    Ok(context.output.line(serde_json::to_string(&report)?)?)
}

/// The rules and what came for them, the busiest first.
fn rules(snapshot: &Snapshot) -> Vec<(&str, counters::Traffic)> {
    let mut rules: Vec<_> = snapshot
        .names
        .iter()
        .map(|(&id, name)| (name.as_str(), snapshot.rules[id as usize]))
        .collect();
    rules.sort_by_key(|&(name, traffic)| (std::cmp::Reverse(traffic.received.packets), name));
    rules
}

/// Everything as tables; `lines` is how many there is room for, if there is an end.
fn page(
    args: &Args,
    context: &Context,
    before: &Snapshot,
    now: &Snapshot,
    lines: Option<usize>,
) -> String {
    let mut keys = chosen(args, now);
    keys.sort_by_cached_key(|&key| {
        let received = now.traffic(key).received.packets;
        (
            std::cmp::Reverse(received - before.traffic(key).received.packets.min(received)),
            std::cmp::Reverse(received),
            key,
        )
    });
    let rules = rules(now);
    let reasons = now.reasons();
    let rules_shown = if args.all {
        rules.len()
    } else {
        rules.len().min(RULES_SHOWN)
    };
    // Heads, blank lines and the lines that say how many more there are.
    let around = reasons.len() + rules_shown + 8;
    let room = lines.map_or(PORTS_SHOWN, |lines| lines.saturating_sub(around).max(3));
    let shown = if args.all {
        keys.len()
    } else {
        keys.len().min(room)
    };

    let mut text = port_table(&keys[..shown], before, now).render(&context.output);
    if shown < keys.len() {
        let more = format!(
            "… {} more ports saw traffic or are claimed (--all)\n",
            grouped((keys.len() - shown) as u64)
        );
        text.push_str(&context.output.styled(Style::Faint, &more));
    }
    if keys.is_empty() {
        text.push_str("no port saw traffic yet\n");
    }
    if !rules.is_empty() {
        let mut table = Table::new()
            .column("RULE", Align::Left, 0)
            .column("RECEIVED", Align::Right, 0)
            .column("BYTES", Align::Right, 1)
            .column("DROPPED", Align::Right, 0);
        for (name, traffic) in &rules[..rules_shown] {
            table.row([
                (*name).to_owned(),
                grouped(traffic.received.packets),
                size(traffic.received.bytes),
                grouped(traffic.dropped.packets),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render(&context.output));
        if rules_shown < rules.len() {
            let more = format!(
                "… {} more rules (--all)\n",
                grouped((rules.len() - rules_shown) as u64)
            );
            text.push_str(&context.output.styled(Style::Faint, &more));
        }
    }
    if !reasons.is_empty() {
        let mut table = Table::new()
            .column("REASON", Align::Left, 0)
            .column("PACKETS", Align::Right, 0)
            .column("BYTES", Align::Right, 1);
        for (reason, counter) in reasons {
            table.row([
                reason.to_owned(),
                grouped(counter.packets),
                size(counter.bytes),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render(&context.output));
    }
    text
}

fn port_table(keys: &[PortKey], before: &Snapshot, now: &Snapshot) -> Table {
    let seconds = (now.taken - before.taken).as_secs_f64();
    let mut table = Table::new()
        .column("PORT", Align::Left, 0)
        .column("RULE", Align::Left, 0)
        .column("RECEIVED", Align::Right, 0)
        .column("BYTES", Align::Right, 2)
        .column("PKT/S", Align::Right, 1)
        .column("DROPPED", Align::Right, 0)
        .column("WHY", Align::Left, 3);
    for &key in keys {
        let traffic = now.traffic(key);
        let packets = traffic.received.packets;
        let new = packets.saturating_sub(before.traffic(key).received.packets);
        #[expect(clippy::cast_precision_loss, reason = "a rate is read by people")]
        let per_second = if seconds > 0.0 {
            new as f64 / seconds
        } else {
            0.0
        };
        let entry = now.entry(key);
        let why = match (entry.is_claimed(), entry.action()) {
            (false, _) => "unclaimed",
            (true, Action::Drop) => "rule_drop",
            (true, Action::Local) => "",
        };
        table.row([
            spelled(key),
            now.rule(key).unwrap_or_default().to_owned(),
            grouped(packets),
            size(traffic.received.bytes),
            rate(per_second),
            grouped(traffic.dropped.packets),
            why.to_owned(),
        ]);
    }
    table
}

fn spelled((transport, port): (Transport, u16)) -> String {
    format!("{port}/{}", transport.name())
}
