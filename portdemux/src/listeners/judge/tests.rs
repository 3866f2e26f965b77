//! Rulesets as they are compiled, and what they come to for sockets.

use std::{collections::BTreeSet, fmt::Write as _, slice};

use super::*;
use crate::{
    image,
    maps::steering::Member,
    rules::file,
    sockets::{Family, Queue, SocketState},
};

const V4: &str = "192.0.2.2";
const OTHER_V4: &str = "192.0.2.3";
const V6: &str = "2001:db8::2";
const ELSEWHERE: &str = "203.0.113.9";

/// A judge of a ruleset on an interface (index 2) with [`V4`], [`OTHER_V4`] and [`V6`].
fn judge(text: &str) -> Judge {
    let ruleset = file::parse("rules.toml", text).unwrap();
    let ids: Vec<RuleId> = (0..).take(ruleset.rules().len()).collect();
    let names = ruleset.rules().iter().map(|rule| rule.name.clone());
    let names = ids.iter().copied().zip(names).collect();
    let watched = Watched {
        interfaces: BTreeSet::from([2]),
        addresses: [V4, OTHER_V4, V6].map(ip).into(),
        elsewhere: [(ip(ELSEWHERE), 3)].into(),
        receiving: BTreeSet::new(),
        names: [(2, "eth0".into()), (3, "eth1".into())].into(),
    };
    Judge::of(
        image::compile(&ruleset, &ids).unwrap(),
        names,
        Some(&ruleset),
        Present::default(),
        watched,
    )
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A socket that listens on 80/tcp.
fn bound(addresses: &[&str]) -> Socket {
    Socket {
        transport: Transport::Tcp,
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        is_dual: addresses == ["::"],
        port: 80,
        peer: "0.0.0.0:0".parse().unwrap(),
        device: None,
        state: SocketState::Listening,
        queue: Queue::default(),
        owner: 0,
        inode: 1,
        cookie: Some(7),
    }
}

/// The parts as `WORD RULE ADDRESS…`, peers behind a `<`.
fn said(judge: &Judge, socket: &Socket) -> Vec<String> {
    let parts = judge.judge(socket).into_iter();
    parts
        .map(|part| {
            let mut text = format!("{} {}", part.reach.name(), part.reach.rule().unwrap_or("-"));
            for address in &part.addresses {
                let _ = write!(text, " {address}");
            }
            if let Some(peers) = part.peers {
                let _ = write!(text, " < {peers}");
            }
            text
        })
        .collect()
}

const ALL: &str = "192.0.2.2 192.0.2.3 2001:db8::2";

#[test]
fn every_way_of_being_reached_has_its_word() {
    for (rules, expected) in [
        ("", "direct -"),
        ("[default]\ninbound = \"drop\"", "dropped -"),
        ("[default]\ninbound = \"reject\"", "rejected -"),
        ("[[rule]]\nport = \"80/tcp\"\nname = \"web\"", "direct web"),
        ("[[rule]]\nport = \"80/udp\"\nname = \"web\"", "direct -"),
        (
            "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nrate = \"9/s\"",
            "direct web",
        ),
        (
            "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nshadow = true\nto = \"drop\"",
            "direct -",
        ),
        (
            "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nto = \"drop\"",
            "dropped web",
        ),
        (
            "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nto = \"reject\"",
            "rejected web",
        ),
        (
            "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nconnections = \"established\"",
            "replies web",
        ),
        (
            "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nfrom = [\"10.0.0.0/8\", \"fc00::/7\"]",
            "sources web",
        ),
        (
            "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\ndeny = [\"10.0.0.1\", \"fc00::1\"]",
            "sources web",
        ),
        // Whoever admits everyone admits no fewer than who says nothing.
        (
            "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nfrom = [\"0.0.0.0/0\", \"::/0\"]",
            "direct web",
        ),
        (
            "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nfrom = \"10.0.0.1\"\ndeny = [\"0.0.0.0/0\", \
             \"::/0\"]",
            "dropped web",
        ),
    ] {
        assert_eq!(
            said(&judge(rules), &bound(&["::"])),
            [format!("{expected} {ALL}")],
            "{rules}"
        );
        assert_eq!(
            said(&judge(rules), &bound(&[V4])),
            [format!("{expected} {V4}")],
            "{rules}"
        );
    }
}

#[test]
fn an_address_that_a_rule_names_is_another_part() {
    let rules = format!(
        "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\n[[rule]]\nport = \"80/tcp\"\nname = \"not\"\nto = \
         \"drop\"\naddress = [\"{V4}\", \"{ELSEWHERE}\"]"
    );
    let judge = judge(&rules);
    let parts = said(&judge, &bound(&["::"]));
    assert_eq!(
        parts,
        [
            format!("dropped not {V4}"),
            format!("direct web {OTHER_V4} {V6}")
        ]
    );
    // A socket of one version, and one of one address.
    let mut only_v6 = bound(&["::"]);
    only_v6.is_dual = false;
    assert_eq!(said(&judge, &only_v6), [format!("direct web {V6}")]);
    assert_eq!(said(&judge, &bound(&[V4])), [format!("dropped not {V4}")]);
    assert_eq!(
        said(&judge, &bound(&[OTHER_V4])),
        [format!("direct web {OTHER_V4}")]
    );
}

#[test]
fn who_admits_one_version_only_admits_nobody_of_the_other() {
    let judge = judge("[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nfrom = \"10.0.0.0/8\"");
    let parts = said(&judge, &bound(&["::"]));
    assert_eq!(
        parts,
        [
            format!("sources web {V4} {OTHER_V4}"),
            format!("dropped web {V6}")
        ]
    );
}

#[test]
fn loopback_and_interfaces_without_the_program_are_told_apart() {
    let judge = judge("[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nto = \"drop\"");
    assert_eq!(said(&judge, &bound(&["127.0.0.1"])), ["loopback -"]);
    assert_eq!(said(&judge, &bound(&["::1"])), ["loopback -"]);
    let on = |device, addresses: &[&str]| Socket {
        device: Some(device),
        ..bound(addresses)
    };
    assert_eq!(said(&judge, &on(1, &["::"])), ["loopback -"]);
    assert_eq!(
        said(&judge, &on(2, &["0.0.0.0"])),
        [format!("dropped web {V4} {OTHER_V4}")]
    );
    assert_eq!(said(&judge, &on(3, &["0.0.0.0"])), ["unwatched -"]);
    assert_eq!(said(&judge, &bound(&[ELSEWHERE])), ["unwatched -"]);
    let [part] = &judge.judge(&bound(&[ELSEWHERE]))[..] else {
        panic!("several parts");
    };
    let interface = Some("eth1".into());
    assert_eq!(part.reach, Reach::Unwatched { interface });
    // An address that no interface has can come by any; of several the watched one counts.
    assert_eq!(
        said(&judge, &bound(&["203.0.113.77"])),
        ["dropped web 203.0.113.77"]
    );
    assert_eq!(
        said(&judge, &bound(&["127.0.0.1", V4])),
        [format!("dropped web {V4}")]
    );
}

#[test]
fn a_socket_of_every_address_is_reached_past_the_rules_by_other_interfaces_that_are_up() {
    let mut judge = judge("[[rule]]\nport = \"80/tcp\"\nname = \"web\"\nto = \"drop\"");
    let dropped = format!("dropped web {V4} {OTHER_V4}");
    assert_eq!(
        said(&judge, &bound(&["0.0.0.0"])),
        slice::from_ref(&dropped)
    );
    judge.watched.receiving = BTreeSet::from([2, 3]);
    let unwatched = format!("unwatched - {ELSEWHERE}");
    assert_eq!(
        said(&judge, &bound(&["0.0.0.0"])),
        [dropped.clone(), unwatched.clone()]
    );
    let parts = judge.judge(&bound(&["0.0.0.0"]));
    let interface = Some("eth1".into());
    assert_eq!(parts[1].reach, Reach::Unwatched { interface });
    assert_eq!(
        said(&judge, &bound(&["::"])),
        [format!("dropped web {ALL}"), unwatched.clone()]
    );
    // Another version, another interface, another address.
    let mut only_v6 = bound(&["::"]);
    only_v6.is_dual = false;
    assert_eq!(said(&judge, &only_v6), [format!("dropped web {V6}")]);
    let on_watched = Socket {
        device: Some(2),
        ..bound(&["0.0.0.0"])
    };
    assert_eq!(said(&judge, &on_watched), [dropped]);
    assert_eq!(said(&judge, &bound(&[V4])), [format!("dropped web {V4}")]);
    // Of several addresses each is judged for itself.
    assert_eq!(
        said(&judge, &bound(&[V4, ELSEWHERE])),
        [format!("dropped web {V4}"), unwatched]
    );
}

#[test]
fn an_interface_without_addresses_is_judged_for_any() {
    let mut judge = judge("[[rule]]\nport = \"80/tcp\"\nname = \"web\"");
    judge.watched.addresses.clear();
    assert_eq!(said(&judge, &bound(&["::"])), ["direct web"]);
    judge.watched.interfaces.clear();
    assert_eq!(said(&judge, &bound(&["::"])), ["unwatched -"]);
}

#[test]
fn rules_for_the_ports_of_peers_are_told_where_they_make_a_difference() {
    let source = "port = \"443/tcp\"\nrole = \"source\"\nname = \"peers\"\n";
    let denied = "[default]\ninbound = \"drop\"\n";
    let established = "connections = \"established\"\n";
    let claimed = "[[rule]]\nport = \"80/tcp\"\nname = \"web\"\n";
    for (rules, expected) in [
        // The mistake that the docs warn of.
        (
            format!("{denied}[[rule]]\n{source}"),
            &["direct peers", "dropped -"][..],
        ),
        (
            format!("[[rule]]\n{source}to = \"drop\""),
            &["dropped peers", "direct -"],
        ),
        // Replies come in anyway.
        (
            format!("{denied}[[rule]]\n{source}{established}"),
            &["dropped -"],
        ),
        (format!("[[rule]]\n{source}"), &["direct -"]),
        // A claim of the port itself beats it.
        (
            format!("{denied}{claimed}[[rule]]\n{source}"),
            &["direct web"],
        ),
    ] {
        let expected = expected
            .iter()
            .map(|expected| match expected.split_once(" peers") {
                Some(_) => format!("{expected} {V4} < peers"),
                None => format!("{expected} {V4}"),
            });
        let expected: Vec<String> = expected.collect();
        assert_eq!(said(&judge(&rules), &bound(&[V4])), expected, "{rules}");
    }
}

/// Makes sockets of these numbers those of a name.
fn enter(judge: &mut Judge, name: &str, transport: Transport, family: Family, cookies: &[u64]) {
    let Ok(Destination::Socket(name)) = format!("socket:{name}").parse() else {
        panic!("{name}");
    };
    let members = (0..).zip(cookies).map(|(slot, &cookie)| Member {
        transport,
        slot,
        family,
        cookie,
    });
    let group = judge.present.sockets.entry(name).or_default();
    group.extend(members);
}

#[test]
fn who_is_handed_packets_by_a_rule_is_reached_through_it() {
    let rules =
        "[[rule]]\nname = \"web\"\nport = [\"443/tcp\", \"443/udp\"]\nto = \"socket:127.0.0.1:80\"";
    let mut judge = judge(rules);
    enter(
        &mut judge,
        "127.0.0.1:80",
        Transport::Tcp,
        Family::V4,
        &[3, 7],
    );
    let handed = Part {
        reach: Reach::Socket {
            rule: "web".into(),
            ports: vec!["443/tcp".parse().unwrap()],
        },
        addresses: Vec::new(),
        peers: None,
    };
    assert_eq!(
        judge.judge(&bound(&["127.0.0.1"])),
        slice::from_ref(&handed)
    );
    let everywhere = judge.judge(&bound(&["0.0.0.0"]));
    assert_eq!(everywhere[0], handed);
    assert_eq!(everywhere[1].reach, Reach::Direct { rule: None });
    // Who listens on the port itself gets nothing of what the others take.
    let passed_by = |address| Socket {
        port: 443,
        cookie: Some(8),
        ..bound(&[address])
    };
    assert_eq!(
        said(&judge, &passed_by(V4)),
        [format!("elsewhere web {V4}")]
    );
    assert_eq!(said(&judge, &passed_by(V6)), [format!("rejected web {V6}")]);
    let mut of_udp = passed_by(V4);
    of_udp.transport = Transport::Udp;
    assert_eq!(said(&judge, &of_udp), [format!("rejected web {V4}")]);
    // That it is bound to the address of the rule makes it none of them.
    let other = Socket {
        cookie: Some(8),
        ..bound(&["127.0.0.1"])
    };
    assert_eq!(said(&judge, &other), ["loopback -"]);
}

#[test]
fn who_is_passed_by_is_told_for_whom() {
    for (to, expected) in [
        ("interface:eth1", "elsewhere web"),
        ("xsk:echo", "elsewhere web"),
        ("socket:[2001:db8::2]:8080", "elsewhere web"),
        ("socket:echo", "elsewhere web"),
        ("cpu:0", "direct web"),
    ] {
        let mut judge = judge(&format!(
            "[[rule]]\nname = \"web\"\nport = \"80/tcp\"\nto = \"{to}\""
        ));
        if let Some(name) = to.strip_prefix("socket:") {
            enter(&mut judge, name, Transport::Tcp, Family::Both, &[8]);
        }
        assert_eq!(said(&judge, &bound(&[V4])), [format!("{expected} {V4}")]);
        let parts = judge.judge(&bound(&[V4]));
        if let Reach::Elsewhere { to: said, .. } = &parts[0].reach {
            assert_eq!(said, to);
        }
    }
}

#[test]
fn what_is_meant_for_nobody_falls_back() {
    let rule = |to: &str, rest: &str| {
        judge(&format!(
            "[[rule]]\nname = \"web\"\nport = \"80/tcp\"\nto = \"{to}\"\n{rest}"
        ))
    };
    let from = "fallback = \"local\"\nfrom = [\"198.51.100.0/24\"]";
    for (rest, of_socket, of_interface) in [
        ("", "rejected web", "dropped web"),
        ("fallback = \"drop\"", "dropped web", "dropped web"),
        ("fallback = \"reject\"", "rejected web", "rejected web"),
        ("fallback = \"local\"", "direct web", "direct web"),
        (from, "sources web", "sources web"),
    ] {
        let socket = rule("socket:echo", rest);
        assert_eq!(said(&socket, &bound(&[V4])), [format!("{of_socket} {V4}")]);
        let mut interface = rule("interface:eth1", rest);
        let missing = "interface:eth1".parse().unwrap();
        interface.present.missing.push(missing);
        assert_eq!(
            said(&interface, &bound(&[V4])),
            [format!("{of_interface} {V4}")]
        );
    }
    // This very socket is the one of the name.
    let mut own = rule("socket:echo", "fallback = \"local\"");
    enter(&mut own, "echo", Transport::Tcp, Family::Both, &[7]);
    assert_eq!(said(&own, &bound(&[V4])), ["socket web"]);
}
