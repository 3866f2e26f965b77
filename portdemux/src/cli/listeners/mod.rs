//! `portdemux listeners`: which sockets wait for packets, whose they are, and how the rules reach them.

mod document;
mod page;

use anyhow::Result;
pub(super) use page::names as cell;

use super::Context;
use crate::{
    capabilities::{self, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE},
    change,
    error::NothingLoaded,
    listeners::{Judge, Listener, Listeners, Part, Reach, Users},
    rules::PortRange,
    sockets::Socket,
};

/// Show which sockets wait on ports, whose they are, and how the rules reach them
///
/// It lists the TCP and SCTP sockets of this network namespace that listen, and its UDP sockets that are bound and
/// not connected. ADDRESS is where the socket is bound: `0.0.0.0` is every IPv4 address, `::` every IPv6 address,
/// `any` both; `%eth0` follows if it is bound to that interface. QUEUE is how many connections wait to be accepted
/// and how many may; of UDP it is the memory of what waits to be read. REACH is how packets from other hosts come
/// to it under the rules in force, on the interfaces of the instance.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux listeners
  portdemux listeners 443/tcp 8000-8999/tcp
  portdemux listeners --json")]
pub(super) struct Args {
    /// Ports to show: PORT/PROTOCOL or FIRST-LAST/PROTOCOL
    #[arg(value_name = "PORT", value_parser = super::port)]
    ports: Vec<PortRange>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Whether there are rules, and what they say.
enum Rules {
    InForce(Box<Judge>),
    /// Nothing is loaded.
    None,
    /// They cannot be read.
    Unknown,
}

/// A listener and how the rules reach it, if that is known.
struct Row {
    listener: Listener,
    parts: Vec<Part>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let found = Listeners::find(&args.ports)?;
    let rules = rules(context);
    let unknown = found
        .all
        .iter()
        .filter(|listener| listener.holders.is_empty());
    let unknown = unknown.count();
    if unknown > 0 && !found.is_complete {
        tell_unknown(context, unknown);
    }
    let rows = sorted(found.all, &rules);
    if args.json {
        let line = document::line(&rows, &rules, found.is_complete, context)?;
        context.output.line(line);
        return Ok(());
    }
    if matches!(rules, Rules::None) {
        let instance = &context.paths.instance;
        context.output.note(format!(
            "instance {instance} is not loaded: no rules stand before these sockets"
        ));
    }
    let text = page::text(&rows, !args.ports.is_empty(), &context.output);
    context.output.write(&text);
    Ok(())
}

/// Says that the processes of so many sockets are not known, and what it takes to see them.
fn tell_unknown(context: &Context, count: usize) {
    let of = if count == 1 {
        "1 socket"
    } else {
        &format!("{count} sockets")
    };
    let lacking = capabilities::lacking(&[
        (CAP_SYS_PTRACE, "CAP_SYS_PTRACE"),
        (CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    ]);
    let lacking = lacking.unwrap_or_default().join(" and ");
    if lacking.is_empty() {
        context.output.warn(
            format!("the processes of {of} are not known: not every process can be looked into"),
            None,
        );
    } else {
        context.output.warn(
            format!("the processes of {of} are not known: this one lacks {lacking}"),
            Some("run it as root"),
        );
    }
}

/// The rules in force; says why if they cannot be read.
fn rules(context: &Context) -> Rules {
    let judge = context.open().and_then(|instance| {
        // What the text says about destinations; without it the kernel still says the rest.
        let in_force = change::in_force(&instance).ok();
        let ruleset = in_force.as_ref().map(|in_force| &in_force.ruleset);
        Judge::new(&instance, ruleset)
    });
    match judge {
        Ok(judge) => Rules::InForce(Box::new(judge)),
        Err(error) if error.downcast_ref::<NothingLoaded>().is_some() => Rules::None,
        Err(error) => {
            context
                .output
                .warn_of("how the rules reach these sockets is not known", &error);
            Rules::Unknown
        }
    }
}

/// The most interesting first: whose queue is full, then who is reached, by port.
fn sorted(listeners: Vec<Listener>, rules: &Rules) -> Vec<Row> {
    let rows = listeners.into_iter().map(|listener| {
        let parts = match rules {
            Rules::InForce(judge) => judge.judge(&listener.socket),
            Rules::None | Rules::Unknown => Vec::new(),
        };
        Row { listener, parts }
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_by_key(|row| {
        let socket = &row.listener.socket;
        let ranks = row.parts.iter().map(|part| rank(&part.reach));
        let rank = ranks
            .min()
            .unwrap_or(if socket.is_loopback_only() { 3 } else { 0 });
        (!socket.queue.is_full(), rank)
    });
    rows
}

const fn rank(reach: &Reach) -> u8 {
    match reach {
        Reach::Direct { .. }
        | Reach::Sources { .. }
        | Reach::Socket { .. }
        | Reach::Unwatched { .. } => 0,
        Reach::Replies { .. } => 1,
        Reach::Elsewhere { .. } | Reach::Refused { .. } => 2,
        Reach::Loopback => 3,
    }
}

/// The name of a socket's owner.
fn owner<'a>(users: &'a Users, socket: &Socket) -> Option<&'a str> {
    users.name(socket.owner)
}
