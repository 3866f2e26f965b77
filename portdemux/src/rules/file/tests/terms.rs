//! What rules ask of packets, what happens to the rest, and flows: how that is read, and what does not
//! go together.

use std::time::Duration;

use portdemux_common::policy::{Fragments, Icmp, Policy};

use super::{super::parse, refusal};
use crate::rules::{Connections, Destination, Inbound, Layer, Per, Ruleset, Terms};

fn ruleset(text: &str) -> Ruleset {
    parse("f.toml", text).unwrap()
}

#[test]
fn every_key_of_a_rule_is_read() {
    let ruleset = ruleset(
        r#"
[[rule]]
name = "ssh"
port = "22/tcp"
rate = "1000/s"
burst = 1_500
per = "source"
new_rate = "10/m"
new_burst = 0x14
[[rule]]
name = "replies"
port = "32768-60999/udp"
connections = "established"
[[rule]]
port = "443/tcp"
role = "source"
to = "reject"
[[rule]]
name = "later"
port = "22/tcp"
shadow = true
connections = "all"
role = "destination"
per = "rule"
rate = "3/h"
"#,
    );
    let [ssh, replies, peers, later] = ruleset.rules() else {
        panic!("four rules")
    };
    let rate = |text: &str| Some(text.parse().unwrap());
    assert_eq!(
        ssh.terms,
        Terms {
            connections: Connections::All,
            rate: rate("1000/s"),
            burst: Some(1500),
            per: Some(Per::Source),
            new_rate: rate("10/m"),
            new_burst: Some(20),
        }
    );
    assert_eq!(replies.terms.connections, Connections::Established);
    assert_eq!(replies.terms.policy().conditions, Policy::REPLIES_ONLY);
    assert_eq!(
        (&*peers.name, peers.layer(), peers.to.clone()),
        ("source:443/tcp", Layer::Source, Destination::Reject)
    );
    assert_eq!(later.layer(), Layer::Shadow);
    assert_eq!(later.terms.policy().rate.tolerance, 2 * 1_200_000_000_000);
    assert!(ruleset.flows().is_some());
}

#[test]
fn the_tables_of_defaults_and_flows_are_read() {
    let text = "[default]\ninbound = \"reject\"\nfragments = \"track\"\nicmp = \"errors-only\"\n\
                [flows]\nsize = 100_000\nhalf_open = 1024\nhandshake = \"5s\"\ntcp = \"2h\"\nudp = \"1500ms\"\n";
    let ruleset = ruleset(text);
    let defaults = ruleset.defaults();
    assert_eq!(
        (defaults.inbound, defaults.fragments, defaults.icmp),
        (Inbound::Reject, Fragments::Track, Icmp::ErrorsOnly)
    );
    let flows = ruleset.flows().unwrap();
    assert_eq!(
        (flows.size, flows.slots(), flows.half_open_slots()),
        (100_000, 1 << 17, 1024)
    );
    assert_eq!(
        flows.timeouts.map(|timeout| timeout.as_millis()),
        [5_000, 7_200_000, 60_000, 30_000, 1_500, 86_400_000, 30_000]
    );
}

#[test]
fn flows_are_tracked_where_something_needs_them() {
    let rule = |key: &str| format!("[[rule]]\nport = \"1/tcp\"\n{key}\n");
    for (text, tracks) in [
        (String::new(), false),
        ("[flows]\nsize = 2048".into(), false),
        ("[flows]\ntrack = false".into(), false),
        ("[flows]\ntrack = true".into(), true),
        ("[default]\ninbound = \"drop\"".into(), true),
        ("[default]\ninbound = \"reject\"".into(), true),
        ("[default]\nfragments = \"track\"".into(), false),
        ("[default]\nicmp = \"drop\"".into(), true),
        (rule("connections = \"established\""), true),
        (rule("new_rate = \"1/s\""), true),
        (rule("rate = \"1/s\""), false),
        (rule("role = \"source\""), false),
        (rule("shadow = true"), false),
        (rule("connections = \"established\"\nshadow = true"), true),
    ] {
        assert_eq!(ruleset(&text).flows().is_some(), tracks, "{text}");
    }
    let flows = *ruleset("[flows]\nsize = 2048\necho = \"1s\"").flow_settings();
    assert_eq!(
        (flows.size, flows.timeouts[6]),
        (2048, Duration::from_secs(1))
    );
}

