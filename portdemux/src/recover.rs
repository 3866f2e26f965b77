//! From an image back to the rules, for when their text is lost.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    hash::BuildHasher,
    net::IpAddr,
};

use ipnet::IpNet;
use portdemux_common::{
    capacity::PORT_SLOTS,
    entry::{Action, Entry},
    ids::RuleId,
    policy::{Defaults, Fragments, Icmp, Policy},
    ruleset::RulesetImage,
    wire::{Port, Transport},
};

use crate::{
    clock::Clock,
    image::{Compiled, Outline},
    rules::{
        Delivery, Destination, Flows, Inbound, Layer, MAX_NAME, Malformed, PortRange, Role, Terms,
        Word, destination::Cpus, edit, source::Source, until::Until,
    },
};

/// What the set without members is called: a rule without `from` would let anyone in.
const EMPTY: &str = "none";

/// What a rule claims: at any address, or at some.
struct Claimed {
    layer: Layer,
    to: Destination,
    delivery: Delivery,
    policy: Policy,
    any: Vec<PortRange>,
    at: BTreeMap<Vec<PortRange>, Vec<IpAddr>>,
}

/// Writes a rules file that compiles to an image with the same decisions.
///
/// Comments and layout are lost, as are rules that never win a port. A range comes out in pieces where
/// more specific rules cut it; a rule that claims different ports at different addresses comes out as
/// several, numbered from `-2` on. Sets keep their names, and their members the ends of their time; sets that no
/// rule names are lost.
#[must_use]
pub fn text<S: BuildHasher>(
    image: &Compiled,
    names: &HashMap<RuleId, String, S>,
    clock: &Clock,
) -> String {
    let rules = claimed(image);
    let mut text = String::from("# Rebuilt from the kernel: comments and layout were lost.\n");
    text.push_str(&defaults(&image.header.defaults));
    text.push_str(&flows(image, &rules));
    let mut lists = RecoveredLists::of(image, clock);
    let mut blocks = String::new();
    let mut taken: HashSet<String> = rules
        .keys()
        .filter_map(|id| names.get(id).cloned())
        .collect();
    for (id, rule) in rules {
        let name = match names.get(&id) {
            Some(name) => name.clone(),
            None => free_name(&format!("rule-{id}"), &mut taken),
        };
        let whole = (!rule.any.is_empty()).then_some((rule.any, Vec::new()));
        for (part, (ports, addresses)) in whole.into_iter().chain(rule.at).enumerate() {
            let name = if part == 0 {
                name.clone()
            } else {
                free_name(&name, &mut taken)
            };
            let rule = edit::NewRule {
                name: Some(name),
                ports,
                addresses,
                from: lists.sources(rule.policy.from),
                deny: lists.sources(rule.policy.deny),
                to: Some(rule.to.clone()),
                delivery: rule.delivery,
                role: match rule.layer {
                    Layer::Source => Role::Source,
                    Layer::Destination | Layer::Shadow => Role::Destination,
                },
                terms: Terms::of_policy(&rule.policy),
                shadow: rule.layer == Layer::Shadow,
            };
            blocks.push('\n');
            blocks.push_str(&edit::append("", &rule));
        }
    }
    text + &lists.text() + &blocks
}

/// The first of `name`, `name-2`, `name-3` and so on that nothing is called yet; from now on something
/// is.
fn free_name(name: &str, taken: &mut HashSet<String>) -> String {
    let numbered = |number: u32| {
        let suffix = match number {
            1 => String::new(),
            number => format!("-{number}"),
        };
        let mut kept = name.len().min(MAX_NAME - suffix.len());
        while !name.is_char_boundary(kept) {
            kept -= 1;
        }
        format!("{}{suffix}", &name[..kept])
    };
    let free = (1..=u32::MAX)
        .map(numbered)
        .find(|name| !taken.contains(name));
    let free = free.unwrap_or_default();
    taken.insert(free.clone());
    free
}

/// Collects who claims what, as far as it shows.
fn claimed(image: &Compiled) -> BTreeMap<RuleId, Claimed> {
    let mut rules: BTreeMap<RuleId, Claimed> = BTreeMap::new();
    let has = |claims: u32| claims != 0;
    let tables = [
        (Layer::Destination, true, &image.ports),
        (
            Layer::Source,
            has(image.header.source_claims),
            &image.source_ports,
        ),
        (
            Layer::Shadow,
            has(image.header.shadow_claims),
            &image.shadow_ports,
        ),
    ];
    for (layer, has_meaning, table) in tables {
        if !has_meaning {
            continue;
        }
        for transport in Transport::ALL {
            for (range, entry) in runs(transport, table) {
                rule(&mut rules, image, layer, entry).any.push(range);
            }
        }
    }
    for (address, first, count) in addresses(image) {
        let mut ports: BTreeMap<RuleId, (Layer, Entry, Vec<PortRange>)> = BTreeMap::new();
        let spans = image.spans.iter().skip(first as usize).take(count as usize);
        for span in spans {
            let claims = [
                (Layer::Destination, span.entry),
                (Layer::Shadow, span.shadow),
            ];
            let Some(range) = range(span.first, span.last) else {
                continue;
            };
            for (layer, entry) in claims {
                if entry.is_claimed() {
                    let claim = ports.entry(entry.rule());
                    let (_, _, ranges) = claim.or_insert((layer, entry, Vec::new()));
                    push_joined(ranges, range);
                }
            }
        }
        for (layer, entry, ranges) in ports.into_values() {
            rule(&mut rules, image, layer, entry)
                .at
                .entry(ranges)
                .or_default()
                .push(address);
        }
    }
    rules
}

