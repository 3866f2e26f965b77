//! `portdemux set`: who is in a set.

use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use ipnet::IpNet;
use serde::Serialize;

use super::{
    Context,
    output::{Align, Table},
    report::milliseconds,
    safeguard::{self, Force, Safeguard},
};
use crate::{
    clock::Clock,
    control::Check,
    figures::grouped,
    members::{self, Changed},
    rules::{
        Ruleset,
        duration::two_units,
        source::{Becomes, Set, Source, parse_prefix},
        until::Until,
    },
    session::Session,
};

/// Show and change who is in a set
///
/// Sets are defined in the rules file; rules name them as @NAME in `from` and `deny`. A change holds at once for
/// all these rules, without a new ruleset, and becomes part of the text in force (see export).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux set list
  portdemux set add banned 198.51.100.7 2001:db8:7::/48 --expires 10m
  portdemux set remove banned 198.51.100.7")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Add(AddMembers),
    Remove(RemoveMembers),
    List(ListArgs),
}

/// Add prefixes to a set
///
/// A member that is there already gets the new expiry. All prefixes become members, or none.
#[derive(Debug, clap::Args)]
struct AddMembers {
    /// The set's name, with or without @
    name: String,
    /// Prefixes or addresses
    #[arg(required = true, value_name = "PREFIX", value_parser = prefix)]
    prefixes: Vec<IpNet>,
    /// How long they are members (90s, 1h30m, 7d, 2w), or until when (2030-01-31T12:00:00Z); left out: for good
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = until)]
    expires: Option<Until>,
    #[command(flatten)]
    force: Force,
}

/// Take prefixes out of a set
#[derive(Debug, clap::Args)]
struct RemoveMembers {
    /// The set's name, with or without @
    name: String,
    /// Prefixes or addresses, as they are in the set
    #[arg(required = true, value_name = "PREFIX", value_parser = prefix)]
    prefixes: Vec<IpNet>,
    #[command(flatten)]
    force: Force,
}

/// Show the sets, or the members of one
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The set's name; left out: all sets, and how many members each has
    name: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn prefix(text: &str) -> Result<IpNet, String> {
    parse_prefix(text).map_err(|error| super::with_help(&error, &error.help()))
}

fn until(text: &str) -> Result<Until, String> {
    Until::parse(text, Clock::now().unix).map_err(|error| super::with_help(&error, error.help()))
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    match &args.verb {
        Verb::Add(AddMembers {
            name,
            prefixes,
            expires,
            force,
        }) => change(context, name, prefixes, Becomes::Member(*expires), *force),
        Verb::Remove(RemoveMembers {
            name,
            prefixes,
            force,
        }) => change(context, name, prefixes, Becomes::NonMember, *force),
        Verb::List(args) => context.read(|context| list(args, context)),
    }
}

fn change(
    context: &Context,
    name: &str,
    prefixes: &[IpNet],
    becomes: Becomes,
    force: Force,
) -> Result<()> {
    let name = name.strip_prefix('@').unwrap_or(name);
    let safeguard = Safeguard::new(context, safeguard::Verb::Set, force.into(), false);
    let check = |instance: &_, joining: &[_], new: &_| safeguard.check(instance, joining, new);
    // What becomes of others cannot cut the session, and need not be compiled to see that.
    let is_concerned = match Session::find() {
        Ok(session) => session.is_some_and(|session| {
            let peer = session.peer.ip().to_canonical();
            prefixes.iter().any(|prefix| prefix.contains(&peer))
        }),
        // The check says why.
        Err(_) => true,
    };
    let check: Option<Check<'_>> = if is_concerned { Some(&check) } else { None };
    let changed = context.change_set(name, prefixes, becomes, check)?;
    say(context, name, &changed);
    Ok(())
}

/// How many members are written out before the rest is only counted.
const SHOWN: usize = 20;

fn say(context: &Context, name: &str, changed: &Changed) {
    let until = |becomes: Becomes| match becomes {
        Becomes::Member(Some(until)) => format!("until {until}"),
        Becomes::Member(None) => "for good".into(),
        Becomes::NonMember => String::new(),
    };
    for member in changed.members.iter().take(SHOWN) {
        let prefix = Source::Prefix(member.prefix);
        let (sign, says) = match (member.was, member.is) {
            (was, is) if was == is => ("=", until(is)),
            (_, Becomes::NonMember) => ("-", String::new()),
            (Becomes::NonMember, Becomes::Member(None)) => ("+", String::new()),
            (Becomes::NonMember, is @ Becomes::Member(Some(_))) => ("+", until(is)),
            (was @ Becomes::Member(_), is @ Becomes::Member(_)) => {
                ("~", format!("{} → {}", until(was), until(is)))
            }
        };
        let line = format!("{sign} @{name}  {prefix}  {says}");
        context.output.line(line.trim_end());
    }
    if let Some(more) = changed.members.len().checked_sub(SHOWN + 1) {
        context
            .output
            .line(format!("… {} more", grouped(more as u64 + 1)));
    }
    let generation = match changed.rebuilt {
        Some(generation) => format!("generation {}, ", generation.0),
        None => String::new(),
    };
    let prefixes = if changed.count == 1 {
        "prefix"
    } else {
        "prefixes"
    };
    context.output.line(format!(
        "@{name} has {} {prefixes}, {generation}{}, counters kept",
        grouped(changed.count as u64),
        milliseconds(changed.took)
    ));
    if !changed.is_used {
        context.output.note(format!("no rule names @{name}"));
    }
}

