//! Flows as JSON.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use serde::Serialize;

use super::rule_names;
use crate::{
    cli::{Context, counts::TrafficReport},
    flows::{FoundFlows, Selection, busiest},
    maps::{
        Maps,
        flows::{Flow, FlowTables, now},
    },
};

#[derive(Serialize)]
struct Report {
    instance: String,
    generation: u64,
    time: f64,
    tracked: bool,
    matching: u64,
    flows: Vec<FlowRow>,
}

#[derive(Serialize)]
struct FlowRow {
    protocol: &'static str,
    local_address: IpAddr,
    local_port: Option<u16>,
    peer_address: IpAddr,
    peer_port: Option<u16>,
    identifier: Option<u16>,
    begun_by: &'static str,
    state: &'static str,
    half_open: bool,
    rule: Option<String>,
    verdict: Option<&'static str>,
    reason: Option<&'static str>,
    received: TrafficReport,
    sent: TrafficReport,
    known_seconds: f64,
    left_seconds: f64,
}

impl FlowRow {
    fn new(flow: &Flow, rule: Option<String>, now: u32) -> Self {
        let judgement = flow.judgement();
        Self {
            protocol: flow.protocol(),
            local_address: flow.local(),
            local_port: flow.local_port(),
            peer_address: flow.peer(),
            peer_port: flow.peer_port(),
            identifier: flow.identifier(),
            begun_by: if flow.status.is_from_here() {
                "here"
            } else {
                "peer"
            },
            state: flow.status.state().name(),
            half_open: flow.is_half_open,
            rule,
            verdict: judgement.map(|(verdict, _)| verdict.name()),
            reason: judgement.map(|(_, reason)| reason.name()),
            received: flow.received.into(),
            sent: flow.sent.into(),
            known_seconds: seconds(flow.known_for(now)),
            left_seconds: seconds(flow.forgotten_in(now)),
        }
    }
}

/// In steps of the clock of flows, which are coarser than a tenth.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

/// The flows as one document.
pub(super) fn line(
    selection: &Selection,
    most: usize,
    context: &Context,
    maps: &Maps,
    flows: Option<&FlowTables>,
) -> Result<String> {
    let now = now();
    let found = flows.map_or_else(FoundFlows::default, |flows| {
        busiest(flows.all(), selection, most, now)
    });
    let rules = rule_names(maps, &found.busiest);
    let report = Report {
        instance: context.paths.instance.to_string(),
        generation: maps.generation().0,
        time: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |now| now.as_secs_f64()),
        tracked: flows.is_some(),
        matching: found.matching,
        flows: found
            .busiest
            .iter()
            .zip(rules)
            .map(|(flow, rule)| FlowRow::new(flow, rule, now))
            .collect(),
    };
    Ok(serde_json::to_string(&report)?)
}
