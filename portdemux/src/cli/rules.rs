//! `portdemux rules`: the rules in force.

use anyhow::Result;
use portdemux_common::ruleset::RuleId;
use serde::Serialize;

use super::{
    Context,
    output::{Align, Table},
    stats::Traffic,
};
use crate::{
    figures::{grouped, size},
    rules::Word as _,
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
    defaults: Defaults,
    sets: Vec<Set<'a>>,
    rules: Vec<Rule<'a>>,
}

#[derive(Serialize)]
struct Set<'a> {
    name: &'a str,
    prefixes: Vec<String>,
}

#[derive(Serialize)]
struct Defaults {
    inbound: &'static str,
    malformed: &'static str,
}

#[derive(Serialize)]
struct Rule<'a> {
    name: &'a str,
    ports: Vec<String>,
    addresses: Vec<String>,
    from: Vec<String>,
    deny: Vec<String>,
    to: &'static str,
    line: usize,
    received: Traffic,
    dropped: Traffic,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let maps = context.open()?;
    let in_force = context.in_force(&maps)?;
    let image = maps.image();
    let ids = maps.rule_names(&image);
    let count = ids.keys().max().map_or(0, |&last| last as usize + 1);
    let counters = maps.counters.rules(count);
    let by_name: std::collections::HashMap<&str, RuleId> =
        ids.iter().map(|(&id, name)| (name.as_str(), id)).collect();
    let rules: Vec<Rule<'_>> = in_force
        .ruleset
        .rules()
        .iter()
        .map(|rule| {
            let counted = by_name
                .get(rule.name.as_str())
                .map(|&id| counters[id as usize])
                .unwrap_or_default();
            Rule {
                name: &rule.name,
                ports: rule.ports.iter().map(ToString::to_string).collect(),
                addresses: rule.addresses.iter().map(ToString::to_string).collect(),
                from: rule.from.iter().map(ToString::to_string).collect(),
                deny: rule.deny.iter().map(ToString::to_string).collect(),
                to: rule.to.name(),
                line: rule.line,
                received: counted.received.into(),
                dropped: counted.dropped.into(),
            }
        })
        .collect();
    if args.json {
        let report = Report {
            instance: context.places.instance.to_string(),
            generation: in_force.generation.0,
            defaults: Defaults {
                inbound: "pass",
                malformed: in_force.ruleset.defaults().malformed.name(),
            },
            sets: in_force
                .ruleset
                .sets()
                .iter()
                .map(|set| Set {
                    name: &set.name,
                    prefixes: set.prefixes.iter().map(ToString::to_string).collect(),
                })
                .collect(),
            rules,
        };
        return Ok(context.output.line(serde_json::to_string(&report)?)?);
    }
    if rules.is_empty() {
        context
            .output
            .line("No rules: all that is well-formed passes and is counted")?;
        return Ok(());
    }
    // Who may use the ports takes a column only where not everyone may.
    let lists_sources = rules
        .iter()
        .any(|rule| !rule.from.is_empty() || !rule.deny.is_empty());
    let mut table = Table::new()
        .column("RULE", Align::Left, 0)
        .column("PORTS", Align::Left, 0)
        .column("ADDRESS", Align::Left, 2);
    if lists_sources {
        table = table.column("FROM", Align::Left, 0);
    }
    table = table
        .column("TO", Align::Left, 0)
        .column("RECEIVED", Align::Right, 0)
        .column("BYTES", Align::Right, 3)
        .column("DROPPED", Align::Right, 1);
    for rule in &rules {
        let addresses = if rule.addresses.is_empty() {
            "any".into()
        } else {
            rule.addresses.join(" ")
        };
        let mut row = vec![rule.name.to_owned(), rule.ports.join(" "), addresses];
        if lists_sources {
            row.push(sources(rule));
        }
        row.extend([
            rule.to.to_owned(),
            grouped(rule.received.packets),
            size(rule.received.bytes),
            grouped(rule.dropped.packets),
        ]);
        table.row(row);
    }
    context.output.write(&table.render(&context.output))?;
    Ok(())
}

/// Who may use a rule's ports, as in `@office` or `any but 192.0.2.66`.
fn sources(rule: &Rule<'_>) -> String {
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
