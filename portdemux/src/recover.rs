//! From an image back to the rules, for when their text is lost.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    hash::BuildHasher,
    net::IpAddr,
};

use portdemux_common::{
    policy::Policy,
    ruleset::{Action, Entry, RuleId, RulesetImage},
    wire::{Port, Transport},
};

use crate::{
    image,
    rules::{Destination, PortRange, edit, source::Source},
};

/// What a rule claims: at any address, or at some.
#[derive(Default)]
struct Claimed {
    to: Destination,
    policy: Policy,
    any: Vec<PortRange>,
    at: BTreeMap<Vec<PortRange>, Vec<IpAddr>>,
}

/// Writes a rules file that compiles to an image with the same decisions.
///
/// Comments and layout are lost, as are rules that never win a port. A range comes out in pieces where
/// more specific rules cut it; a rule that claims different ports at different addresses comes out as
/// several, numbered from `-2` on.
#[must_use]
pub fn text<S: BuildHasher>(image: &RulesetImage, names: &HashMap<RuleId, String, S>) -> String {
    let mut rules: BTreeMap<RuleId, Claimed> = BTreeMap::new();
    for transport in Transport::ALL {
        let entry = |port: u16| image.ports[Port::new(port).index(transport)];
        for (range, entry) in runs(transport, entry) {
            let rule = claimed(&mut rules, image, entry);
            rule.any.push(range);
        }
    }
    for (address, first, count) in addresses(image) {
        let mut ports: BTreeMap<RuleId, (Entry, Vec<PortRange>)> = BTreeMap::new();
        let spans = image.spans.iter().skip(first as usize).take(count as usize);
        for span in spans {
            if let Some(range) = range(span.first, span.last) {
                ports
                    .entry(span.entry.rule())
                    .or_insert((span.entry, Vec::new()))
                    .1
                    .push(range);
            }
        }
        for (entry, ranges) in ports.into_values() {
            claimed(&mut rules, image, entry)
                .at
                .entry(ranges)
                .or_default()
                .push(address);
        }
    }

    let malformed = if image.header.defaults.malformed_pass == 0 {
        "drop"
    } else {
        "pass"
    };
    let mut text = String::from("# Rebuilt from the kernel: comments and layout were lost.\n");
    let _ = writeln!(text, "[default]\nmalformed = \"{malformed}\"");
    let mut lists = Lists {
        image,
        known: HashMap::new(),
    };
    for (
        id,
        Claimed {
            to,
            policy,
            any,
            at,
        },
    ) in rules
    {
        let name = names
            .get(&id)
            .cloned()
            .unwrap_or_else(|| format!("rule-{id}"));
        let whole = (!any.is_empty()).then_some((any, Vec::new()));
        for (part, (ports, addresses)) in whole.into_iter().chain(at).enumerate() {
            let name = if part == 0 {
                name.clone()
            } else {
                format!("{name}-{}", part + 1)
            };
            let rule = edit::NewRule {
                name: Some(name),
                ports,
                addresses,
                from: lists.sources(policy.from),
                deny: lists.sources(policy.deny),
                to: Some(to),
            };
            text.push('\n');
            text.push_str(&edit::append("", &rule));
        }
    }
    text
}

/// The prefixes of the lists that rules have.
struct Lists<'i> {
    image: &'i RulesetImage,
    known: HashMap<u16, Vec<Source>>,
}

impl Lists<'_> {
    /// What a list of this number holds, in as few prefixes as say it; nothing for 0.
    fn sources(&mut self, number: u16) -> Vec<Source> {
        let Some(list) = number.checked_sub(1) else {
            return Vec::new();
        };
        self.known
            .entry(number)
            .or_insert_with(|| {
                image::prefixes(self.image, list)
                    .into_iter()
                    .map(Source::Prefix)
                    .collect()
            })
            .clone()
    }
}

fn claimed<'r>(
    rules: &'r mut BTreeMap<RuleId, Claimed>,
    image: &RulesetImage,
    entry: Entry,
) -> &'r mut Claimed {
    let rule = rules.entry(entry.rule()).or_default();
    if entry.is_conditional() {
        rule.policy = image.policies[entry.rule() as usize];
    }
    rule.to = match entry.action() {
        Action::Local => Destination::Local,
        Action::Drop => Destination::Drop,
        Action::Reject => Destination::Reject,
    };
    rule
}

