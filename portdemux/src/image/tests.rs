//! Images against the rulesets they were compiled from.

use std::net::{Ipv4Addr, Ipv6Addr};

use portdemux_common::{
    decide::{self, Metadata},
    ids::Generation,
    parse::{self, Address, Ports, Version},
    policy::Icmp,
    ruleset::{RulesetTables, near, span_key},
};
use proptest::prelude::*;

use super::*;
use crate::{
    host,
    rules::{
        Connections, Defaults, Delivery, Destination, Layer, Per, PortRange, Role, Rule, Terms,
        destination::{Fallback, Mac},
    },
};

fn addresses() -> Vec<IpAddr> {
    let v4 = (1..=6).map(|last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
    let v6 = (1..=6).map(|last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)));
    v4.chain(v6).collect()
}

fn ranges() -> impl Strategy<Value = PortRange> {
    let port = prop_oneof![Just(0u16), Just(u16::MAX), 440..450u16, any::<u16>()];
    (0..3usize, port.clone(), port).prop_map(|(transport, one, other)| PortRange {
        transport: Transport::ALL[transport],
        first: one.min(other),
        last: one.max(other),
    })
}

fn terms() -> impl Strategy<Value = Terms> {
    let rate = || prop::option::of(prop::sample::select(vec!["1000/s", "10/m", "3/h"]));
    let burst = || prop::option::of(1..100_u64);
    let connections = prop_oneof![
        2 => Just(Connections::All),
        1 => Just(Connections::Established)
    ];
    let per = prop::option::of(prop_oneof![Just(Per::Rule), Just(Per::Source)]);
    let some = (connections, rate(), burst(), per, rate(), burst()).prop_map(
        |(connections, rate, burst, per, new_rate, new_burst)| Terms {
            connections,
            rate: rate.map(|rate| rate.parse().unwrap()),
            burst: burst.filter(|_| rate.is_some()),
            per: per.filter(|_| rate.or(new_rate).is_some()),
            new_rate: new_rate.map(|rate| rate.parse().unwrap()),
            new_burst: new_burst.filter(|_| new_rate.is_some()),
        },
    );
    prop_oneof![2 => Just(Terms::default()), 1 => some]
}

fn delivery() -> impl Strategy<Value = Delivery> {
    let fallbacks = vec![Fallback::Local, Fallback::Reject, Fallback::Drop];
    let parts = (
        prop::option::of(prop::sample::select(fallbacks)),
        prop::option::of(Just(Mac([2, 0, 0x5e, 0x10, 0, 1]))),
        prop::option::of(prop::sample::select(vec![64, 2048])),
    );
    parts.prop_map(|(fallback, mac, queue)| Delivery {
        fallback,
        mac,
        queue,
    })
}

/// Rules that hold together, of all layers.
pub(crate) fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let addresses = prop::collection::vec(prop::sample::select(addresses()), 0..3);
    let to = prop_oneof![
        2 => Just(Destination::Local),
        1 => Just(Destination::Drop),
        1 => Just(Destination::Reject),
        2 => prop::sample::select(vec![
            "socket:127.0.0.1:8080",
            "socket:[::1]:8080",
            "socket:web",
            "interface:veth0",
            "interface:veth1",
            "cpu:0-3",
            "cpu:1,7",
            "xsk:echo",
        ])
        .prop_map(|to| to.parse().unwrap())
    ];
    let layer = prop_oneof![
        3 => Just(Layer::Destination),
        1 => Just(Layer::Source),
        1 => Just(Layer::Shadow)
    ];
    let rule = (
        prop::collection::vec(ranges(), 1..3),
        addresses,
        to,
        layer,
        terms(),
        delivery(),
    );
    prop::collection::vec(rule, 0..12).prop_map(|rules| {
        let mut kept: Vec<Rule> = Vec::new();
        for (slot, (ports, addresses, to, layer, terms, delivery)) in rules.into_iter().enumerate()
        {
            let is_source = layer == Layer::Source;
            let rule = Rule {
                name: format!("r{slot}"),
                ports,
                addresses: if is_source { Vec::new() } else { addresses },
                delivery: Delivery {
                    fallback: delivery
                        .fallback
                        .filter(|_| Destination::usual_fallback(&to).is_some()),
                    mac: delivery
                        .mac
                        .filter(|_| matches!(to, Destination::Interface(_))),
                    // Of rules with the same CPUs only the first is kept if their queues differ.
                    queue: delivery
                        .queue
                        .filter(|_| matches!(to, Destination::Cpus(_))),
                },
                to,
                role: if is_source {
                    Role::Source
                } else {
                    Role::Destination
                },
                terms,
                shadow: layer == Layer::Shadow,
                ..Rule::default()
            };
            // A rule that contradicts itself or clashes with those before it is left out.
            let mut with = kept.clone();
            with.push(rule);
            if Ruleset::new(Defaults::default(), with.clone()).is_ok() {
                kept = with;
            }
        }
        kept
    })
}

