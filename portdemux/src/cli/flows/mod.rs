//! `portdemux flows`: which flows are known, how far they have come and what became of them.

mod document;
mod kill;
mod page;

use anyhow::Result;
use ipnet::IpNet;

use super::Context;
use crate::{
    flows::{FlowProgress, Selection, busiest},
    maps::{
        Maps,
        flows::{Flow, now},
    },
    rules::{
        PortRange,
        source::{SourceError, parse_prefix},
    },
};

/// How many flows a table shows where nobody said so.
const SHOWN: u32 = 20;
/// How many a document lists where nobody said so.
const LISTED: u32 = 1000;

/// Show the flows that are known, the busiest first
///
/// Flows are tracked where the ruleset needs them (for example `inbound = "drop"` or `connections = "established"`)
/// or says so (`track = true` in `[flows]`). PORT is this host's port, or the identifier of an ICMP echo. BEGAN
/// is `peer` or `here`: who began the flow. STATE is opening, answered, established, closing or closed; ½ marks a
/// half-open flow: a peer began it and has not shown yet that it receives the answers. RULE is the rule that the
/// peer's next packet meets. WHY is the reason if its last packet was not let through. KNOWN is how long the flow
/// is known. LEFT is when it is forgotten if no packet comes.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  portdemux flows
  portdemux flows --port 443/tcp --state half-open
  portdemux flows --source 198.51.100.0/24 --limit 100
  portdemux flows --json
  portdemux flows kill --source 198.51.100.7"
)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    selectors: Selectors,
    /// How many flows at most; left out: 20 in a table, 1000 in JSON
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Kill(kill::Args),
}

/// What says which flows are meant.
#[derive(Debug, clap::Args)]
struct Selectors {
    /// Only flows of these ports of this host: PORT/PROTOCOL or FIRST-LAST/PROTOCOL, with commas between
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', value_parser = super::port)]
    ports: Vec<PortRange>,
    /// Only flows with peers in these prefixes or at these addresses, with commas between
    #[arg(long = "source", value_name = "PREFIX", value_delimiter = ',', value_parser = prefix)]
    sources: Vec<IpNet>,
    /// Only flows in these states, with commas between: opening, answered, established, closing, closed, half-open
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = super::word::<FlowProgress>)]
    states: Vec<FlowProgress>,
}

impl Selectors {
    fn selection(&self) -> Selection {
        Selection {
            ports: self.ports.clone(),
            sources: self.sources.clone(),
            states: self.states.clone(),
        }
    }
}

fn prefix(text: &str) -> Result<IpNet, String> {
    let prefix: Result<IpNet, SourceError> = parse_prefix(text);
    prefix.map_err(|error| super::with_help(&error, &error.help()))
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    if let Some(Verb::Kill(args)) = &args.verb {
        return kill::run(args, context);
    }
    context.read(|context| list(args, context))
}

fn list(args: &Args, context: &Context) -> Result<()> {
    let instance = context.open()?;
    if args.json {
        let flows = instance.maps.flows()?;
        let most = args.limit.unwrap_or(LISTED) as usize;
        let line = document::line(
            &args.selectors.selection(),
            most,
            context,
            &instance.maps,
            flows.as_ref(),
        )?;
        context.output.line(line);
        return Ok(());
    }
    let flows = context.flows(&instance)?;
    let most = args.limit.unwrap_or(SHOWN) as usize;
    let now = now();
    let found = busiest(flows.all(), &args.selectors.selection(), most, now);
    let text = page::text(&found, &instance.maps, &context.output, now);
    context.output.write(&text);
    Ok(())
}

/// The rules that the flows meet, by their names.
fn rule_names(maps: &Maps, flows: &[Flow]) -> Vec<Option<String>> {
    let ruleset = maps.compiled();
    let names = maps.rule_names(&ruleset);
    flows
        .iter()
        .map(|flow| names.get(&flow.rule(&ruleset)?).cloned())
        .collect()
}