#[derive(Serialize)]
struct Report<'a> {
    instance: String,
    generation: u64,
    sets: Vec<ListedSet<'a>>,
}

#[derive(Serialize)]
struct ListedSet<'a> {
    name: &'a str,
    /// The rules that name it.
    rules: Vec<&'a str>,
    prefixes: Vec<ListedMember>,
}

#[derive(Serialize)]
struct ListedMember {
    prefix: String,
    /// Null for good.
    until: Option<String>,
}

fn list(args: &ListArgs, context: &Context) -> Result<()> {
    let instance = context.open()?;
    let in_force = context.in_force(&instance)?;
    let ruleset = &in_force.ruleset;
    let now = Clock::now().unix;
    let name = args.name.as_deref();
    let name = name.map(|name| name.strip_prefix('@').unwrap_or(name));
    let sets: Vec<&Set> = match name {
        Some(name) => vec![members::find(ruleset, name)?],
        None => ruleset.sets().iter().collect(),
    };
    if args.json {
        let report = Report {
            instance: context.paths.instance.to_string(),
            generation: in_force.generation.0,
            sets: sets
                .into_iter()
                .map(|set| ListedSet {
                    name: &set.name,
                    rules: rules_of(ruleset, set),
                    prefixes: set
                        .members(now)
                        .map(|(prefix, until)| ListedMember {
                            prefix: prefix.to_string(),
                            until: until.map(|until| until.to_string()),
                        })
                        .collect(),
                })
                .collect(),
        };
        context.output.line(serde_json::to_string(&report)?);
        return Ok(());
    }
    if sets.is_empty() {
        context
            .output
            .line("No sets: a rules file defines them in [sets]");
        return Ok(());
    }
    let table = match (name, &sets[..]) {
        (Some(_), [set]) => of_one(set, now),
        _ => of_all(ruleset, &sets, now),
    };
    context.output.write(&table.render(&context.output));
    Ok(())
}

fn rules_of<'r>(ruleset: &'r Ruleset, set: &Set) -> Vec<&'r str> {
    let names = |source: &Source| matches!(source, Source::Set(name) if *name == set.name);
    let rules = ruleset.rules().iter();
    rules
        .filter(|rule| rule.from.iter().chain(&rule.deny).any(names))
        .map(|rule| &*rule.name)
        .collect()
}

fn of_one(set: &Set, now: u64) -> Table {
    let mut table = Table::new()
        .column("PREFIX", Align::Left, 0)
        .column("UNTIL", Align::Left, 0)
        .column("LEFT", Align::Right, 1);
    for (prefix, until) in set.members(now) {
        let (until, left) = match until {
            Some(until) => (
                until.to_string(),
                two_units(Duration::from_millis(until.unix - now)),
            ),
            None => ("–".into(), "–".into()),
        };
        table.row([Source::Prefix(*prefix).to_string(), until, left]);
    }
    table
}

fn of_all(ruleset: &Ruleset, sets: &[&Set], now: u64) -> Table {
    let mut table = Table::new()
        .column("SET", Align::Left, 0)
        .column("PREFIXES", Align::Right, 0)
        .column("EXPIRING", Align::Right, 1)
        .column("NEXT", Align::Right, 2)
        .column("RULES", Align::Left, 0);
    for set in sets {
        let expiring: Vec<u64> = set
            .members(now)
            .filter_map(|(_, until)| Some(until?.unix - now))
            .collect();
        let next = expiring.iter().min();
        let rules = rules_of(ruleset, set);
        table.row([
            format!("@{}", set.name),
            grouped(set.members(now).count() as u64),
            if expiring.is_empty() {
                "–".into()
            } else {
                grouped(expiring.len() as u64)
            },
            next.map_or_else(
                || "–".into(),
                |&next| two_units(Duration::from_millis(next)),
            ),
            if rules.is_empty() {
                "–".into()
            } else {
                rules.join(" ")
            },
        ]);
    }
    table
}
