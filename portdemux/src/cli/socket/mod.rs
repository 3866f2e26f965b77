//! `portdemux socket`: which sockets get what comes for rules.

mod list;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
pub(super) use list::MemberReport;

use super::Context;
use crate::{
    dataplane::{
        maps::Maps,
        steering::{self, GroupName, Member as Socket},
    },
    error::Help as _,
    instance::Writer,
    rules::{Destination, destination::SocketName},
    sockets::take::{self, TakenSocket},
};

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
    let taken = take_all(args.pid, &args.descriptors)?;
    let (writer, is_new) = context.open_to_change_or_create(|| true)?;
    let result = enter(args, context, &writer, &taken);
    if is_new && result.is_err() {
        // Nothing was there before, nothing stays.
        writer.lock().remove()?;
    }
    result
}

fn enter(
    args: &AddSocket,
    context: &Context,
    writer: &Writer,
    taken: &[TakenSocket],
) -> Result<()> {
    let name = &args.name;
    let was_there = writer
        .maps
        .steering
        .find(&SocketName::Name(name.clone()))
        .is_some();
    let group = steering::register(writer, name)?;
    let mut added: Vec<&TakenSocket> = Vec::new();
    for one in taken {
        let socket = &one.socket;
        match writer
            .maps
            .steering
            .add(group, one.transport, one.family, one.cookie, socket)
        {
            Ok(true) => {
                added.push(one);
                context.output.line(format!(
                    "+ {name}  {} {}  takes {}",
                    one.transport.name(),
                    one.address,
                    one.family
                ));
            }
            Ok(false) => context.output.line(format!(
                "= {name}  {} {}  is one of them already",
                one.transport.name(),
                one.address
            )),
            Err(error) => {
                let cookies: Vec<u64> = added.iter().map(|one| one.cookie).collect();
                take_out(&writer.maps, group, |member| {
                    cookies.contains(&member.cookie)
                })?;
                if !was_there {
                    steering::unregister(writer, group);
                }
                return Err(error).help(|| {
                    let command = context.command();
                    format!("{command} socket list shows who is in {name}; nothing was changed")
                });
            }
        }
    }
    Ok(())
}

fn take_all(pid: u32, descriptors: &[u32]) -> Result<Vec<TakenSocket>> {
    descriptors
        .iter()
        .map(|&descriptor| take::from_process(pid, descriptor))
        .collect()
}

fn remove(args: &RemoveSocket, context: &Context) -> Result<()> {
    let writer = context.open_to_change()?;
    let name = &args.name;
    let group = writer
        .maps
        .steering
        .find(&SocketName::Name(name.clone()))
        .with_context(|| format!("no socket is called {name}"))
        .help(|| {
            let command = context.command();
            format!("{command} socket list shows the names; nothing was changed")
        })?;
    let removed = if let Some(pid) = args.pid {
        let cookies: Vec<u64> = take_all(pid, &args.descriptors)?
            .iter()
            .map(|one| one.cookie)
            .collect();
        let removed = take_out(&writer.maps, group, |member| {
            cookies.contains(&member.cookie)
        })?;
        if removed == 0 {
            bail!("that socket is none of {name}");
        }
        removed
    } else {
        take_out(&writer.maps, group, |_| true)?
    };
    let is_named = is_named_by_a_rule(&writer.maps, &SocketName::Name(name.clone()));
    if !is_named && writer.maps.steering.members(group).is_empty() {
        steering::unregister(&writer, group);
    }
    let what = match removed {
        1 => "1 socket".into(),
        count => format!("{count} sockets"),
    };
    context.output.line(format!(
        "- {name}  {what}: what they have goes on, nothing new comes"
    ));
    Ok(())
}

fn is_named_by_a_rule(maps: &Maps, name: &GroupName) -> bool {
    let destinations = maps.destinations_in_force();
    let mut all = destinations.values();
    all.any(|destination| matches!(destination, Destination::Socket(named) if named == name))
}

/// Takes members out of a group; how many.
fn take_out(maps: &Maps, group: u32, is_meant: impl Fn(&Socket) -> bool) -> Result<usize> {
    let members = maps.steering.members(group).into_iter();
    let mut removed = 0;
    for member in members.filter(is_meant) {
        maps.steering.remove(group, &member)?;
        removed += 1;
    }
    Ok(removed)
}
