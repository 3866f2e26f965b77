//! `portdemux rules`: the rules in force.

use std::collections::BTreeMap;

use anyhow::Result;
use portdemux_common::{ids::RuleId, ruleset::Header};
use serde::Serialize;

use super::{
    Context,
    counts::TrafficReport,
    listeners,
    output::{Align, Table},
    socket,
};
use crate::{
    clock::Clock,
    figures::{grouped, size},
    listeners::Behind,
    rules::{self, Destination, Word, flows::TIMEOUT_KEYS},
    socket_groups,
};

/// Show the rules in force and what came for each
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux rules
  portdemux rules --json")]
pub(super) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    instance: String,
    generation: u64,
    attach: Option<AttachRow<'a>>,
    defaults: BTreeMap<&'static str, &'static str>,
    flows: Option<FlowsRow>,
    sets: Vec<SetRow<'a>>,
    rules: Vec<RuleRow<'a>>,
}

/// Where the rules say that they are attached.
#[derive(Serialize)]
struct AttachRow<'a> {
    interface: &'a [String],
    mode: &'static str,
}

#[derive(Serialize)]
struct SetRow<'a> {
    name: &'a str,
    prefixes: Vec<String>,
}

#[derive(Serialize)]
struct FlowsRow {
    size: u32,
    half_open: u32,
    /// How long flows are remembered, in seconds.
    timeouts: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
struct RateRow {
    packets: u64,
    seconds: u64,
    burst: u64,
}

#[derive(Serialize)]
struct RuleRow<'a> {
    name: &'a str,
    ports: Vec<String>,
    addresses: Vec<String>,
    from: Vec<String>,
    deny: Vec<String>,
    to: String,
    /// The sockets that are there, if it is for sockets.
    sockets: Option<Vec<socket::MemberReport>>,
    /// Who has them, in a few words.
    #[serde(skip)]
    who: Option<String>,
    fallback: Option<&'static str>,
    mac: Option<String>,
    queue: Option<u16>,
    role: &'static str,
    connections: &'static str,
    rate: Option<RateRow>,
    new_rate: Option<RateRow>,
    per: &'static str,
    shadow: bool,
    line: usize,
    received: TrafficReport,
    dropped: TrafficReport,
    listeners: Option<Vec<Option<&'a str>>>,
    /// What it asks of packets, for people.
    #[serde(skip)]
    terms: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let instance = context.open()?;
    let in_force = context.in_force(&instance)?;
    let image = instance.maps.image();
    let ids = instance.maps.rule_names(&image);
    let count = ids.keys().max().map_or(0, |&last| last as usize + 1);
    let counters = instance.maps.counters.rules(count);
    let by_name: std::collections::HashMap<&str, RuleId> =
        ids.iter().map(|(&id, name)| (name.as_str(), id)).collect();
    // Without them the rules are worth knowing still.
    let mut behind = Behind::default();
    let behind = behind.again(&instance.maps);
    let mut all_rules = in_force.ruleset.rules().iter();
    let is_for_socket = |rule: &rules::Rule| matches!(rule.to, Destination::Socket(_));
    // Who has which socket is asked of every process.
    let groups = if all_rules.any(is_for_socket) {
        socket_groups::all(&instance.maps)
    } else {
        Vec::new()
    };
    let rules: Vec<RuleRow<'_>> = in_force
        .ruleset
        .rules()
        .iter()
        .map(|rule| {
            let counted = by_name
                .get(rule.name.as_str())
                .map(|&id| counters[id as usize])
                .unwrap_or_default();
            let terms = &rule.terms;
            let target = rule.delivery.target(&rule.to);
            let fallback = rule.delivery.fallback.or(rule.to.usual_fallback());
            let group = groups
                .iter()
                .find(|group| matches!(&rule.to, Destination::Socket(name) if *name == group.name));
            let mut transports: Vec<_> = rule.ports.iter().map(|range| range.transport).collect();
            transports.dedup();
            let phrases = rule.phrases().into_iter().map(|(_, phrase)| phrase);
            RuleRow {
                name: &rule.name,
                ports: rule.ports.iter().map(ToString::to_string).collect(),
                addresses: rule.addresses.iter().map(ToString::to_string).collect(),
                from: rule.from.iter().map(ToString::to_string).collect(),
                deny: rule.deny.iter().map(ToString::to_string).collect(),
                to: rule.to.to_string(),
                sockets: is_for_socket(rule).then(|| {
                    let members = group.into_iter().flat_map(|group| &group.members);
                    members.map(socket::MemberReport::from).collect()
                }),
                who: is_for_socket(rule)
                    .then(|| group.map_or_else(|| "none".into(), |group| group.who(&transports))),
                fallback: fallback.map(Word::name),
                mac: rule.delivery.mac.map(|mac| mac.to_string()),
                queue: (target.queue != 0).then_some(target.queue),
                role: rule.role.name(),
                connections: terms.connections.name(),
                rate: terms.rate.map(|rate| RateRow::of(rate, terms.burst)),
                new_rate: terms
                    .new_rate
                    .map(|rate| RateRow::of(rate, terms.new_burst)),
                per: terms.per.unwrap_or_default().name(),
                shadow: rule.shadow,
                line: rule.line,
                received: counted.received.into(),
                dropped: counted.dropped.into(),
                listeners: behind.map(|behind| behind.rule(rule)),
                terms: phrases.collect::<Vec<_>>().join(", "),
            }
        })
        .collect();
    if args.json {
        let now = Clock::now().unix;
        let report = Report {
            instance: context.paths.instance.to_string(),
            generation: in_force.generation.0,
            attach: AttachRow::of(in_force.ruleset.attach()),
            defaults: in_force.ruleset.defaults().words().into_iter().collect(),
            flows: FlowsRow::of(&in_force.ruleset, &image.header),
            sets: in_force
                .ruleset
                .sets()
                .iter()
                .map(|set| SetRow {
                    name: &set.name,
                    prefixes: set
                        .members(now)
                        .map(|(prefix, _)| prefix.to_string())
                        .collect(),
                })
                .collect(),
            rules,
        };
        context.output.line(serde_json::to_string(&report)?);
        return Ok(());
    }
    if rules.is_empty() {
        context
            .output
            .line("No rules: all that is well-formed passes and is counted");
        return Ok(());
    }
    context.output.write(&table(&rules).render(&context.output));
    Ok(())
}