/// The index of the rule of a layer that claims a port most specifically: at an address or at any.
fn claimer(
    rules: &[Rule],
    layer: Layer,
    site: Option<IpAddr>,
    transport: Transport,
    port: u16,
) -> Option<usize> {
    let claims = rules.iter().enumerate().flat_map(|(slot, rule)| {
        let at_site = match site {
            Some(address) => rule.addresses.contains(&address),
            None => rule.addresses.is_empty(),
        };
        let holding = rule
            .ports
            .iter()
            .filter(move |ports| rule.layer() == layer && at_site && ports.holds(transport, port));
        holding.map(move |ports| (ports.len(), slot))
    });
    claims.min().map(|(_, slot)| slot)
}

/// What a table should say about a rule's claim.
fn entry(ruleset: &Ruleset, ids: &[u32], slot: Option<usize>) -> Entry {
    let Some(slot) = slot else {
        return Entry::UNCLAIMED;
    };
    let rule = &ruleset.rules()[slot];
    let entry = Entry::new(ids[slot], rule.to.action());
    if rule.terms.policy() == Policy::default() {
        entry
    } else {
        entry.conditional()
    }
}

/// What the spans of an address say about a port: whose it is, and which shadow's.
fn span(image: &RulesetImage, address: IpAddr, key: u32) -> (Entry, Entry) {
    let placed = match address {
        IpAddr::V4(address) => {
            let mut slots = image.v4.iter();
            let slot = slots.find(|slot| slot.claims.count > 0 && slot.address == address.octets());
            slot.map(|slot| (slot.claims.first, slot.claims.count))
        }
        IpAddr::V6(address) => {
            let mut slots = image.v6.iter();
            let slot = slots.find(|slot| slot.claims.count > 0 && slot.address == address.octets());
            slot.map(|slot| (slot.claims.first, slot.claims.count))
        }
    };
    let (first, count) = placed.unwrap_or_default();
    let mut spans = image.spans[first as usize..].iter().take(count as usize);
    spans
        .find(|span| span.first <= key && key <= span.last)
        .map_or((Entry::UNCLAIMED, Entry::UNCLAIMED), |span| {
            (span.entry, span.shadow)
        })
}

fn packed(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::V4(address.octets()),
        IpAddr::V6(address) => Address::V6(address.octets()),
    }
}

/// What the image says about an entry point: the id of the rule, and whether it drops.
fn look(image: &RulesetImage, address: IpAddr, transport: Transport, port: u16) -> Option<u32> {
    let ports = Ports {
        transport,
        source: Port::new(1),
        destination: Port::new(port),
    };
    let entry = image.lookup(Some(packed(address)), ports);
    entry.is_claimed().then(|| entry.rule())
}

