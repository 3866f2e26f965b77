//! The report about one packet: what it says, which rules want it, what becomes of it.

use std::{fmt::Write as _, net::IpAddr};

use portdemux_common::{
    parse::{Ports, Version},
    reason::Reason,
};

use super::{Basis, Explained, Shadow, packet, packet_state::PacketState};
use crate::{
    figures::{counted, grouped},
    rules::{
        Rule,
        claims::{self, Claim},
    },
};

/// Writes the report about a packet with ports; `agreed` says that the kernel was asked and says the
/// same, `log` is what its program logged.
#[must_use]
pub fn report(
    basis: &Basis<'_>,
    explained: &Explained<'_>,
    agreed: bool,
    log: &[String],
) -> String {
    let mut text = String::new();
    let parsed = &explained.parsed;
    let version = match parsed.version {
        Some(Version::V4) => "IPv4",
        Some(Version::V6) => "IPv6",
        None => "no IP",
    };
    let Some(ports) = parsed.ports() else {
        let _ = writeln!(text, "parsed      {explained}");
        write_verdict(&mut text, explained, agreed, log);
        return text;
    };
    let _ = writeln!(text, "parsed      {version} {}", packet::said(explained));
    if let Some(address) = explained.destination() {
        write_entry_point(&mut text, basis, explained, address, ports);
    }
    write_verdict(&mut text, explained, agreed, log);
    text
}

fn write_entry_point(
    text: &mut String,
    basis: &Basis<'_>,
    explained: &Explained<'_>,
    address: IpAddr,
    ports: Ports,
) {
    let (transport, port) = (ports.transport, ports.destination.number());
    let Some(rule) = explained.rule else {
        let _ = writeln!(
            text,
            "entry point none: no rule claims {port}/{} at {address}",
            transport.name()
        );
        return;
    };
    let (file, claims) = match basis.text() {
        Some((file, ruleset)) => (
            file,
            claims::claiming(ruleset.rules(), address, transport, port),
        ),
        None => ("", Vec::new()),
    };
    // The kernel's word counts; a text that says something else is not the one in force.
    let Some((first, others)) = claims
        .split_first()
        .filter(|(first, _)| first.rule.name == rule)
    else {
        let _ = writeln!(text, "entry point {rule}");
        return;
    };
    let _ = writeln!(
        text,
        "entry point {rule}: {}, {}{}",
        first.ports,
        at(first),
        location(file, first, "   ", "")
    );
    for other in others {
        let _ = write!(
            text,
            "            also claimed by {} {}",
            other.rule.name, other.ports
        );
        if other.address.is_some() {
            let _ = write!(text, ", {}", at(other));
        }
        let _ = writeln!(
            text,
            "{}: {}",
            location(file, other, " (", ")"),
            why(first, other)
        );
    }
    if let Some(source) = explained.source() {
        write_policy(text, source, first.rule, explained.decision.reason);
    }
}

/// Why the rule's lists of sources let a packet in or not, if it has any.
fn write_policy(text: &mut String, source: IpAddr, rule: &Rule, reason: Reason) {
    let (is, list) = if reason == Reason::SourceDenied {
        ("is denied: it is in", &rule.deny)
    } else if reason == Reason::SourceNotAllowed {
        ("is not in", &rule.from)
    } else if rule.from.is_empty() {
        ("is not denied: it is not in", &rule.deny)
    } else {
        ("may: it is in", &rule.from)
    };
    if let [first, others @ ..] = &list[..] {
        let more = match others.len() {
            0 => String::new(),
            1 => format!(" or {}", others[0]),
            more => format!(" or {more} more"),
        };
        let _ = writeln!(text, "policy      {source} {is} {first}{more}");
    }
}

/// How the packet stands to what is remembered of others.
fn write_state(text: &mut String, packet_state: &PacketState) {
    if let Some(relation) = packet_state.relation {
        let _ = write!(text, "state       {}", relation.name());
        if let Some(flow) = &packet_state.flow {
            let half_open = if flow.half_open { "half-open, " } else { "" };
            let _ = write!(
                text,
                " of a flow that the {} began: {half_open}{}, {} in, {} out",
                flow.begun_by,
                flow.state,
                counted(flow.packets_in, "packet"),
                grouped(flow.packets_out)
            );
        }
        text.push('\n');
    }
    for rate in &packet_state.rates {
        let _ = writeln!(
            text,
            "rate        {} left of {}: {} of the {}",
            grouped(rate.left),
            grouped(rate.burst),
            rate.key,
            rate.per
        );
    }
}

fn write_verdict(text: &mut String, explained: &Explained<'_>, agreed: bool, log: &[String]) {
    write_state(text, &explained.packet_state);
    let agreed = if agreed { "   (the kernel agrees)" } else { "" };
    let _ = writeln!(
        text,
        "verdict     {}, {}{agreed}",
        explained.decision.verdict.name(),
        explained.decision.reason.name()
    );
    if let Some(Shadow {
        rule,
        verdict,
        reason,
    }) = explained.shadow
    {
        let _ = writeln!(text, "shadow      {rule} would {verdict}, {reason}");
    }
    let mut label = "kernel";
    for line in log {
        let _ = writeln!(text, "{label:<11} {line}");
        label = "";
    }
}

fn at(claim: &Claim<'_>) -> String {
    claim
        .address
        .map_or_else(|| "any address".into(), |address| address.to_string())
}

/// Where a claim's rule stands, if it stands in a file.
fn location(file: &str, claim: &Claim<'_>, before: &str, after: &str) -> String {
    if file.is_empty() || claim.rule.line == 0 {
        return String::new();
    }
    format!("{before}{file}:{}{after}", claim.rule.line)
}

/// Why the first claim of an entry point beats another.
fn why(first: &Claim<'_>, other: &Claim<'_>) -> &'static str {
    if first.address.is_some() && other.address.is_none() {
        "an exact address beats any address"
    } else if first.ports.len() == 1 {
        "a single port beats a range"
    } else {
        "a narrower range beats one that contains it"
    }
}
