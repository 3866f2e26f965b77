//! Claims and conflicts against definitions that are too slow to use but too simple to be wrong.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    slice,
};

use portdemux_common::wire::Transport;
use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::{claims::claiming, conflict, intervals::Intervals, *};

/// Ports of the model: few, so that claims meet, and some at the end of the range.
const PORTS: [u16; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 65533, 65534, 65535];

fn addresses() -> Vec<IpAddr> {
    vec![
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ]
}

fn ranges() -> impl Strategy<Value = PortRange> {
    let ends = (0..PORTS.len(), 0..PORTS.len());
    (0..Transport::COUNT, ends).prop_map(|(transport, (a, b))| PortRange {
        transport: Transport::ALL[transport],
        first: PORTS[a.min(b)],
        last: PORTS[a.max(b)],
    })
}

fn rules(count: usize) -> impl Strategy<Value = Vec<Rule>> {
    let to = prop_oneof![Just(Destination::Local), Just(Destination::Drop)];
    let rule = (vec(ranges(), 1..4), subsequence(addresses(), 0..=2), to);
    vec(rule, 0..count).prop_map(|rules| {
        let with_place = rules.into_iter().zip(1..);
        with_place
            .map(|((ports, addresses, to), line)| {
                let mut rule = Rule {
                    name: format!("rule-{line}"),
                    ports,
                    addresses,
                    to,
                    line,
                    ..Rule::default()
                };
                rule.normalize();
                rule
            })
            .collect()
    })
}

/// Every claim of a rule at one address, or at any.
fn claims_of(rule: &Rule) -> Vec<(Option<IpAddr>, PortRange)> {
    let mut sites: Vec<_> = rule.addresses.iter().copied().map(Some).collect();
    if sites.is_empty() {
        sites.push(None);
    }
    sites
        .iter()
        .flat_map(|&site| rule.ports.iter().map(move |&ports| (site, ports)))
        .collect()
}

/// Whether two rules claim something with equal right.
fn clash(left: &Rule, right: &Rule) -> bool {
    claims_of(left).iter().any(|&(left_site, left)| {
        claims_of(right).iter().any(|&(right_site, right)| {
            let nested = left != right && (left.contains(right) || right.contains(left));
            left_site == right_site && left.overlaps(right) && !nested
        })
    })
}

/// Leaves out every rule that clashes with one before it.
fn holding_together(rules: Vec<Rule>) -> Vec<Rule> {
    let mut kept: Vec<Rule> = Vec::new();
    for rule in rules {
        if !kept.iter().any(|other| clash(other, &rule)) {
            kept.push(rule);
        }
    }
    kept
}

/// The rules that claim an entry point, the most specific first.
fn by_specificity(
    claims: &[(u32, Option<IpAddr>, PortRange)],
    (address, transport, port): (IpAddr, Transport, u16),
) -> Vec<u32> {
    let mut claiming: Vec<_> = claims
        .iter()
        .filter(|(_, site, ports)| {
            site.is_none_or(|site| site == address) && ports.holds(transport, port)
        })
        .collect();
    claiming.sort_by_key(|(_, site, ports)| (site.is_none(), ports.len()));
    let mut seen = BTreeSet::new();
    claiming
        .iter()
        .map(|claim| claim.0)
        .filter(|&rule| seen.insert(rule))
        .collect()
}

fn everywhere() -> impl Iterator<Item = (IpAddr, Transport, u16)> {
    let unclaimed = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    addresses()
        .into_iter()
        .chain([unclaimed])
        .flat_map(|address| {
            Transport::ALL.into_iter().flat_map(move |transport| {
                let ports = PORTS.into_iter().chain([11, 65532, 30000]);
                ports.map(move |port| (address, transport, port))
            })
        })
}