proptest! {
    #[test]
    fn an_image_gives_every_port_to_the_rule_that_the_claims_give_it_to(
        rules in rules(),
        ports in prop::collection::vec(prop_oneof![438..452u16, any::<u16>()], 8),
        base in 0..100_000u32,
    ) {
        let ruleset = Ruleset::new(Defaults::default(), rules).unwrap();
        let ids: Vec<u32> = (base..).step_by(3).take(ruleset.rules().len()).collect();
        let image = compile(&ruleset, &ids).unwrap().image;
        let elsewhere = [IpAddr::V4(Ipv4Addr::BROADCAST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let edges = ruleset.rules().iter().flat_map(|rule| &rule.ports).flat_map(|range| {
            [range.first.saturating_sub(1), range.first, range.last, range.last.saturating_add(1)]
        });
        let ports: Vec<u16> = edges.chain(ports).collect();
        for address in addresses().into_iter().chain(elsewhere) {
            for transport in Transport::ALL {
                for &port in &ports {
                    let claimed = ruleset.claims().rule_at(address, transport, port);
                    let expected = claimed.map(|rule| ids[rule as usize]);
                    prop_assert_eq!(look(&image, address, transport, port), expected);
                }
            }
        }
    }
}

proptest! {
    // An image is large, and every case has one.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_table_says_what_the_rules_say_and_which_words_are_the_last(
        rules in rules(),
        track in any::<bool>(),
        ports in prop::collection::vec(prop_oneof![438..452u16, any::<u16>()], 6),
        base in 0..100_000u32,
    ) {
        let defaults = Defaults {
            icmp: if track { Icmp::ErrorsOnly } else { Icmp::Pass },
            ..Defaults::default()
        };
        let ruleset = Ruleset::new(defaults, rules).unwrap();
        let rules = ruleset.rules();
        let ids: Vec<u32> = (base..).step_by(3).take(rules.len()).collect();
        let image = compile(&ruleset, &ids).unwrap();
        let tracks = track || rules.iter().any(|rule| rule.terms.needs_flows().is_some());
        prop_assert_eq!(ruleset.flows().is_some(), tracks);
        prop_assert_eq!(image.header.defaults.flows, u32::from(tracks));
        for (slot, &id) in ids.iter().enumerate() {
            prop_assert_eq!(image.policies[id as usize], ruleset.policy(slot));
            let (rule, target) = (&rules[slot], image.targets[id as usize]);
            if !rule.to.action().has_target() {
                prop_assert_eq!(target, Target::default());
                continue;
            }
            let (first, count) = (target.first, target.count);
            let expected = Target { first, count, ..rule.delivery.target(&rule.to) };
            prop_assert_eq!(target, expected);
            if let Destination::Cpus(cpus) = &rule.to {
                let list = image.cpus.iter().skip(first as usize).take(count.into());
                prop_assert_eq!(list.copied().collect::<Vec<u16>>(), cpus.numbers().collect::<Vec<u16>>());
            } else {
                prop_assert_eq!(image.destinations.get(&first), Some(&rule.to));
            }
        }
        let edges = rules.iter().flat_map(|rule| &rule.ports).flat_map(|range| {
            [range.first.saturating_sub(1), range.first, range.last, range.last.saturating_add(1)]
        });
        let ports: Vec<u16> = edges.chain(ports).collect();
        for transport in Transport::ALL {
            let of_peers = rules.iter().any(|rule| {
                let mut ports = rule.ports.iter();
                rule.layer() == Layer::Source && ports.any(|range| range.transport == transport)
            });
            for &port in &ports {
                let index = Port::new(port).index(transport);
                let said = |layer, site| {
                    entry(&ruleset, &ids, claimer(rules, layer, site, transport, port))
                };
                prop_assert_eq!(image.source_ports[index], said(Layer::Source, None));
                prop_assert_eq!(image.shadow_ports[index], said(Layer::Shadow, None));
                let any = said(Layer::Destination, None);
                prop_assert_eq!(image.ports[index].closed(), any);
                let mut is_elsewhere = said(Layer::Shadow, None).is_claimed();
                for address in addresses() {
                    let (claim, shadow) = (
                        said(Layer::Destination, Some(address)),
                        said(Layer::Shadow, Some(address)),
                    );
                    is_elsewhere |= claim.is_claimed() || shadow.is_claimed();
                    let key = span_key(transport, Port::new(port));
                    prop_assert_eq!(span(&image, address, key), (claim, shadow));
                }
                let is_open = tracks
                    || is_elsewhere
                    || any.is_conditional()
                    || !matches!(any.action(), Action::Local | Action::Drop)
                    || (of_peers && !any.is_claimed());
                prop_assert_eq!(image.ports[index].is_open(), is_open);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_the_address_alone_decides_is_decided_as_step_by_step(
        rules in rules(),
        plain in any::<bool>(),
        ports in prop::collection::vec(prop_oneof![438..452u16, any::<u16>()], 6),
    ) {
        // Where rules of other kinds are, nothing is left to the address alone. Rates would say something else the
        // next time.
        let rules = rules
            .into_iter()
            .filter(|rule| !plain || rule.layer() == Layer::Destination)
            .map(|rule| Rule {
                terms: Terms::default(),
                ..rule
            })
            .collect();
        let Ok(ruleset) = Ruleset::new(Defaults::default(), rules) else {
            return Ok(());
        };
        let ids: Vec<u32> = (0..).take(ruleset.rules().len()).collect();
        let compiled = compile(&ruleset, &ids).unwrap();
        let alone = compiled.header.further_claims == Header::ADDRESSES_ALONE;
        let mut by_steps = compiled.clone();
        by_steps.image.header.further_claims = u32::from(compiled.header.further_claims != 0);
        for address in addresses() {
            for &port in &ports {
                for transport in Transport::ALL {
                    let frame = frame(address, transport, port);
                    let parsed = parse::parse(&frame[..]);
                    prop_assert_eq!(parsed.transport, Some(transport));
                    let decided = |ruleset| host::decide(&frame, ruleset, 0).outcome();
                    prop_assert_eq!(decided(&compiled), decided(&by_steps));
                    let claims = &*compiled.image;
                    if let Err(open) = decide::by_port(&parsed, claims) {
                        let metadata = Metadata::new(&parsed, open, Generation(0), frame.len() as u64);
                        let decision = metadata.decide_by_address(&frame[..], claims);
                        prop_assert!(alone || decision.is_none());
                        if let Some(decision) = decision {
                            prop_assert_eq!(decision.outcome(), decided(&by_steps));
                        }
                        prop_assert_eq!(metadata.decide_by_address(&frame[..], &*by_steps.image), None);
                    }
                }
            }
        }
        for version in [Version::V4, Version::V6] {
            for bucket in 0..DISPLACEMENTS {
                let near = compiled.ports[near(version, bucket)];
                prop_assert!(!near.is_claimed());
                let own = RulesetTables::displacement(&*compiled.image, version, bucket);
                prop_assert_eq!(Some(near.bits()), own);
            }
        }
    }
}

/// A frame to a port at an address, of as few bytes as it takes.
fn frame(address: IpAddr, transport: Transport, port: u16) -> Vec<u8> {
    let mut frame = vec![0; 12];
    let protocol = match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
        Transport::Sctp => 132,
    };
    match address {
        IpAddr::V4(address) => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, protocol, 0, 0]);
            frame.extend([198, 51, 100, 1]);
            frame.extend(address.octets());
        }
        IpAddr::V6(address) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, 64]);
            frame.extend([0; 16]);
            frame.extend(address.octets());
        }
    }
    frame.extend([0x9c, 0x40]);
    frame.extend(port.to_be_bytes());
    // Of UDP its length; TCP's sequence number and SCTP's tag may be anything. TCP's data offset follows.
    frame.extend([0, 20, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
    frame
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_parts_of_an_image_written_over_another_decide_as_on_their_own(
        old in rules(),
        new in rules(),
        ports in prop::collection::vec(prop_oneof![438..452u16, any::<u16>()], 8),
    ) {
        let compile = |rules| {
            let ruleset = Ruleset::new(Defaults::default(), rules).unwrap();
            let ids: Vec<u32> = (0..).take(ruleset.rules().len()).collect();
            compile(&ruleset, &ids).unwrap().image
        };
        let (mut over, new) = (compile(old), compile(new));
        let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(&*new));
        let over_words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut *over));
        for part in parts(&new.header) {
            over_words[part.clone()].copy_from_slice(&words[part]);
        }
        prop_assert_eq!(over.header, new.header);
        if new.header.source_claims == 1 {
            prop_assert!(over.source_ports == new.source_ports);
        }
        if new.header.shadow_claims == 1 {
            prop_assert!(over.shadow_ports == new.shadow_ports);
        }
        let policies = new.header.policies as usize;
        prop_assert!(over.policies[..policies] == new.policies[..policies]);
        let (targets, cpus) = (new.header.targets as usize, new.header.cpus as usize);
        prop_assert!(over.targets[..targets] == new.targets[..targets]);
        prop_assert!(over.cpus[..cpus] == new.cpus[..cpus]);
        let spans = new.header.spans as usize;
        prop_assert!(over.spans[..spans] == new.spans[..spans]);
        let elsewhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        for address in addresses().into_iter().chain(elsewhere) {
            for transport in Transport::ALL {
                for &port in &ports {
                    prop_assert_eq!(
                        look(&over, address, transport, port),
                        look(&new, address, transport, port)
                    );
                }
            }
        }
    }
}

