//! `portdemux status`: what is loaded, where, and whether it is well.

mod reach;
mod sockets;
mod tracked;

use std::{collections::BTreeMap, fs, thread, time::Duration};

use anyhow::Result;
use portdemux_common::reject::Replied;
use serde::Serialize;
use sockets::Sockets;
use tracked::Tracked;

use crate::{
    attached::{self, AttachState, AttachedInterface},
    change::{self, InForce},
    cli::{
        Context,
        counts::{LostReport, TrafficReport},
        output::{Align, Table},
    },
    control::Flaw,
    dataplane::redirect_drops,
    figures::{grouped, rate, size},
    instance::Instance,
    maps::Maps,
    rules::duration::seconds,
    unconfirmed::{self, Status, UnconfirmedChange},
};

/// How long rates are measured.
const SAMPLE: Duration = Duration::from_millis(300);

/// Show what is loaded and where it runs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux status
  portdemux status --json")]
pub(in crate::cli) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    instance: String,
    generation: u64,
    rules: Option<usize>,
    source: Option<String>,
    in_sync: Option<bool>,
    saved: Option<bool>,
    fell_back: bool,
    pending: Option<Waiting>,
    undone: Option<u64>,
    interfaces: Vec<InterfaceReport>,
    flows: Option<tracked::Report>,
    destinations: Vec<reach::ReachedInterface>,
    kinds: Vec<reach::Requirement>,
    losses_counted: Option<bool>,
    lost: Vec<LostReport>,
    answers: BTreeMap<&'static str, u64>,
    sockets: Sockets,
    kernel_memory_bytes: u64,
    version: &'static str,
}

/// A change that is undone unless it is confirmed.
#[derive(Serialize)]
struct Waiting {
    generation: u64,
    seconds_left: f64,
    /// Whether its time is over and it is still in force.
    overdue: bool,
    /// Whether the process is there that undoes it; null if that cannot be seen.
    guarded: Option<bool>,
    /// How often it was tried in vain to undo it, and why the last try failed.
    tries: u32,
    last_error: Option<String>,
    #[serde(skip)]
    status: Status,
}

#[derive(Serialize)]
pub(in crate::cli) struct InterfaceReport {
    name: String,
    renamed: Option<String>,
    index: u32,
    hook: &'static str,
    mode: &'static str,
    state: &'static str,
    program_version: String,
    received: TrafficReport,
    dropped: TrafficReport,
}

impl From<&AttachedInterface> for InterfaceReport {
    fn from(interface: &AttachedInterface) -> Self {
        Self {
            name: interface.name.clone(),
            renamed: interface.renamed.clone(),
            index: interface.index,
            hook: "xdp",
            mode: interface.mode,
            state: interface.state.name(),
            program_version: interface.version.clone(),
            received: interface.received.into(),
            dropped: interface.dropped.into(),
        }
    }
}

impl Waiting {
    /// What waits, or waited.
    fn of(unconfirmed: &UnconfirmedChange, instance: &Instance) -> Self {
        let status = unconfirmed.status(&instance.maps);
        let tries = unconfirmed.tries(&instance.paths);
        let left = match status {
            Status::Waiting(left) => left,
            Status::Overdue | Status::Undone | Status::Void => Duration::ZERO,
        };
        Self {
            generation: unconfirmed.generation,
            seconds_left: left.as_secs_f64(),
            overdue: status == Status::Overdue,
            guarded: unconfirmed::is_guarded(&instance.paths).ok(),
            tries: tries.count,
            last_error: (tries.count > 0).then_some(tries.error),
            status,
        }
    }

    /// Whether it waits still.
    fn is_in_force(&self) -> bool {
        matches!(self.status, Status::Waiting(_) | Status::Overdue)
    }

    fn say(&self, context: &Context) {
        let command = context.command();
        let generation = self.generation;
        match self.status {
            Status::Waiting(_) if self.guarded == Some(false) => context.output.warn(
                format!(
                    "generation {generation} waits for its confirmation, and the process is gone that would undo it: the next \
                     change does, once its time is over"
                ),
                Some(&format!("{command} confirm, or {command} confirm --undo")),
            ),
            Status::Waiting(left) => context.output.line(format!(
                "generation {generation} is undone in {}, unless: {command} confirm",
                seconds(left)
            )),
            Status::Overdue => {
                let tried = match (self.tries, &self.last_error) {
                    (1, Some(error)) => format!(": undoing it failed: {error}"),
                    (tries, Some(error)) => {
                        format!(": undoing it failed {tries} times, at last: {error}")
                    }
                    (_, None) => String::new(),
                };
                context.output.warn(
                    format!(
                        "generation {generation} was not confirmed in time and is still in force{tried}"
                    ),
                    Some(&format!("{command} confirm --undo")),
                );
            }
            Status::Undone => context.output.note(format!(
                "generation {generation} was not confirmed in time: the rules before it are in force again"
            )),
            Status::Void => {}
        }
    }
}

