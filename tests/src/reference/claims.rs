//! Which rule gets a packet, and whether its lists let the source in: every rule is looked at for every packet.

use std::net::IpAddr;

use portdemux::rules::{Rule, Ruleset, rule::Layer, source::Source};
use portdemux_common::wire::Transport;

use crate::answer::Answer;

/// The place of the rule of a layer that gets a packet with ports: an exact address beats any, then the narrowest range
/// counts.
#[must_use]
pub fn claim(ruleset: &Ruleset, layer: Layer, answer: &Answer) -> Option<usize> {
    let (transport, from, to) = ports(answer)?;
    let port = if layer == Layer::Source { from } else { to };
    let address: IpAddr = answer.destination?;
    let mut claims = Vec::new();
    for (index, rule) in ruleset.rules().iter().enumerate() {
        let is_for_any = rule.addresses.is_empty();
        if rule.layer() != layer || !(is_for_any || rule.addresses.contains(&address)) {
            continue;
        }
        for range in &rule.ports {
            if range.transport == transport && range.first <= port && port <= range.last {
                claims.push((is_for_any, range.last - range.first, index));
            }
        }
    }
    claims.into_iter().min().map(|(_, _, index)| index)
}

/// Whether a rule claims a port of this host at any address.
#[must_use]
pub fn serves(ruleset: &Ruleset, transport: Transport, port: u16) -> bool {
    ruleset.rules().iter().any(|rule| {
        let mut ranges = rule.ports.iter();
        rule.layer() == Layer::Destination
            && rule.addresses.is_empty()
            && ranges.any(|range| {
                range.transport == transport && range.first <= port && port <= range.last
            })
    })
}

/// Why a source may not use a rule's ports: every prefix of the rule is looked at.
#[must_use]
pub fn refusal(ruleset: &Ruleset, rule: &Rule, source: IpAddr) -> Option<&'static str> {
    let is_in = |list: &[Source]| {
        list.iter().any(|entry| match entry {
            Source::Prefix(prefix) => prefix.contains(&source),
            Source::Set(name) => ruleset
                .sets()
                .iter()
                .filter(|set| set.name == *name)
                .any(|set| set.prefixes.iter().any(|prefix| prefix.contains(&source))),
        })
    };
    if is_in(&rule.deny) {
        Some("source_denied")
    } else if !rule.from.is_empty() && !is_in(&rule.from) {
        Some("source_not_allowed")
    } else {
        None
    }
}

/// The protocol and the ports of a packet that has some.
#[must_use]
pub fn ports(answer: &Answer) -> Option<(Transport, u16, u16)> {
    let (from, to) = answer.ports?;
    let transport = match answer.protocol? {
        6 => Transport::Tcp,
        17 => Transport::Udp,
        132 => Transport::Sctp,
        _ => return None,
    };
    Some((transport, from, to))
}