proptest! {
    #[test]
    fn the_most_specific_rule_gets_each_port(rules in rules(24)) {
        let rules = holding_together(rules);
        let ruleset = Ruleset::new(Defaults::default(), rules.clone()).unwrap();
        let claims: Vec<_> = (0..)
            .zip(&rules)
            .flat_map(|(index, rule)| {
                claims_of(rule).into_iter().map(move |(site, ports)| (index, site, ports))
            })
            .collect();
        for (address, transport, port) in everywhere() {
            let expected = by_specificity(&claims, (address, transport, port));
            let rule_at = ruleset.claims().rule_at(address, transport, port);
            prop_assert_eq!(rule_at, expected.first().copied());
            let claiming = claiming(ruleset.rules(), address, transport, port);
            let lines: Vec<_> = claiming.iter().map(|claim| claim.rule.line).collect();
            let expected: Vec<_> =
                expected.iter().map(|&index| rules[index as usize].line).collect();
            prop_assert_eq!(lines, expected);
        }
    }

    #[test]
    fn segments_ascend_and_join_what_one_rule_gets(rules in rules(24)) {
        let ruleset = Ruleset::new(Defaults::default(), holding_together(rules)).unwrap();
        let claims = ruleset.claims();
        let sites: Vec<_> = claims.by_address().collect();
        prop_assert!(sites.is_sorted_by(|left, right| left.0 < right.0));
        prop_assert_eq!(
            sites.iter().map(|site| site.1.len()).sum::<usize>(),
            claims.exact_segments()
        );
        for segments in sites.iter().map(|site| site.1).chain([claims.any()]) {
            prop_assert!(segments.iter().all(|segment| segment.first <= segment.last));
            let ascends = segments.is_sorted_by(|left, right| {
                let apart = u32::from(left.last) + 1 < u32::from(right.first);
                let touching = left.last < right.first && left.rule != right.rule;
                left.transport < right.transport
                    || (left.transport == right.transport && (apart || touching))
            });
            prop_assert!(ascends);
        }
    }

    #[test]
    fn every_clash_is_found_and_nothing_else(rules in rules(16)) {
        let found: BTreeSet<(u32, u32)> = conflict::find(&Intervals::of(&rules, Layer::Destination).unwrap())
            .iter()
            .map(|conflict| (conflict.first, conflict.second))
            .collect();
        let mut expected = BTreeSet::new();
        for (right, second) in (0..).zip(&rules) {
            let before = (0..).zip(&rules).take_while(|&(left, _)| left < right);
            expected.extend(
                before.filter(|(_, first)| clash(first, second)).map(|(left, _)| (left, right)),
            );
        }
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(
            Ruleset::new(Defaults::default(), rules).is_ok(),
            expected.is_empty()
        );
    }

    #[test]
    fn a_rule_s_own_ranges_are_nested_or_apart_and_lose_no_port(ports in vec(ranges(), 1..8)) {
        let mut rule = Rule { ports: ports.clone(), ..Rule::default() };
        rule.normalize();
        for (_, transport, port) in everywhere() {
            prop_assert_eq!(
                ports.iter().any(|range| range.holds(transport, port)),
                rule.ports.iter().any(|range| range.holds(transport, port))
            );
        }
        for (index, &left) in rule.ports.iter().enumerate() {
            for &right in &rule.ports[..index] {
                prop_assert_ne!(left, right);
                prop_assert!(!left.overlaps(right) || left.contains(right) || right.contains(left));
            }
        }
        let mut again = rule.clone();
        again.normalize();
        prop_assert_eq!(again, rule);
    }
}

fn rule(name: &str, ports: &[&str], addresses: &[&str], line: usize) -> Rule {
    Rule {
        name: name.into(),
        ports: ports.iter().map(|ports| ports.parse().unwrap()).collect(),
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        line,
        ..Rule::default()
    }
}