/// Adds a range to those before it; one that goes on where the last one ends is a part of it.
fn push_joined(ranges: &mut Vec<PortRange>, range: PortRange) {
    match ranges.last_mut() {
        Some(last)
            if last.transport == range.transport
                && last.last.checked_add(1) == Some(range.first) =>
        {
            last.last = range.last;
        }
        _ => ranges.push(range),
    }
}

fn defaults(defaults: &Defaults) -> String {
    let malformed = if defaults.malformed_pass == 0 {
        Malformed::Drop
    } else {
        Malformed::Pass
    };
    let inbound = match Action::from_code(defaults.inbound) {
        Action::Local => Inbound::Pass,
        Action::Reject => Inbound::Reject,
        Action::Drop | Action::Socket | Action::Interface | Action::Cpu | Action::Xsk => {
            Inbound::Drop
        }
    };
    let fragments = Fragments::ALL.iter().copied();
    let fragments = fragments
        .into_iter()
        .find(|&known| known as u32 == defaults.fragments);
    let icmp = Icmp::ALL.iter().copied();
    let icmp = icmp
        .into_iter()
        .find(|&known| known as u32 == defaults.icmp);
    let mut text = format!("[default]\nmalformed = \"{}\"\n", malformed.name());
    let words = [
        (
            "inbound",
            (inbound != Inbound::Pass).then(|| inbound.name()),
        ),
        (
            "fragments",
            fragments
                .filter(|&word| word != Fragments::Pass)
                .map(Word::name),
        ),
        (
            "icmp",
            icmp.filter(|&word| word != Icmp::Pass).map(Word::name),
        ),
    ];
    for (key, word) in words {
        if let Some(word) = word {
            let _ = writeln!(text, "{key} = \"{word}\"");
        }
    }
    text
}

/// What the image says about flows, where that is not what it would say without being told.
fn flows(image: &RulesetImage, rules: &BTreeMap<RuleId, Claimed>) -> String {
    let header = &image.header;
    if header.defaults.flows == 0 {
        return String::new();
    }
    let needed = header.defaults.inbound != Action::Local as u32
        || header.defaults.icmp != Icmp::Pass as u32
        || rules
            .values()
            .any(|rule| Terms::of_policy(&rule.policy).needs_flows().is_some());
    let flows = Flows {
        size: header.flows,
        half_open: header.half_open,
        timeouts: Flows::of_ticks(&header.defaults.timeouts),
        ..Flows::default()
    };
    let mut text = String::new();
    if !needed {
        text.push_str("track = true\n");
    }
    let usual = Flows::default().words();
    for ((key, word), (_, usual)) in flows.words().into_iter().zip(usual) {
        if word == usual {
            continue;
        }
        let _ = match key {
            "size" | "half_open" => writeln!(text, "{key} = {word}"),
            key => writeln!(text, "{key} = \"{word}\""),
        };
    }
    if text.is_empty() {
        return text;
    }
    format!("\n[flows]\n{text}")
}

/// The lists that rules have.
struct RecoveredLists<'i> {
    image: &'i Compiled,
    clock: &'i Clock,
    outline: Outline,
    /// What was said of a list.
    known: HashMap<u16, Vec<Source>>,
    /// The sets that were named, and who is in them.
    sets: BTreeMap<String, Vec<(IpNet, Option<Until>)>>,
    /// What sets are called, or were.
    names: HashSet<String>,
}

impl<'i> RecoveredLists<'i> {
    fn of(image: &'i Compiled, clock: &'i Clock) -> Self {
        let outline = image.outline().unwrap_or_default();
        Self {
            image,
            clock,
            names: outline.atoms.iter().flatten().cloned().collect(),
            outline,
            known: HashMap::new(),
            sets: BTreeMap::new(),
        }
    }

