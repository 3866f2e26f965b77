//! Listeners as JSON.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use serde::Serialize;

use super::{Row, Rules, owner};
use crate::{
    cli::Context,
    listeners::{Part, Reach, Users},
    sockets::{Holder, Socket, SocketState},
};

#[derive(Serialize)]
struct Report<'a> {
    instance: String,
    loaded: Option<bool>,
    generation: Option<u64>,
    time: f64,
    processes_known: bool,
    listeners: Vec<ListenerReport<'a>>,
}

#[derive(Serialize)]
struct ListenerReport<'a> {
    protocol: &'static str,
    port: u16,
    addresses: &'a [IpAddr],
    ip_versions: BTreeSet<u8>,
    interface: Option<&'a str>,
    processes: Vec<ProcessReport<'a>>,
    uid: u32,
    user: Option<&'a str>,
    accept_queue: Option<AcceptQueue>,
    receive_queue: Option<ReceiveQueue>,
    reach: Option<&'static str>,
    parts: Vec<PartReport<'a>>,
}

#[derive(Serialize)]
struct ProcessReport<'a> {
    pid: u32,
    name: &'a str,
    fd: u32,
}

/// Connections that wait to be accepted.
#[derive(Serialize)]
struct AcceptQueue {
    waiting: u32,
    backlog: Option<u32>,
}

/// What waits to be read.
#[derive(Serialize)]
struct ReceiveQueue {
    bytes: u32,
    size: Option<u32>,
    dropped: Option<u32>,
}

#[derive(Serialize)]
struct PartReport<'a> {
    reach: &'static str,
    rule: Option<&'a str>,
    addresses: &'a [IpAddr],
    peers_of: Option<&'a str>,
    ports: Vec<String>,
    to: Option<&'a str>,
    interface: Option<&'a str>,
}

/// The listeners as one document.
pub(super) fn line(
    rows: &[Row],
    rules: &Rules,
    is_complete: bool,
    context: &Context,
) -> Result<String> {
    let users = Users::read();
    let (loaded, generation) = match rules {
        Rules::InForce(judge) => (Some(true), Some(judge.generation())),
        Rules::None => (Some(false), None),
        Rules::Unknown => (None, None),
    };
    let report = Report {
        instance: context.paths.instance.to_string(),
        loaded,
        generation,
        time: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |now| now.as_secs_f64()),
        processes_known: is_complete,
        listeners: rows.iter().map(|row| listener(row, &users)).collect(),
    };
    Ok(serde_json::to_string(&report)?)
}

fn listener<'a>(row: &'a Row, users: &'a Users) -> ListenerReport<'a> {
    let Row { listener, parts } = row;
    let socket = &listener.socket;
    let queue = socket.queue;
    let is_listening = socket.state == SocketState::Listening;
    ListenerReport {
        protocol: socket.transport.name(),
        port: socket.port,
        addresses: &socket.addresses,
        ip_versions: versions(socket),
        interface: listener.device.as_deref(),
        processes: listener.holders.iter().map(process).collect(),
        uid: socket.owner,
        user: owner(users, socket),
        accept_queue: is_listening.then_some(AcceptQueue {
            waiting: queue.waiting,
            backlog: queue.room,
        }),
        receive_queue: (!is_listening).then_some(ReceiveQueue {
            bytes: queue.waiting,
            size: queue.room,
            dropped: queue.dropped,
        }),
        reach: match &parts[..] {
            [] => None,
            [part] => Some(part.reach.name()),
            _ => Some("partly"),
        },
        parts: parts.iter().map(part).collect(),
    }
}

fn versions(socket: &Socket) -> BTreeSet<u8> {
    let own = socket.addresses.iter();
    let mut versions: BTreeSet<u8> = own.map(|own| if own.is_ipv4() { 4 } else { 6 }).collect();
    versions.extend(socket.is_dual.then_some(4));
    versions
}

fn process(holder: &Holder) -> ProcessReport<'_> {
    ProcessReport {
        pid: holder.pid,
        name: &holder.name,
        fd: holder.descriptor,
    }
}

fn part(part: &Part) -> PartReport<'_> {
    let (mut ports, mut to, mut interface) = (Vec::new(), None, None);
    match &part.reach {
        Reach::Socket { ports: handed, .. } => {
            ports = handed.iter().map(ToString::to_string).collect();
        }
        Reach::Elsewhere {
            to: destination, ..
        } => to = Some(destination.as_str()),
        Reach::Unwatched { interface: by } => interface = by.as_deref(),
        Reach::Direct { .. }
        | Reach::Sources { .. }
        | Reach::Replies { .. }
        | Reach::Refused { .. }
        | Reach::Loopback => {}
    }
    PartReport {
        reach: part.reach.name(),
        rule: part.reach.rule(),
        addresses: &part.addresses,
        peers_of: part.peers.as_deref(),
        ports,
        to,
        interface,
    }
}