#[test]
fn the_most_addresses_that_can_be_claimed_are_all_found_and_no_others() {
    let v4 = |number: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number * 3));
    let v6 = |number: u32| IpAddr::V6(Ipv6Addr::from(u128::from(number) << 64 | 1));
    let all = |address: fn(u32) -> IpAddr| (0..1 << 16).map(address);
    let addresses = all(v4).chain(all(v6)).collect();
    let port = PortRange {
        transport: Transport::Tcp,
        first: 443,
        last: 443,
    };
    let rule = Rule {
        name: "all".into(),
        ports: vec![port],
        addresses,
        ..Rule::default()
    };
    let ruleset = Ruleset::new(Defaults::default(), vec![rule]).unwrap();
    let image = compile(&ruleset, &[7]).unwrap().image;
    assert_eq!(
        image.header.spans, 1,
        "addresses that claim the same share their spans"
    );
    for number in 0..1 << 16 {
        for address in [v4(number), v6(number)] {
            assert_eq!(look(&image, address, Transport::Tcp, 443), Some(7));
            assert_eq!(look(&image, address, Transport::Tcp, 444), None);
            assert_eq!(look(&image, address, Transport::Udp, 443), None);
        }
        let neighbour = IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + number * 3));
        assert_eq!(look(&image, neighbour, Transport::Tcp, 443), None);
    }
}

#[test]
fn an_entry_keeps_the_highest_id_and_its_action() {
    let all = [
        Action::Local,
        Action::Drop,
        Action::Reject,
        Action::Socket,
        Action::Interface,
        Action::Cpu,
        Action::Xsk,
    ];
    for action in all {
        let entry = Entry::new((1 << 17) - 1, action);
        assert!(entry.is_claimed());
        assert_eq!(entry.rule(), (1 << 17) - 1);
        assert_eq!(entry.action(), action);
    }
    assert!(!Entry::UNCLAIMED.is_claimed());
}