#[test]
fn who_needs_flows_is_named_to_who_wants_none() {
    assert_eq!(
        refusal(
            "[default]\nicmp = \"drop\"\n[flows]\ntrack = false\n[[rule]]\nname = \"eph\"\nport = \
             \"1/tcp\"\nconnections = \"established\"\n"
        ),
        "error: `track = false`, but `icmp = \"drop\"` needs the state of flows\n\
         \x20 track = false  f.toml:4\n\
         \x20 [default]  icmp = \"drop\"\n\
         \x20 eph            connections = \"established\"  f.toml:5\n\
         \x20help: leave `track` out: flows are tracked where something needs them; nothing was \
         changed"
    );
}

#[test]
fn claims_of_peers_and_shadows_meet_only_their_like() {
    let rule = |name: &str, port: &str, key: &str| {
        format!("[[rule]]\nname = \"{name}\"\nport = \"{port}/tcp\"\n{key}\n")
    };
    let source = "role = \"source\"";
    let shadow = "shadow = true";
    let all = [
        rule("a", "1-9", ""),
        rule("b", "1-9", source),
        rule("c", "1-9", shadow),
    ];
    ruleset(&all.concat());
    // Within a layer the narrower range wins, as among all rules.
    ruleset(&(all.concat() + &rule("d", "5", source) + &rule("e", "2-3", shadow)));
    for (key, message, help) in [
        (
            "",
            "two rules claim the same entry points",
            "give one an address",
        ),
        (
            source,
            "two rules claim the same ports of peers",
            "help: split a range",
        ),
        (
            shadow,
            "two shadows claim the same entry points",
            "give one an address",
        ),
    ] {
        let told = refusal(&(all.concat() + &rule("d", "5-15", key)));
        assert!(told.contains(message) && told.contains(help), "{told}");
        assert!(told.contains("5-9/tcp"), "{told}");
        assert_eq!(told.matches("error:").count(), 1, "{told}");
    }
    // A shadow is called as the rule that it can become, and there is only one of a name.
    let told = refusal("[[rule]]\nport = \"1/tcp\"\n[[rule]]\nport = \"1/tcp\"\nshadow = true\n");
    assert!(told.contains("two rules are called `1/tcp`"), "{told}");
}

/// Keys of a rule, the line of the rule's table that is told and part of what is told.
const MISTAKES: &[(&str, usize, &str)] = &[
    ("connections = \"new\"", 3, "`connections` cannot be `new`"),
    (
        "connections = \"new\"",
        3,
        "write \"all\" or \"established\"",
    ),
    (
        "connections = \"establish\"",
        3,
        "did you mean \"established\"",
    ),
    (
        "connections = true",
        3,
        "`connections` is true or false, not text",
    ),
    ("conections = \"all\"", 3, "did you mean `connections`"),
    ("role = \"src\"", 3, "write \"destination\" or \"source\""),
    ("role = \"sorce\"", 3, "did you mean \"source\""),
    ("rate = 1000", 3, "`rate` is a number, not text"),
    ("rate = 1000", 3, "as in \"1000/s\""),
    ("rate = \"1000\"", 3, "write 1000/s, 1000/m or 1000/h"),
    ("rate = \"0/s\"", 3, "lets no packet in"),
    (
        "rate = \"1000000001/s\"",
        3,
        "is more than 1,000,000,000 packets",
    ),
    ("new_rate = \"10 per minute\"", 3, "is no rate"),
    ("burst = 5", 1, "`burst` without `rate`"),
    ("burst = 5\nnew_rate = \"1/s\"", 1, "`burst` without `rate`"),
    (
        "new_burst = 5\nrate = \"1/s\"",
        1,
        "as in new_rate = \"1000/s\"",
    ),
    ("rate = \"1/s\"\nburst = 0", 4, "a burst of 0 packets"),
    (
        "rate = \"1/s\"\nburst = 4294967297",
        4,
        "1 to 4,294,967,296",
    ),
    ("rate = \"1/s\"\nburst = -1", 4, "`burst` cannot be -1"),
    (
        "rate = \"1/s\"\nburst = 1.5",
        4,
        "write a number of packets",
    ),
    (
        "rate = \"1/s\"\nburst = \"5\"",
        4,
        "`burst` is text, not a number",
    ),
    (
        "rate = \"1/h\"\nburst = 4294967296",
        1,
        "comes back only after more than",
    ),
    ("per = \"source\"", 1, "`per` without `rate` or `new_rate`"),
    (
        "rate = \"1/s\"\nper = \"host\"",
        4,
        "write \"rule\" or \"source\"",
    ),
    (
        "shadow = \"true\"",
        3,
        "write true or false, without quotes",
    ),
    (
        "connections = \"established\"\nto = \"drop\"",
        1,
        "leave one of them out",
    ),
    (
        "connections = \"established\"\nto = \"reject\"",
        1,
        "`to = \"reject\"` that nothing does",
    ),
    (
        "role = \"source\"\naddress = \"192.0.2.1\"",
        1,
        "leave `address` out",
    ),
    (
        "role = \"source\"\nshadow = true",
        1,
        "`role = \"source\"` with `shadow = true`",
    ),
];

