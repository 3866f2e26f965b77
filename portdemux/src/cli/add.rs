//! `portdemux add`: claim ports.

use std::net::IpAddr;

use anyhow::Result;

use super::{
    Context, report,
    safeguard::{self, Verb},
};
use crate::{
    control::Edit,
    rules::{
        Connections, Delivery, Destination, Per, PortRange, Rate, Role, Source, Terms,
        destination::{Fallback, Mac},
        edit,
    },
};

/// Claim ports with one new rule
///
/// The rule is added to the rules in force and to their text (see export).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux add 443/tcp 443/udp --name https
  portdemux add 8000-8999/tcp --to drop
  portdemux add 53/udp --to cpu:2-5
  portdemux add 53/udp --address 192.0.2.53 --address 2001:db8::53
  portdemux add 80/tcp --to socket:127.0.0.1:8080    to what listens there
  portdemux add 22/tcp --from 192.0.2.0/24,2001:db8:1::/48 --deny 192.0.2.66
  portdemux add 22/tcp --from 192.0.2.0/24 --confirm 60s    undone by itself
  portdemux add 22/tcp --new-rate 10/m --per source
  portdemux add 32768-60999/udp --connections established
  portdemux add 443/tcp --role source --connections established    replies only
  portdemux add 443/tcp --role source    wrong: lets in whoever sends from 443")]
pub(super) struct Args {
    /// Ports to claim: PORT/PROTOCOL or FIRST-LAST/PROTOCOL; the protocol is tcp, udp or sctp
    #[arg(required = true, value_name = "PORT", value_parser = super::port)]
    ports: Vec<PortRange>,
    /// The rule's name; left out: its first port, with the first address if there is one
    #[arg(long)]
    name: Option<String>,
    /// Claim the ports at this destination address only; can be given more than once
    #[arg(long, value_name = "ADDRESS", value_parser = super::address)]
    address: Vec<IpAddr>,
    /// Who may use the ports: prefixes, addresses, or sets of the rules as @NAME, with commas between; left out:
    /// anyone
    #[arg(long, value_name = "SOURCE", value_delimiter = ',', value_parser = super::source)]
    from: Vec<Source>,
    /// Who may not, whatever --from says; written like --from
    #[arg(long, value_name = "SOURCE", value_delimiter = ',', value_parser = super::source)]
    deny: Vec<Source>,
    /// Where packets go: local, drop, reject, socket:ADDRESS:PORT, socket:localhost:PORT, socket:NAME,
    /// interface:NAME, cpu:LIST or xsk:NAME
    #[arg(long, value_name = "DESTINATION", default_value_t, value_parser = super::destination)]
    to: Destination,
    /// Where they go while that socket, interface or program is missing: local, reject or drop
    #[arg(long, value_name = "DESTINATION", value_parser = super::word::<Fallback>)]
    fallback: Option<Fallback>,
    /// The MAC address that frames are sent to, with --to interface:NAME; left out: the one they have
    #[arg(long, value_name = "ADDRESS", value_parser = super::mac)]
    mac: Option<Mac>,
    /// How many frames wait for a CPU at most, with --to cpu:LIST
    #[arg(long, value_name = "FRAMES", value_parser = super::queue)]
    queue: Option<u16>,
    /// Which packets may come: all, or established for replies to this host only
    #[arg(long, value_name = "WHICH", default_value = "all", value_parser = super::word::<Connections>)]
    connections: Connections,
    /// Whose ports are claimed: destination for this host's, source for those of peers
    ///
    /// Anyone can send from any port: 443/tcp --role source alone lets in whoever sends from 443, to every port
    /// here that no rule claims. To let in replies from port 443 only, add --connections established.
    #[arg(long, value_name = "ROLE", default_value = "destination", value_parser = super::word::<Role>)]
    role: Role,
    /// How many packets may come, as in 1000/s, 10/m or 3/h
    #[arg(long, value_name = "RATE", value_parser = super::rate)]
    rate: Option<Rate>,
    /// How many packets may come at once; left out: as many as the rate names
    #[arg(long, value_name = "PACKETS", value_parser = super::burst)]
    burst: Option<u64>,
    /// How many packets may begin a flow, as in 10/m
    #[arg(long, value_name = "RATE", value_parser = super::rate)]
    new_rate: Option<Rate>,
    /// How many of these at once; left out: as many as the rate names
    #[arg(long, value_name = "PACKETS", value_parser = super::burst)]
    new_burst: Option<u64>,
    /// For whom the rates hold: rule for all together, source for each IPv4 address and each IPv6 network of 64
    /// bits by itself
    #[arg(long, value_name = "WHOM", value_parser = super::word::<Per>)]
    per: Option<Per>,
    /// Only count what the rule would do; portdemux promote makes it real
    #[arg(long)]
    shadow: bool,
    #[command(flatten)]
    safeguard: safeguard::Args,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let rule = edit::NewRule {
        name: args.name.clone(),
        ports: args.ports.clone(),
        addresses: args.address.clone(),
        from: args.from.clone(),
        deny: args.deny.clone(),
        to: Some(args.to.clone()),
        delivery: Delivery {
            fallback: args.fallback,
            mac: args.mac,
            queue: args.queue,
        },
        role: args.role,
        terms: Terms {
            connections: args.connections,
            rate: args.rate,
            burst: args.burst,
            per: args.per,
            new_rate: args.new_rate,
            new_burst: args.new_burst,
        },
        shadow: args.shadow,
    };
    report::edit(context, Edit::Add(&rule), Verb::Add, args.safeguard)
}