/// The claimed ports of a protocol, neighbours with the same entry together.
fn runs(transport: Transport, entry: impl Fn(u16) -> Entry) -> Vec<(PortRange, Entry)> {
    let mut runs: Vec<(PortRange, Entry)> = Vec::new();
    for port in 0..=u16::MAX {
        let here = entry(port).closed();
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
    let v4 = image
        .v4
        .iter()
        .map(|place| (IpAddr::from(place.address), place.first, place.count));
    let v6 = image
        .v6
        .iter()
        .map(|place| (IpAddr::from(place.address), place.first, place.count));
    let mut addresses: Vec<_> = Vec::new();
    if image.header.v4_mask != 0 {
        addresses.extend(v4.take(image.header.v4_mask as usize + 1));
    }
    if image.header.v6_mask != 0 {
        addresses.extend(v6.take(image.header.v6_mask as usize + 1));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{image, rules::file};

    /// The image of a text, with the names of its rules by id.
    fn compile(text: &str) -> (Box<RulesetImage>, HashMap<RuleId, String>) {
        let ruleset = file::parse("test.toml", text).unwrap();
        let ids: Vec<RuleId> = (0..).take(ruleset.rules().len()).collect();
        let names = ruleset.rules().iter().map(|rule| rule.name.clone());
        (
            image::compile(&ruleset, &ids),
            ids.iter().copied().zip(names).collect(),
        )
    }

    #[test]
    fn what_is_rebuilt_decides_as_the_original_and_is_a_fixed_point() {
        let original = r#"
            default.malformed = "pass"
            [[rule]]
            name = "web"
            port = ["80/tcp", "8000-8999/tcp"]
            [[rule]]
            name = "admin"
            port = "8080/tcp"
            to = "drop"
            [[rule]]
            name = "dns"
            port = ["53/udp", "53/tcp"]
            address = ["192.0.2.53", "2001:db8::53", "192.0.2.54"]
            [[rule]]
            name = "one"
            port = "53/tcp"
            address = "192.0.2.60"
            to = "drop"
            [[rule]]
            name = "all"
            port = "0-65535/sctp"
            [[rule]]
            name = "ssh"
            port = "22/tcp"
            from = ["@office", "198.51.100.0/25", "198.51.100.128/25"]
            deny = "192.0.2.66"
            [[rule]]
            name = "private"
            port = "23/tcp"
            deny = ["0.0.0.0/0", "::/0"]
            [sets]
            office = ["192.0.2.0/24", "2001:db8:1::/48"]
        "#;
        let (image, names) = compile(original);
        let rebuilt = text(&image, &names);
        let (again, names_again) = compile(&rebuilt);
        assert_eq!(text(&again, &names_again), rebuilt);
        assert_eq!(again.header.defaults.malformed_pass, 1);
        assert!(
            rebuilt.contains("\"8000-8079/tcp\", \"8081-8999/tcp\""),
            "{rebuilt}"
        );
        let say = |names: &HashMap<RuleId, String>, entry: Entry| {
            entry
                .is_claimed()
                .then(|| (names[&entry.rule()].clone(), entry.action()))
        };
        for (one, other) in image.ports.iter().zip(&again.ports) {
            assert_eq!(say(&names, *one), say(&names_again, *other));
        }
        for part in [
            r#"from = ["192.0.2.0/24", "198.51.100.0/24", "2001:db8:1::/48"]"#,
            r#"deny = "192.0.2.66""#,
            r#"deny = ["0.0.0.0/0", "::/0"]"#,
        ] {
            assert!(rebuilt.contains(part), "{part}\n{rebuilt}");
        }
        let list = |image: &RulesetImage| -> Vec<IpAddr> {
            addresses(image)
                .into_iter()
                .map(|(address, _, _)| address)
                .collect()
        };
        assert_eq!(list(&image), list(&again));
    }
}
