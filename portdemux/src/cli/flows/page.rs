//! Flows as a table.

use std::net::SocketAddr;

use portdemux_common::conntrack::State;

use super::rule_names;
use crate::{
    cli::output::{Align, Output, Style, Table, no_room},
    figures::{cut, grouped, size},
    flows::FoundFlows,
    maps::{Maps, flows::Flow},
    rules::duration::brief,
};

/// Flows that were found, as a table.
pub(super) fn text(found: &FoundFlows, maps: &Maps, output: &Output, now: u32) -> String {
    if found.busiest.is_empty() {
        return "no such flow is known\n".into();
    }
    let rules = rule_names(maps, &found.busiest);
    let mut left_out = Vec::new();
    let mut text = table(&found.busiest, rules, now).render_noting(output, &mut left_out);
    let hidden = found.matching.saturating_sub(found.busiest.len() as u64);
    if hidden > 0 {
        let more = format!("… {} more flows (--limit)", grouped(hidden));
        text += &output.styled(Style::Faint, &cut(&more, output.size().0));
        text.push('\n');
    }
    text + &no_room(&left_out, output)
}

fn table(flows: &[Flow], rules: Vec<Option<String>>, now: u32) -> Table {
    // Why packets do not get through takes a column only where some do not.
    let has_refused = flows.iter().any(|flow| why(flow).is_some());
    let mut table = Table::new()
        .column("PORT", Align::Left, 0)
        .column("ADDRESS", Align::Left, 7)
        .column("PEER", Align::Left, 0)
        .column("BEGAN", Align::Left, 0)
        .column("STATE", Align::Left, 0);
    if has_refused {
        table = table.column("WHY", Align::Left, 0);
    }
    table = table
        .column("RULE", Align::Left, 3)
        .column("RECEIVED", Align::Right, 0)
        .column("BYTES", Align::Right, 6)
        .column("SENT", Align::Right, 1)
        .column("BYTES", Align::Right, 6)
        .column("KNOWN", Align::Right, 4)
        .column("LEFT", Align::Right, 2);
    for (flow, rule) in flows.iter().zip(rules) {
        let began = if flow.status.is_from_here() {
            "here"
        } else {
            "peer"
        };
        let mut row = vec![
            port(flow),
            flow.local().to_string(),
            peer(flow),
            began.into(),
            state(flow.status.state(), flow.is_half_open),
        ];
        row.extend(has_refused.then(|| why(flow).unwrap_or_default().to_owned()));
        row.extend([
            rule.unwrap_or_default(),
            grouped(flow.received.packets),
            size(flow.received.bytes),
            grouped(flow.sent.packets),
            size(flow.sent.bytes),
            brief(flow.known_for(now)),
            brief(flow.forgotten_in(now)),
        ]);
        table.row(row);
    }
    table
}

/// The port of this host's end, or the identifier that stands in its place.
fn port(flow: &Flow) -> String {
    let protocol = flow.protocol();
    match (flow.local_port(), flow.identifier()) {
        (Some(port), _) => format!("{port}/{protocol}"),
        (None, Some(identifier)) => format!("{protocol} id {identifier}"),
        (None, None) => protocol.into(),
    }
}

fn peer(flow: &Flow) -> String {
    match flow.peer_port() {
        Some(port) => SocketAddr::new(flow.peer(), port).to_string(),
        None => flow.peer().to_string(),
    }
}

fn state(state: State, is_half_open: bool) -> String {
    let mark = if is_half_open { " ½" } else { "" };
    format!("{}{mark}", state.name())
}

/// Why the last packet of the peer was not let through, if it was not.
fn why(flow: &Flow) -> Option<&'static str> {
    let (verdict, reason) = flow.judgement()?;
    verdict.is_dropped().then_some(reason.name())
}