    /// What the list of this number holds; nothing for 0.
    fn sources(&mut self, number: u16) -> Vec<Source> {
        let Some(list) = number.checked_sub(1) else {
            return Vec::new();
        };
        if let Some(known) = self.known.get(&list) {
            return known.clone();
        }
        let union = usize::from(list).checked_sub(self.outline.atoms.len());
        let union = union.and_then(|union| self.outline.unions.get(union));
        let sources: Vec<Source> = match union.cloned() {
            Some(atoms) => atoms.into_iter().flat_map(|atom| self.atom(atom)).collect(),
            None => self.atom(list),
        };
        self.known.insert(list, sources.clone());
        sources
    }

    /// What a list holds that is made of no others: a set, or prefixes in as few as say it. Prefixes that are in it for
    /// a time need a set.
    fn atom(&mut self, list: u16) -> Vec<Source> {
        let members = self.image.members(list, self.clock);
        let named = self.outline.atoms.get(usize::from(list)).cloned().flatten();
        let is_lasting = members.iter().all(|(_, until)| until.is_none());
        let name = match named {
            Some(name) => name,
            None if members.is_empty() => EMPTY.into(),
            None if is_lasting => {
                let prefixes = members.into_iter().map(|(prefix, _)| prefix);
                return prefixes.map(Source::Prefix).collect();
            }
            None => free_name(&format!("list-{list}"), &mut self.names),
        };
        self.sets.insert(name.clone(), members);
        vec![Source::Set(name)]
    }

    /// The sets that were named.
    fn text(&self) -> String {
        if self.sets.is_empty() {
            return String::new();
        }
        let sets = self.sets.iter();
        let sets: String = sets
            .map(|(name, members)| edit::set(name, members))
            .collect();
        format!("\n[sets]\n{sets}")
    }
}

/// Where the packets of an entry's rule go. A destination whose name is lost lets nothing in.
pub(crate) fn destination(image: &Compiled, entry: Entry) -> Destination {
    let target = &image.targets[entry.rule() as usize];
    let named = match entry.action() {
        Action::Local => Some(Destination::Local),
        Action::Drop => None,
        Action::Reject => Some(Destination::Reject),
        Action::Cpu => {
            let numbers = image.cpus.iter().skip(target.first as usize);
            let numbers: Vec<u16> = numbers.take(target.count.into()).copied().collect();
            Cpus::of(&numbers).map(Destination::Cpus)
        }
        Action::Socket | Action::Interface | Action::Xsk => {
            image.destinations.get(&target.first).cloned()
        }
    };
    named.unwrap_or(Destination::Drop)
}

/// What an entry's rule says about the way there.
fn delivery(image: &Compiled, entry: Entry) -> Delivery {
    let to = destination(image, entry);
    if !to.action().has_target() {
        return Delivery::default();
    }
    Delivery::of_target(&image.targets[entry.rule() as usize], &to)
}

/// What is known of the rule of an entry.
fn rule<'r>(
    rules: &'r mut BTreeMap<RuleId, Claimed>,
    image: &Compiled,
    layer: Layer,
    entry: Entry,
) -> &'r mut Claimed {
    rules.entry(entry.rule()).or_insert_with(|| Claimed {
        layer,
        delivery: delivery(image, entry),
        to: destination(image, entry),
        policy: if entry.is_conditional() {
            image.policies[entry.rule() as usize]
        } else {
            Policy::default()
        },
        any: Vec::new(),
        at: BTreeMap::new(),
    })
}

/// The claimed ports of a protocol, neighbours with the same entry together.
fn runs(transport: Transport, table: &[Entry; PORT_SLOTS]) -> Vec<(PortRange, Entry)> {
    let mut runs: Vec<(PortRange, Entry)> = Vec::new();
    for port in 0..=u16::MAX {
        let here = table[Port::new(port).index(transport)].closed();
        match runs.last_mut() {
            Some((range, entry)) if *entry == here && range.last + 1 == port => range.last = port,
            _ if here.is_claimed() => {
                runs.push((
                    PortRange {
                        transport,
                        first: port,
                        last: port,
                    },
                    here,
                ));
            }
            _ => {}
        }
    }
    runs
}

fn addresses(image: &RulesetImage) -> Vec<(IpAddr, u32, u32)> {
    let v4 = image.v4.iter().map(|slot| {
        (
            IpAddr::from(slot.address),
            slot.claims.first,
            slot.claims.count,
        )
    });
    let v6 = image.v6.iter().map(|slot| {
        (
            IpAddr::from(slot.address),
            slot.claims.first,
            slot.claims.count,
        )
    });
    let mut addresses: Vec<_> = Vec::new();
    addresses.extend(v4.take(image.header.v4_slots()));
    addresses.extend(v6.take(image.header.v6_slots()));
    addresses.retain(|&(_, _, count)| count > 0);
    addresses.sort_unstable();
    addresses
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low 16 bits of a span's key are the port"
)]
fn range(first: u32, last: u32) -> Option<PortRange> {
    let transport = Transport::ALL
        .into_iter()
        .find(|&t| t as u32 == first >> 16)?;
    Some(PortRange {
        transport,
        first: first as u16,
        last: last as u16,
    })
}