fn table(rules: &[RuleRow<'_>]) -> Table {
    // What a rule is gives way after what it counted. Who may use the ports takes a column only where not everyone may, and so does what else is asked.
    let lists_sources = rules
        .iter()
        .any(|rule| !rule.from.is_empty() || !rule.deny.is_empty());
    let has_terms = rules.iter().any(|rule| !rule.terms.is_empty());
    // An address that is the same for all says the least.
    let address = if rules.iter().all(|rule| rule.addresses.is_empty()) {
        10
    } else {
        2
    };
    let mut table = Table::new()
        .keep(2)
        .column("RULE", Align::Left, 0)
        .column("PORTS", Align::Left, 0)
        .column("ADDRESS", Align::Left, address);
    if lists_sources {
        table = table.column("FROM", Align::Left, 0);
    }
    table = table
        .column("TO", Align::Left, 0)
        .column("LISTENER", Align::Left, 9);
    if has_terms {
        table = table.column("TERMS", Align::Left, 1);
    }
    table = table
        .column("RECEIVED", Align::Right, 6)
        .column("BYTES", Align::Right, 8)
        .column("DROPPED", Align::Right, 7);
    for rule in rules {
        let addresses = if rule.addresses.is_empty() {
            "any".into()
        } else {
            rule.addresses.join(" ")
        };
        let mut row = vec![rule.name.to_owned(), rule.ports.join(" "), addresses];
        row.extend(lists_sources.then(|| sources(rule)));
        row.push(rule.to.clone());
        row.push(
            rule.who
                .clone()
                .unwrap_or_else(|| listeners::cell(rule.listeners.as_deref().unwrap_or_default())),
        );
        row.extend(has_terms.then(|| rule.terms.clone()));
        row.extend([
            grouped(rule.received.packets),
            size(rule.received.bytes),
            grouped(rule.dropped.packets),
        ]);
        table.row(row);
    }
    table
}

impl<'a> AttachRow<'a> {
    fn of(said: &'a rules::Attach) -> Option<Self> {
        (!said.interfaces.is_empty()).then(|| Self {
            interface: &said.interfaces,
            mode: said.mode.name(),
        })
    }
}

impl FlowsRow {
    /// What is in force: a text that says no size means another one to a version with other defaults.
    fn of(ruleset: &rules::Ruleset, header: &Header) -> Option<Self> {
        let timeouts = ruleset.flows()?.timeouts;
        let seconds = timeouts.map(|timeout| timeout.as_secs_f64());
        Some(Self {
            size: header.flows,
            half_open: header.half_open,
            timeouts: TIMEOUT_KEYS.into_iter().zip(seconds).collect(),
        })
    }
}

impl RateRow {
    fn of(rate: rules::Rate, burst: Option<u64>) -> Self {
        Self {
            packets: rate.packets(),
            seconds: rate.seconds(),
            burst: burst.unwrap_or(rate.default_burst()),
        }
    }
}

/// Who may use a rule's ports, as in `@office` or `any but 192.0.2.66`.
fn sources(rule: &RuleRow<'_>) -> String {
    let from = if rule.from.is_empty() {
        "any".into()
    } else {
        rule.from.join(" ")
    };
    if rule.deny.is_empty() {
        from
    } else {
        format!("{from} but {}", rule.deny.join(" "))
    }
}
