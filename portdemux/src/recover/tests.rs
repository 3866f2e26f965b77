//! What is rebuilt against what it was.

use std::time::Duration;

use portdemux_common::ruleset::span_key;
use proptest::prelude::*;

use super::*;
use crate::{
    image::{self, tests::rules},
    rules::{Rule, Ruleset, edit, file},
};

/// A moment for texts in which nobody is a member for a time.
const NOW: Clock = Clock {
    unix: 4_000_000_000_000,
    monotonic: 0,
};

/// The image of a text, with the names of its rules by id.
fn compile(text: &str) -> (Compiled, HashMap<RuleId, String>) {
    let ruleset = file::parse("test.toml", text).unwrap();
    let ids: Vec<RuleId> = (0..).take(ruleset.rules().len()).collect();
    let names = ruleset.rules().iter().map(|rule| rule.name.clone());
    (
        image::compile(&ruleset, &ids).unwrap(),
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
    let rebuilt = text(&image, &names, &NOW);
    let (again, names_again) = compile(&rebuilt);
    assert_eq!(text(&again, &names_again, &NOW), rebuilt);
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
        r#"from = ["@office", "198.51.100.0/24"]"#,
        r#"office = ["192.0.2.0/24", "2001:db8:1::/48"]"#,
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

/// A rule as it is written.
fn written(rule: &Rule) -> String {
    let rule = edit::NewRule {
        name: Some(rule.name.clone()),
        ports: rule.ports.clone(),
        addresses: rule.addresses.clone(),
        from: rule.from.clone(),
        deny: rule.deny.clone(),
        to: Some(rule.to.clone()),
        delivery: rule.delivery,
        role: rule.role,
        terms: rule.terms,
        shadow: rule.shadow,
    };
    edit::append("", &rule)
}

/// What a table says, with what the rule is called and asks in the place of its id.
type Said = Option<(String, Destination, Delivery, bool, Policy)>;

fn said(image: &Compiled, names: &HashMap<RuleId, String>, entry: Entry) -> Said {
    if !entry.is_claimed() {
        return None;
    }
    // A rule that comes out as several is called the same but for the number.
    let name = names[&entry.rule()].split('-').next()?.to_owned();
    let policy = image.policies[entry.rule() as usize];
    let (to, delivery) = (destination(image, entry), delivery(image, entry));
    Some((name, to, delivery, entry.is_conditional(), policy))
}

/// What an image says about a port at an address, in every table.
fn at(
    image: &Compiled,
    names: &HashMap<RuleId, String>,
    address: IpAddr,
    transport: Transport,
    port: u16,
) -> [Said; 2] {
    let key = span_key(transport, Port::new(port));
    let mut addresses = addresses(image).into_iter();
    let (_, first, count) = addresses
        .find(|&(known, ..)| known == address)
        .unwrap_or((address, 0, 0));
    let mut spans = image.spans[first as usize..].iter().take(count as usize);
    let span = spans.find(|span| span.first <= key && key <= span.last);
    span.map_or([None, None], |span| {
        [span.entry, span.shadow].map(|entry| said(image, names, entry))
    })
}

proptest! {
    // An image is large, and every case has several.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn text_that_is_rebuilt_means_what_the_lost_text_meant(
        rules in rules(),
        inbound in prop::sample::select(vec!["pass", "drop", "reject"]),
        fragments in prop::sample::select(vec!["pass", "drop", "track"]),
        icmp in prop::sample::select(vec!["pass", "drop", "errors-only"]),
        track: bool,
        size in 1024..=1_u32 << 24,
        timeout in 1_000..=2_592_000_000_u64,
    ) {
        let timeout = crate::rules::duration::duration_text(Duration::from_millis(timeout));
        let track = if track { "track = true\n" } else { "" };
        let mut lost = format!(
            "[default]\ninbound = \"{inbound}\"\nfragments = \"{fragments}\"\nicmp = \
             \"{icmp}\"\n[flows]\n{track}size = {size}\nudp = \"{timeout}\"\n"
        );
        lost.extend(rules.iter().map(written));
        let (image, names) = compile(&lost);
        let rebuilt = text(&image, &names, &NOW);
        let (again, names_again) = compile(&rebuilt);
        prop_assert_eq!(text(&again, &names_again, &NOW), rebuilt);
        prop_assert_eq!(again.header.defaults, image.header.defaults);
        prop_assert_eq!(again.header.flows, image.header.flows);
        prop_assert_eq!(again.header.half_open, image.header.half_open);
        for (one, other) in [
            (&image.ports, &again.ports),
            (&image.source_ports, &again.source_ports),
            (&image.shadow_ports, &again.shadow_ports),
        ] {
            for (&one, &other) in one.iter().zip(other) {
                prop_assert_eq!(one.is_open(), other.is_open());
                if one.is_claimed() || other.is_claimed() {
                    prop_assert_eq!(
                        said(&image, &names, one),
                        said(&again, &names_again, other)
                    );
                }
            }
        }
        let edges = rules.iter().flat_map(|rule| &rule.ports).flat_map(|range| {
            [range.first.saturating_sub(1), range.first, range.last, range.last.saturating_add(1)]
        });
        let ports: HashSet<u16> = edges.collect();
        let claimed: HashSet<IpAddr> = rules.iter().flat_map(|rule| &rule.addresses).copied().collect();
        for &address in &claimed {
            for transport in Transport::ALL {
                for &port in &ports {
                    prop_assert_eq!(
                        at(&image, &names, address, transport, port),
                        at(&again, &names_again, address, transport, port)
                    );
                }
            }
        }
    }
}

#[test]
fn names_that_are_taken_or_long_make_no_rule_of_a_name_twice() {
    let long = "ä".repeat(32);
    let lost = format!(
        "[[rule]]\nname = \"{long}\"\nport = \"1-9/tcp\"\naddress = [\"192.0.2.1\", \"192.0.2.2\"]\n\
         [[rule]]\nname = \"cut\"\nport = \"5/tcp\"\naddress = \"192.0.2.2\"\n[[rule]]\nname = \
         \"web\"\nport = \"1-9/udp\"\naddress = [\"192.0.2.1\", \"192.0.2.2\"]\n[[rule]]\nname = \
         \"web-2\"\nport = \"5/udp\"\naddress = \"192.0.2.2\"\n"
    );
    let (image, names) = compile(&lost);
    let rebuilt = text(&image, &names, &NOW);
    let ruleset = file::parse("rebuilt", &rebuilt).unwrap();
    let names: Vec<_> = ruleset.rules().iter().map(|rule| &*rule.name).collect();
    let cut = format!("{}-2", "ä".repeat(31));
    assert_eq!(names, [&*long, &*cut, "cut", "web", "web-3", "web-2"]);
}

#[test]
fn an_empty_list_lets_none_in_when_it_is_rebuilt() {
    let lost = "[sets]\nempty = []\n[[rule]]\nport = \"1/tcp\"\nfrom = \"@empty\"\n";
    let (image, names) = compile(lost);
    let rebuilt = text(&image, &names, &NOW);
    assert!(rebuilt.contains("[sets]\nempty = []\n"), "{rebuilt}");
    assert!(rebuilt.contains("from = \"@empty\"\n"), "{rebuilt}");
    let ruleset: Ruleset = file::parse("rebuilt", &rebuilt).unwrap();
    assert_eq!(ruleset.policy(0).from, 1);
    // As an older build left it, without names.
    let mut image = image;
    image.sources[4] = 0;
    let rebuilt = text(&image, &names, &NOW);
    assert!(rebuilt.contains("[sets]\nnone = []\n"), "{rebuilt}");
    assert!(rebuilt.contains("from = \"@none\"\n"), "{rebuilt}");
}

#[test]
fn sets_keep_their_names_and_members_the_ends_of_their_time() {
    let clock = Clock::now();
    let later = |seconds: u64| Until {
        unix: clock.unix + seconds * 1000,
    };
    let guest = |number: u8, seconds: u64| {
        let until = later(seconds);
        format!("{{ prefix = \"192.0.2.{number}\", until = \"{until}\" }}")
    };
    let lost = format!(
        "[sets]\n\"the.office\" = [\"198.51.100.0/24\", \"2001:db8::/48\", {}, {}]\nbanned = [{}]\n\
         [[rule]]\nname = \"ssh\"\nport = \"22/tcp\"\nfrom = [\"@the.office\", \"203.0.113.1\"]\ndeny = \
         \"@banned\"\n[[rule]]\nname = \"web\"\nport = \"80/tcp\"\nfrom = \"@the.office\"\n",
        guest(7, 20),
        guest(8, 3600),
        guest(9, 86_400),
    );
    let (mut image, names) = compile(&lost);
    let rebuilt = text(&image, &names, &clock);
    let ruleset = file::parse("rebuilt", &rebuilt).unwrap();
    let rule = ruleset.rule("ssh").unwrap();
    let from: Vec<String> = rule.from.iter().map(ToString::to_string).collect();
    assert_eq!(from, ["@the.office", "203.0.113.1"], "{rebuilt}");
    let ends = |ruleset: &Ruleset, name: &str| {
        let mut sets = ruleset.sets().iter();
        let set = sets.find(|set| set.name == name).unwrap();
        let mut members: Vec<(String, Option<u64>)> = set
            .members(clock.unix)
            .map(|(prefix, until)| {
                let left = until.map(|until| until.unix - clock.unix);
                // It comes out a moment later than it went in.
                let seconds = left.map(|left| left / 1000);
                assert!(left.is_none_or(|left| left % 1000 < 5), "{left:?}");
                (prefix.to_string(), seconds)
            })
            .collect();
        members.sort();
        members
    };
    let member = |prefix: &str, seconds: Option<u64>| (prefix.to_owned(), seconds);
    assert_eq!(
        ends(&ruleset, "the.office"),
        [
            member("192.0.2.7/32", Some(20)),
            member("192.0.2.8/32", Some(3600)),
            member("198.51.100.0/24", None),
            member("2001:db8::/48", None),
        ]
    );
    assert_eq!(
        ends(&ruleset, "banned"),
        [member("192.0.2.9/32", Some(86_400))]
    );
    // Who was in it for a time is not in it when that is over.
    let tomorrow = Clock {
        unix: clock.unix + 100_000_000,
        monotonic: clock.monotonic + 100_000_000_000_000,
    };
    let rebuilt = text(&image, &names, &tomorrow);
    assert!(
        rebuilt.contains("banned = []\n") && !rebuilt.contains("until"),
        "{rebuilt}"
    );
    // Without names there is a set for who is in a list for a time.
    image.sources[4] = 0;
    let ruleset = file::parse("rebuilt", &text(&image, &names, &clock)).unwrap();
    let rule = ruleset.rule("ssh").unwrap();
    let Source::Set(deny) = &rule.deny[0] else {
        panic!("{:?}", rule.deny)
    };
    assert_eq!(ends(&ruleset, deny), [member("192.0.2.9/32", Some(86_400))]);
}
