//! `portdemux socket list`: which sockets there are.

use anyhow::Result;
use serde::Serialize;

use crate::{
    cli::{
        Context,
        output::{Align, Table},
    },
    rules::{Destination, destination::SocketName},
    socket_groups::{self, MemberSocket, SocketGroup},
};

/// Show the sockets that rules hand packets to
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    instance: String,
    generation: u64,
    sockets: Vec<Group>,
}

#[derive(Serialize)]
struct Group {
    name: String,
    found_by: &'static str,
    rules: Vec<String>,
    members: Vec<MemberReport>,
}

/// A socket that is there.
#[derive(Serialize)]
pub(in crate::cli) struct MemberReport {
    protocol: &'static str,
    address: Option<String>,
    pid: Option<u32>,
    process: Option<String>,
    fd: Option<u32>,
    cookie: u64,
}

impl From<&MemberSocket> for MemberReport {
    fn from(socket: &MemberSocket) -> Self {
        let holder = socket.holder.as_ref();
        Self {
            protocol: socket.member.transport.name(),
            address: socket.address.map(|address| address.to_string()),
            pid: holder.map(|holder| holder.pid),
            process: holder.map(|holder| holder.name.clone()),
            fd: holder.map(|holder| holder.descriptor),
            cookie: socket.member.cookie,
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let instance = context.open()?;
    let in_force = context.in_force(&instance)?;
    let rules_of = |group: &SocketGroup| -> Vec<String> {
        let rules = in_force.ruleset.rules().iter();
        let named = rules
            .filter(|rule| matches!(&rule.to, Destination::Socket(name) if *name == group.name));
        named.map(|rule| rule.name.clone()).collect()
    };
    let mut all = socket_groups::all(&instance.maps);
    all.sort_by(|one, other| one.name.cmp(&other.name));
    if args.json {
        let sockets = all.iter().map(|group| Group {
            name: group.name.to_string(),
            found_by: match group.name {
                SocketName::Address(_) => "address",
                SocketName::Name(_) => "name",
            },
            rules: rules_of(group),
            members: group.members.iter().map(MemberReport::from).collect(),
        });
        let report = Report {
            instance: context.paths.instance.to_string(),
            generation: in_force.generation.0,
            sockets: sockets.collect(),
        };
        context.output.line(serde_json::to_string(&report)?);
        return Ok(());
    }
    if all.is_empty() {
        context
            .output
            .line("No rule hands packets to a socket, and none has a name");
        return Ok(());
    }
    let mut table = Table::new()
        .column("SOCKET", Align::Left, 0)
        .column("PROTOCOL", Align::Left, 1)
        .column("BOUND TO", Align::Left, 0)
        .column("PROCESS", Align::Left, 0)
        .column("FD", Align::Right, 3)
        .column("RULES", Align::Left, 2);
    for group in &all {
        let rules = match rules_of(group).as_slice() {
            [] => "–".into(),
            [rule] => rule.clone(),
            [first, others @ ..] => format!("{first} and {} more", others.len()),
        };
        let name = group.name.to_string();
        if group.members.is_empty() {
            table.row([
                name.clone(),
                "–".into(),
                "none".into(),
                "–".into(),
                "–".into(),
                rules.clone(),
            ]);
        }
        for socket in &group.members {
            let unknown = || "–".to_owned();
            let holder = socket.holder.as_ref();
            let address = socket.address.map(|address| address.to_string());
            let process = holder.map(|holder| format!("{} {}", holder.name, holder.pid));
            let descriptor = holder.map(|holder| holder.descriptor.to_string());
            table.row([
                name.clone(),
                socket.member.transport.name().into(),
                address.unwrap_or_else(unknown),
                process.unwrap_or_else(unknown),
                descriptor.unwrap_or_else(unknown),
                rules.clone(),
            ]);
        }
    }
    context.output.write(&table.render(&context.output));
    Ok(())
}