pub(in crate::cli) fn run(args: &Args, context: &Context) -> Result<()> {
    let instance = context.open()?;
    let paths = &context.paths;
    let in_force = context.in_force(&instance);
    let known = in_force.as_ref().ok();
    let in_sync = known.and_then(|known| change::is_in_sync(&instance, known));
    let source = known.and_then(|known| known.source.as_ref());
    let source = source.map(|path| path.display().to_string());
    let saved =
        known.and_then(|known| change::says_the_same(&instance, known, &context.boot_file()));
    let fell_back = known.is_some_and(|known| context.fell_back(known));
    let ruleset = in_force.as_ref().ok().map(|in_force| &in_force.ruleset);
    let rules = ruleset.map(|ruleset| ruleset.rules().len());
    let unconfirmed = UnconfirmedChange::read(paths)?;
    let unconfirmed = unconfirmed.map(|unconfirmed| Waiting::of(&unconfirmed, &instance));
    let before = attached::interfaces(&instance)?;
    let flows = instance.maps.flows().unwrap_or_else(|error| {
        context
            .output
            .warn(format!("{error:#}"), Some("apply the rules file again"));
        None
    });
    let flows = flows.as_ref().map(Tracked::read);
    let destinations = reach::destinations(&instance.maps)?;
    let used = reach::used(in_force.as_ref().ok());
    let lost = instance.maps.lost();
    let losses_counted = ruleset.and_then(|ruleset| redirect_drops::are_counted(paths, ruleset));
    let sockets = Sockets::read(&instance, ruleset);
    let answers = answers(&instance.maps);
    if args.json {
        let report = Report {
            instance: paths.instance.to_string(),
            generation: instance.maps.generation().0,
            rules,
            source,
            in_sync,
            saved,
            fell_back,
            undone: unconfirmed
                .as_ref()
                .filter(|waiting| waiting.status == Status::Undone)
                .map(|waiting| waiting.generation),
            pending: unconfirmed.filter(Waiting::is_in_force),
            interfaces: before.iter().map(InterfaceReport::from).collect(),
            flows: flows.as_ref().map(Tracked::report),
            destinations,
            kinds: reach::kinds(&used),
            losses_counted,
            lost: lost.iter().map(LostReport::from).collect(),
            answers: answers.into_iter().collect(),
            sockets,
            kernel_memory_bytes: instance.maps.memory(),
            version: env!("CARGO_PKG_VERSION"),
        };
        context.output.line(serde_json::to_string(&report)?);
        return Ok(());
    }

    let count = how_many(rules);
    let source = where_from(source, in_sync);
    context.output.line(format!(
        "{}   generation {}   {count}{source}",
        paths.instance,
        instance.maps.generation().0
    ));
    if fell_back {
        warn_of_fallback(context);
    } else {
        say_what_holds_at_boot(context, &instance, known, saved);
    }
    if let Some(waiting) = &unconfirmed {
        waiting.say(context);
    }
    if let Err(error) = &in_force {
        context.output.warn(format!("{error:#}"), None);
    }

    let after = say_interfaces(context, &instance, &before)?;
    for destination in &destinations {
        destination.warn(context);
    }
    context.output.write(&reach::text(&destinations, &used));
    context
        .output
        .write(&reach::redirect_drops(&lost, losses_counted));
    say_answers(context, &answers);
    sockets.say(context);
    if let Some(flows) = flows {
        context.output.write(&flows.text());
    }
    context.output.line(format!(
        "kernel memory {}   {}",
        size(instance.maps.memory()),
        versions(&after)
    ));
    Ok(())
}

/// Says what comes by the interfaces, after a moment to see it; returns them as they are then.
fn say_interfaces(
    context: &Context,
    instance: &Instance,
    before: &[AttachedInterface],
) -> Result<Vec<AttachedInterface>> {
    let begun = std::time::Instant::now();
    thread::sleep(SAMPLE);
    let after = attached::interfaces(instance)?;
    let seconds = begun.elapsed().as_secs_f64();
    if !after.is_empty() {
        let table = table(before, &after, seconds);
        context.output.write(&table.render(&context.output));
    }
    for interface in &after {
        warn_of_absence(context, interface);
    }
    Ok(after)
}