fn refusal(rules: &[Rule]) -> String {
    Ruleset::new(Defaults::default(), rules.to_vec())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_clash_names_both_rules_their_lines_and_what_both_claim() {
    let web = rule("web", &["8000-8100/tcp"], &[], 12);
    let admin = rule("admin", &["8050-8200/tcp"], &[], 19);
    assert_eq!(
        refusal(&[web, admin]),
        "error: two rules claim the same entry points\n\
         \x20 web    8000-8100/tcp  line 12\n\
         \x20 admin  8050-8200/tcp  line 19\n\
         \x20 both claim 8050-8100/tcp and neither is more specific\n\
         \x20help: give one an address or split a range; nothing was changed"
    );
}

#[test]
fn a_clash_at_an_address_names_it_and_counts_the_other_slots() {
    let addresses = ["203.0.113.10", "2001:db8::1"];
    let one = rule("one", &["443/tcp", "443/udp"], &addresses, 1);
    let two = rule("two", &["443/udp", "443/tcp"], &addresses, 2);
    let text = refusal(&[one, two]);
    assert!(text.contains(
        "both claim 443/tcp at 203.0.113.10 and neither is more specific, and so in 3 more places"
    ));
    assert!(
        text.contains("help: remove one; nothing was changed"),
        "{text}"
    );
}

#[test]
fn of_very_many_clashes_ten_are_told_and_the_others_counted() {
    let rules: Vec<_> = (1..=20)
        .map(|line| rule(&format!("r{line}"), &["443/tcp"], &[], line))
        .collect();
    let text = refusal(&rules);
    assert_eq!(text.matches("error:").count(), 10, "{text}");
    assert!(text.contains("… and 180 more pairs of rules"), "{text}");
    let rules: Vec<_> = (1..=400)
        .map(|line| rule(&format!("r{line}"), &["443/tcp"], &[], line))
        .collect();
    assert!(refusal(&rules).contains("… and at least 9990 more pairs of rules"));
}

#[test]
fn a_single_port_beats_a_range_also_within_one_rule() {
    let web = rule("web", &["443/tcp", "1-1000/tcp"], &[], 1);
    let other = rule("other", &["400-500/tcp"], &[], 2);
    let ruleset = Ruleset::new(Defaults::default(), vec![web, other]).unwrap();
    let at = |port| {
        ruleset
            .claims()
            .rule_at(addresses()[0], Transport::Tcp, port)
    };
    assert_eq!(
        [at(399), at(400), at(443), at(444), at(501)],
        [0, 1, 0, 1, 0].map(Some)
    );
}

#[test]
fn names_are_unique_and_a_rule_without_one_is_called_by_its_claim() {
    let ruleset = Ruleset::new(
        Defaults::default(),
        vec![
            rule("", &["443/tcp", "80/tcp"], &[], 1),
            rule("", &["443/tcp"], &["203.0.113.10", "203.0.113.11"], 2),
            rule(
                "",
                &["60000-65535/sctp"],
                &["2001:db8:1111:2222:3333:4444:5555:6666"],
                3,
            ),
        ],
    )
    .unwrap();
    let names: Vec<_> = ruleset.rules().iter().map(|rule| &*rule.name).collect();
    assert_eq!(names[..2], ["443/tcp", "443/tcp@203.0.113.10"]);
    assert_eq!(
        names[2],
        "60000-65535/sctp@2001:db8:1111:2222:3333:4444:5555:6666"
    );
    assert!(names.iter().all(|name| rule::check_name(name).is_ok()));

    let called = rule("443/tcp", &["80/tcp"], &[], 1);
    let unnamed = rule("", &["443/tcp"], &[], 2);
    let text = refusal(&[called, unnamed.clone()]);
    assert!(
        text.starts_with("error: two rules are called `443/tcp`\n"),
        "{text}"
    );
    // Two derived names are the same only where two claims are, and one error says so.
    let text = refusal(&[unnamed.clone(), unnamed]);
    assert!(
        text.starts_with("error: two rules claim the same entry points\n"),
        "{text}"
    );
    assert_eq!(text.matches("error:").count(), 1);
}

#[test]
fn names_are_visible_and_short() {
    for name in [
        "a",
        "web-8080",
        "ä",
        "名前",
        "it's",
        &"x".repeat(64),
        &"ä".repeat(32),
    ] {
        assert_eq!(rule::check_name(name), Ok(()), "{name}");
    }
    // The limit is in bytes of UTF-8: so many the kernel keeps.
    let long = "ä".repeat(33);
    for name in [
        "",
        "two words",
        "tab\t",
        "bell\u{7}",
        "wide\u{3000}",
        "zero\u{200b}",
        &long,
        &"x".repeat(65),
    ] {
        assert!(rule::check_name(name).is_err(), "{name:?}");
    }
}

#[test]
fn limits_are_told_before_they_cost_memory() {
    let many: Vec<_> = (0..=65536_u32)
        .map(|index| {
            let address = IpAddr::V4((0x0a00_0000 + index).into());
            let ports = vec!["443/tcp".parse().unwrap()];
            let name = format!("r{index}");
            Rule {
                name,
                ports,
                addresses: vec![address],
                ..Rule::default()
            }
        })
        .collect();
    assert!(refusal(&many).contains("error: 65537 rules are too many"));
    let everything = Rule {
        addresses: many.iter().map(|rule| rule.addresses[0]).collect(),
        ..many[0].clone()
    };
    let text = refusal(slice::from_ref(&everything));
    assert!(
        text.starts_with("error: 65537 IPv4 addresses are too many"),
        "{text}"
    );
    let everything = Rule {
        addresses: everything.addresses[1..].to_vec(),
        ports: (0..1000)
            .map(|port| PortRange::single(Transport::Udp, 2 * port))
            .collect(),
        ..everything
    };
    let text = refusal(slice::from_ref(&everything));
    assert!(
        text.starts_with("error: 65536000 claims of ports at single addresses"),
        "{text}"
    );
    let everything = Rule {
        ports: everything.ports[..5].to_vec(),
        ..everything
    };
    let text = refusal(slice::from_ref(&everything));
    assert!(
        text.starts_with("error: 327680 claims of ports at single addresses"),
        "{text}"
    );
    let everything = Rule {
        ports: everything.ports[..4].to_vec(),
        ..everything
    };
    assert!(Ruleset::new(Defaults::default(), vec![everything]).is_ok());
}
