//! Counters as JSON.

use std::{
    cmp::Reverse,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use portdemux_common::conntrack::Relation;
use serde::Serialize;

use super::{Args, chosen};
use crate::{
    attached,
    cli::{
        Context,
        counts::{LostReport, TrafficReport},
        status::InterfaceReport,
    },
    instance::Instance,
    listeners::Behind,
    maps::flows::PortFlows,
    rules::{Destination, PortRange},
    snapshot::Snapshot,
};

#[derive(Serialize)]
struct Report<'a> {
    instance: String,
    generation: u64,
    time: f64,
    interfaces: Vec<InterfaceReport>,
    ports: Vec<PortReport<'a>>,
    rules: Vec<RuleReport<'a>>,
    reasons: Vec<ReasonReport>,
    lost: Vec<LostReport>,
}

#[derive(Serialize)]
struct PortReport<'a> {
    protocol: &'static str,
    port: u16,
    rule: Option<&'a str>,
    received: TrafficReport,
    dropped: TrafficReport,
    flows: Option<FlowsReport>,
    sent: Option<TrafficReport>,
    listeners: Option<Vec<Option<&'a str>>>,
}

/// Packets received, by how they stand to flows.
#[derive(Serialize)]
struct FlowsReport {
    new: u64,
    established: u64,
    replies: u64,
    related: u64,
}

impl From<PortFlows> for FlowsReport {
    fn from(flows: PortFlows) -> Self {
        Self {
            new: flows.of(Relation::New),
            established: flows.of(Relation::Established),
            replies: flows.of(Relation::Reply),
            related: flows.of(Relation::Related),
        }
    }
}

#[derive(Serialize)]
struct RuleReport<'a> {
    rule: &'a str,
    received: TrafficReport,
    dropped: TrafficReport,
}

#[derive(Serialize)]
struct ReasonReport {
    reason: &'static str,
    packets: u64,
    bytes: u64,
}

/// Everything as one document, on a line.
pub(super) fn line(
    args: &Args,
    context: &Context,
    instance: &Instance,
    snapshot: &Snapshot,
    behind: Option<&Behind>,
) -> Result<String> {
    let mut keys = chosen(args, snapshot);
    keys.sort_by_cached_key(|&key| (Reverse(snapshot.traffic(key).received.packets), key));
    let ports = keys.into_iter().map(|key| {
        let traffic = snapshot.traffic(key);
        let flows = snapshot.flows(key);
        PortReport {
            protocol: key.0.name(),
            port: key.1,
            rule: snapshot.rule(key),
            received: traffic.received.into(),
            dropped: traffic.dropped.into(),
            flows: flows.map(Into::into),
            sent: flows.map(|flows| flows.sent.into()),
            listeners: behind.map(|behind| {
                let to = snapshot.destination(key).unwrap_or(&Destination::Local);
                behind.at(&[PortRange::single(key.0, key.1)], &[], to)
            }),
        }
    });
    let rules = snapshot.rules_by_traffic().into_iter();
    let reasons = snapshot.reasons().into_iter();
    let report = Report {
        instance: context.paths.instance.to_string(),
        generation: snapshot.generation,
        time: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |now| now.as_secs_f64()),
        interfaces: attached::interfaces(instance)?
            .iter()
            .map(InterfaceReport::from)
            .collect(),
        ports: ports.collect(),
        rules: rules
            .map(|(rule, traffic)| RuleReport {
                rule,
                received: traffic.received.into(),
                dropped: traffic.dropped.into(),
            })
            .collect(),
        reasons: reasons
            .map(|(reason, counter)| ReasonReport {
                reason,
                packets: counter.packets,
                bytes: counter.bytes,
            })
            .collect(),
        lost: snapshot.lost.iter().map(LostReport::from).collect(),
    };
    let mut line = serde_json::to_string(&report)?;
    line.push('\n');
    Ok(line)
}