/// What became of rejected packets, and of how many.
fn answers(maps: &Maps) -> [(&'static str, u64); Replied::ALL.len()] {
    let counts = maps.counters.replied();
    Replied::ALL.map(|replied| (replied.name(), counts[replied as usize]))
}

/// The file that the rules came from, and whether it says the same still.
fn where_from(source: Option<String>, in_sync: Option<bool>) -> String {
    match (source, in_sync) {
        (Some(path), Some(true)) => format!("   {path} (in sync)"),
        (Some(path), Some(false)) => format!("   {path} (differs from what is in force)"),
        (Some(path), None) => format!("   {path} (cannot be read)"),
        (None, _) => String::new(),
    }
}

/// How many rules there are, in words.
fn how_many(rules: Option<usize>) -> String {
    match rules {
        None => "rules unknown".into(),
        Some(1) => "1 rule".into(),
        Some(count) => format!("{} rules", grouped(count as u64)),
    }
}

/// Says that the file for boot does not hold.
fn warn_of_fallback(context: &Context) {
    let file = context.boot_file();
    let file = file.display();
    context.output.warn(
        format!("{file} was not put in force: the rules hold that were last in force from it"),
        Some(&format!(
            "{} apply --dry-run {file} says why",
            context.command()
        )),
    );
}

/// Says that the file for boot protects nothing, or that other rules hold at boot, unless it was said of the file that
/// the rules came from.
fn say_what_holds_at_boot(
    context: &Context,
    instance: &Instance,
    known: Option<&InForce>,
    saved: Option<bool>,
) {
    let file = context.boot_file();
    match context.flaw(known.filter(|_| saved == Some(true))) {
        Some(Flaw::Mistake) => {
            context.output.warn(
                format!(
                    "{} has a mistake, and is not put in force at boot",
                    file.display()
                ),
                Some(&format!(
                    "{} apply --dry-run {} says which",
                    context.command(),
                    file.display()
                )),
            );
            return;
        }
        Some(Flaw::Unfit(error)) => {
            context.output.warn(
                format!("{} is not put in force at boot: {error}", file.display()),
                Some(&format!("{} save, after moving it away", context.command())),
            );
            return;
        }
        Some(Flaw::NoInterface) => {
            context.tell(context.no_interface(instance));
        }
        None => {}
    }
    if saved != Some(false) {
        return;
    }
    let path = fs::canonicalize(&file).ok();
    let is_said = known.is_some_and(|known| known.source == path);
    if !is_said {
        context.output.line(format!(
            "at boot {} holds, which differs: {} save",
            file.display(),
            context.command()
        ));
    }
}

/// Says what the senders of rejected packets were told, if anything.
fn say_answers(context: &Context, answers: &[(&str, u64)]) {
    if answers.iter().any(|&(_, count)| count != 0) {
        let counts: Vec<String> = answers
            .iter()
            .map(|&(word, count)| format!("{word} {}", grouped(count)))
            .collect();
        let counts = counts.join(", ");
        let line = format!("answers to what was rejected: {counts}");
        context.output.line(line);
    }
}

/// Which version the programs have, and this binary.
fn versions(interfaces: &[AttachedInterface]) -> String {
    let old = interfaces
        .iter()
        .find(|interface| interface.version != env!("CARGO_PKG_VERSION"));
    match old {
        None => format!("program {} = binary", env!("CARGO_PKG_VERSION")),
        Some(old) => format!(
            "program {} on {}, binary {}: attach again to replace it",
            old.version,
            old.name,
            env!("CARGO_PKG_VERSION")
        ),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is read by people")]
fn table(before: &[AttachedInterface], after: &[AttachedInterface], seconds: f64) -> Table {
    let mut table = Table::new()
        .column("INTERFACE", Align::Left, 0)
        .column("HOOK", Align::Left, 0)
        .column("PACKETS", Align::Right, 2)
        .column("PACKETS/S", Align::Right, 0)
        .column("BITS/S", Align::Right, 1)
        .column("DROPPED/S", Align::Right, 0);
    for now in after {
        let then = before
            .iter()
            .find(|then| then.slot == now.slot)
            .unwrap_or(now);
        let per_second = |new: u64, old: u64| rate(new.saturating_sub(old) as f64 / seconds);
        let hook = match now.state {
            AttachState::Attached | AttachState::Elsewhere => format!("xdp {}", now.mode),
            AttachState::Detached | AttachState::Vanished | AttachState::Returned => {
                now.state.name().to_owned()
            }
        };
        table.row([
            now.renamed.clone().unwrap_or_else(|| now.name.clone()),
            hook,
            grouped(now.received.packets),
            per_second(now.received.packets, then.received.packets),
            per_second(now.received.bytes * 8, then.received.bytes * 8),
            per_second(now.dropped.packets, then.dropped.packets),
        ]);
    }
    table
}

fn warn_of_absence(context: &Context, interface: &AttachedInterface) {
    let (name, command) = (&interface.name, context.command());
    match interface.state {
        AttachState::Attached => {
            if let Some(today) = &interface.renamed {
                context
                    .output
                    .note(format!("{today} was {name} when it was attached"));
            }
        }
        AttachState::Detached => {}
        AttachState::Elsewhere => context
            .output
            .note(format!("{name} lies in another network namespace")),
        AttachState::Vanished => context.output.warn(
            format!("{name} is gone, and the program with it; its counters are kept"),
            Some(&format!(
                "{command} attach {name} once it is back, or {command} detach {name}"
            )),
        ),
        AttachState::Returned => context.output.warn(
            format!("{name} was removed and made again: the program does not run on it"),
            Some(&format!("{command} attach {name}")),
        ),
    }
}
