//! `portdemux socket`: which sockets get what comes for rules.

mod list;

use anyhow::Result;
use clap::Subcommand;
pub(super) use list::MemberReport;

use super::Context;
use crate::rules::{Destination, destination::SocketName};

/// Show and change which sockets rules hand packets to
///
/// A rule names them with `to = "socket:NAME"`. All sockets of a name share what comes: each flow stays with
/// one of them, and one that goes away takes only its own flows with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portdemux socket list
  portdemux socket add web --pid 4121 --fd 5
  portdemux socket remove web --pid 4121 --fd 5
  portdemux socket remove web")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Add(AddSocket),
    Remove(RemoveSocket),
    List(list::Args),
}

/// Register a socket of a running process under a name that rules send to
///
/// The socket stays the process's. It keeps the name until it is closed or removed, through every change of the
/// rules. A TCP socket has to listen, a UDP socket to be bound.
#[derive(Debug, clap::Args)]
struct AddSocket {
    /// The name: letters, digits, - and _
    #[arg(value_parser = name)]
    name: String,
    /// The process
    #[arg(long, value_name = "PID")]
    pid: u32,
    /// The descriptor under which it has the socket (ss -tulnp shows it); can be given more than once
    #[arg(long = "fd", value_name = "FD", required = true)]
    descriptors: Vec<u32>,
}

/// Take sockets of a name off, all or one: nothing new comes to them
///
/// Connections that are open or being opened stay with them; only new ones go to others.
#[derive(Debug, clap::Args)]
struct RemoveSocket {
    /// The name
    #[arg(value_parser = name)]
    name: String,
    /// The process whose socket is meant; left out: all sockets of the name
    #[arg(long, value_name = "PID", requires = "descriptors")]
    pid: Option<u32>,
    /// The descriptor under which it has the socket; can be given more than once
    #[arg(long = "fd", value_name = "FD", requires = "pid")]
    descriptors: Vec<u32>,
}

fn name(text: &str) -> Result<String, String> {
    match format!("socket:{text}").parse() {
        Ok(Destination::Socket(SocketName::Name(name))) => Ok(name),
        Ok(_) => Err(format!(
            "`{}` is an address\n help: what listens at an address is found without being added, as in add 80/tcp \
             --to socket:{text}",
            text.escape_debug()
        )),
        Err(error) => Err(super::with_help(&error, &error.help(str::to_owned))),
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    match &args.verb {
        Verb::Add(args) => add(args, context),
        Verb::Remove(args) => remove(args, context),
        Verb::List(args) => context.read(|context| list::run(args, context)),
    }
}

fn add(args: &AddSocket, context: &Context) -> Result<()> {
    let name = &args.name;
    for (socket, is_new) in context.add_sockets(name, args.pid, &args.descriptors)? {
        let (transport, address) = (socket.transport.name(), socket.address);
        context.output.line(if is_new {
            format!("+ {name}  {transport} {address}  takes {}", socket.family)
        } else {
            format!("= {name}  {transport} {address}  is one of them already")
        });
    }
    Ok(())
}

fn remove(args: &RemoveSocket, context: &Context) -> Result<()> {
    let name = &args.name;
    let of = args.pid.map(|pid| (pid, &args.descriptors[..]));
    let what = match context.remove_sockets(name, of)? {
        1 => "1 socket".into(),
        count => format!("{count} sockets"),
    };
    context.output.line(format!(
        "- {name}  {what}: what they have goes on, nothing new comes"
    ));
    Ok(())
}