#[test]
fn every_mistake_in_the_terms_of_a_rule_is_told_with_its_line() {
    for (keys, line, message) in MISTAKES {
        let told = refusal(&format!("[[rule]]\nport = \"1/tcp\"\n{keys}\n"));
        assert!(told.contains(&format!("f.toml:{line}\n")), "{keys}\n{told}");
        assert!(told.contains(message), "{keys}\n{told}");
        assert_eq!(told.matches("error:").count(), 1, "{told}");
        assert!(told.contains("help:"), "{told}");
    }
}

#[test]
fn every_mistake_in_the_other_tables_is_told_with_its_line() {
    for (text, line, message) in [
        (
            "[default]\ninbound = \"rejct\"",
            2,
            "did you mean \"reject\"",
        ),
        (
            "[default]\nfragments = \"keep\"",
            2,
            "write \"pass\", \"drop\" or \"track\"",
        ),
        (
            "[default]\nicmp = \"errors\"",
            2,
            "`icmp` cannot be `errors`",
        ),
        (
            "[default]\nicmp = 1",
            2,
            "write \"pass\", \"drop\" or \"errors-only\"",
        ),
        ("[flow]\nsize = 1", 1, "did you mean [flows]"),
        ("[[flows]]\nsize = 2048", 1, "write [flows]"),
        ("flows = 1", 1, "`flows` is a number, not a table"),
        ("[flows]\n[flows]", 2, "`flows` is given twice"),
        (
            "flows.tcp = \"1h\"\n[flows]",
            2,
            "`flows` is given in two ways",
        ),
        ("[flows.tcp]\nidle = 1", 1, "write tcp = … under [flows]"),
        ("[flows]\nsizes = 2048", 2, "did you mean `size`"),
        (
            "[flows]\nsize = 2048\nsize = 2048",
            3,
            "`size` is given twice",
        ),
        ("[flows]\nsize = 1023", 2, "`size` cannot be 1023"),
        ("[flows]\nhalf_open = 16777217", 2, "1024 to 16777216"),
        (
            "[flows]\nsize = \"many\"",
            2,
            "`size` is text, not a number",
        ),
        (
            "[flows]\ntrack = \"yes\"",
            2,
            "`track` is text, not true or false",
        ),
        (
            "[flows]\ntcp = 30",
            2,
            "write \"30s\" for seconds, in quotes",
        ),
        ("[flows]\ntcp = \"30\"", 2, "`30` has no unit"),
        ("[flows]\ntcp = \"soon\"", 2, "`soon` is no duration"),
        ("[flows]\ntcp = \"500ms\"", 2, "`tcp` is shorter than"),
        (
            "[flows]\ntcp = \"0s\"",
            2,
            "write a duration from 1s to 30d",
        ),
        ("[flows]\none_way = \"31d\"", 2, "`one_way` is longer than"),
        ("[flows]\nudp = []", 2, "`udp` is a list, not text"),
        ("tcp = \"1h\"", 1, "`tcp` stands outside of [flows]"),
        ("rate = \"1/s\"", 1, "`rate` stands outside of any rule"),
    ] {
        let told = refusal(&format!("{text}\n"));
        assert!(told.contains(&format!("f.toml:{line}\n")), "{text}\n{told}");
        assert!(told.contains(message), "{text}\n{told}");
        assert_eq!(told.matches("error:").count(), 1, "{told}");
    }
}
