//! Edits: what they change and what they leave.

use proptest::prelude::*;

use super::{append, promote, remove, *};
use crate::rules::{file::parse, terms::Per};

const FILE: &str = r#"# Rules of a small host.
[default]
malformed = "drop"   # keep

# Everyone may read.
# Over both versions of HTTP.
[[rule]]
name = "https"
port = ["443/tcp", "443/udp"]

# -- the rest --

[[rule]]    # unnamed
port = "22/tcp"
# Goes with the rule above.

# Goes with the rule below.
[[rule]]
name = "many"
port = [
    # web
    "8000-8100/tcp",   # first
    "9000/tcp", # second
    "9001/tcp", "9002/tcp", "9003/tcp"
]
to = "drop"
"#;

fn cut(selectors: &[&str]) -> String {
    let text = remove("f.toml", "portdemux", FILE, selectors).unwrap();
    parse("f.toml", &text).unwrap();
    text
}

fn refusal(selectors: &[&str]) -> String {
    remove("f.toml", "portdemux", FILE, selectors)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_rule_goes_with_the_comment_directly_above_it_and_the_rest_stays() {
    let expected = FILE.replace(
        "# Everyone may read.\n# Over both versions of HTTP.\n[[rule]]\nname = \"https\"\nport = \
         [\"443/tcp\", \"443/udp\"]\n\n",
        "",
    );
    assert_eq!(cut(&["https"]), expected);
    assert_eq!(cut(&["443/udp", "443/tcp"]), expected);
    assert_eq!(cut(&["443/udp", "https", "443/udp"]), expected);
}

#[test]
fn the_port_of_a_rule_that_claims_nothing_else_takes_the_rule_along() {
    let expected = FILE.replace(
        "[[rule]]    # unnamed\nport = \"22/tcp\"\n# Goes with the rule above.\n\n",
        "",
    );
    assert_eq!(cut(&["22/tcp"]), expected);
}

#[test]
fn the_last_rule_goes_with_the_empty_lines_above_it() {
    let expected = FILE.split("\n# Goes with the rule below.").next().unwrap();
    assert_eq!(cut(&["many"]), expected);
    let all = cut(&["https", "22/tcp", "many"]);
    assert_eq!(
        all,
        "# Rules of a small host.\n[default]\nmalformed = \"drop\"   # keep\n\n# -- the rest --\n"
    );
}

#[test]
fn a_list_of_ports_shrinks_in_its_layout() {
    let rows: [(&[&str], &str, &str); 6] = [
        (&["443/tcp"], "[\"443/tcp\", \"443/udp\"]", "[\"443/udp\"]"),
        (&["443/udp"], "[\"443/tcp\", \"443/udp\"]", "[\"443/tcp\"]"),
        (&["8000-8100/tcp"], "    \"8000-8100/tcp\",   # first\n", ""),
        (&["9000/tcp"], "    \"9000/tcp\", # second\n", ""),
        (
            &["9002/tcp"],
            "\"9001/tcp\", \"9002/tcp\", ",
            "\"9001/tcp\", ",
        ),
        (
            &["9001/tcp", "9003/tcp"],
            "\"9001/tcp\", \"9002/tcp\", \"9003/tcp\"",
            "\"9002/tcp\", ",
        ),
    ];
    for (selectors, before, after) in rows {
        assert_eq!(cut(selectors), FILE.replace(before, after), "{selectors:?}");
    }
}

#[test]
fn a_list_that_cannot_keep_its_layout_keeps_its_ports() {
    let text = "[[rule]]\nport = [\"1/tcp\"\n  , \"2/tcp\"\n  , \"3/tcp\"]\n";
    let edited = remove("f.toml", "portdemux", text, &["1/tcp"]).unwrap();
    assert_eq!(edited, "[[rule]]\nport = [\"2/tcp\", \"3/tcp\"]\n");
}

#[test]
fn what_matches_nothing_changes_nothing_and_says_so() {
    let rows: [(&[&str], &str); 5] = [
        (
            &["80/tcp"],
            "error: no rule claims 80/tcp\n help: portdemux rules lists what is claimed",
        ),
        (
            &["http"],
            "error: no rule is called `http`\n help: portdemux rules lists them",
        ),
        (
            &["8050/tcp"],
            "error: 8050/tcp is only a part of a range\n  many  8000-8100/tcp  f.toml:18",
        ),
        (
            &["8000-8001/tcp"],
            "help: remove 8000-8100/tcp, split it in the file, or claim 8000-",
        ),
        (&["https", "a", "b"], "2 errors; nothing was changed"),
    ];
    for (selectors, message) in rows {
        let told = refusal(selectors);
        assert!(told.contains(message), "{told}");
        assert!(told.contains("nothing was changed"), "{told}");
    }
}

#[test]
fn a_port_that_several_rules_claim_is_asked_about() {
    let text = "[[rule]]\nport = \"443/tcp\"\n[[rule]]\nport = \"443/tcp\"\naddress = \
                \"203.0.113.10\"\n";
    let told = remove("f.toml", "portdemux", text, &["443/tcp"])
        .unwrap_err()
        .to_string();
    assert!(
        told.starts_with("error: several rules claim 443/tcp\n"),
        "{told}"
    );
    assert!(
        told.contains("443/tcp@203.0.113.10  203.0.113.10  f.toml:3"),
        "{told}"
    );
    let edited = remove("f.toml", "portdemux", text, &["443/tcp@203.0.113.10"]).unwrap();
    assert_eq!(edited, "[[rule]]\nport = \"443/tcp\"\n");
}

#[test]
fn a_list_of_rules_is_left_to_its_author() {
    let text = "rule = [{ port = \"1/tcp\" }]\n";
    let told = remove("f.toml", "portdemux", text, &["1/tcp"])
        .unwrap_err()
        .to_string();
    assert!(told.contains("cannot be edited"), "{told}");
}

#[test]
fn an_appended_rule_has_only_the_keys_that_are_set() {
    let ports = vec!["443/tcp".parse().unwrap(), "443/udp".parse().unwrap()];
    let https = NewRule {
        name: Some("https".into()),
        ports,
        ..NewRule::default()
    };
    let written = "[[rule]]\nname = \"https\"\nport = [\"443/tcp\", \"443/udp\"]\n";
    assert_eq!(append("", &https), written);
    assert_eq!(append("# x\n\n", &https), format!("# x\n\n{written}"));
    assert_eq!(append("# x", &https), format!("# x\n\n{written}"));
    assert_eq!(
        append("# x\r\n", &https),
        format!("# x\r\n\r\n{written}")
            .replace('\n', "\r\n")
            .replace("\r\r", "\r")
    );
    let drop = NewRule {
        ports: vec!["23/tcp".parse().unwrap()],
        addresses: vec!["2001:db8::1".parse().unwrap()],
        to: Some(Destination::Drop),
        ..NewRule::default()
    };
    assert_eq!(
        append("", &drop),
        "[[rule]]\nport    = \"23/tcp\"\naddress = \"2001:db8::1\"\nto      = \"drop\"\n"
    );
}

#[test]
fn an_appended_rule_says_what_it_asks_and_reads_as_it_was_meant() {
    let rule = NewRule {
        ports: vec!["22/tcp".parse().unwrap()],
        to: Some(Destination::Local),
        terms: Terms {
            connections: Connections::Established,
            rate: Some("1000/s".parse().unwrap()),
            burst: Some(50),
            per: Some(Per::Source),
            new_rate: Some("10/m".parse().unwrap()),
            new_burst: Some(3),
        },
        shadow: true,
        ..NewRule::default()
    };
    let text = append("", &rule);
    assert_eq!(
        text,
        "[[rule]]\nport        = \"22/tcp\"\nto          = \"local\"\nconnections = \
         \"established\"\nrate        = \"1000/s\"\nburst       = 50\nnew_rate    = \"10/m\"\nnew_burst   \
         = 3\nper         = \"source\"\nshadow      = true\n"
    );
    let ruleset = parse("f.toml", &text).unwrap();
    assert_eq!(ruleset.rules()[0].terms, rule.terms);
    let peers = NewRule {
        ports: vec!["443/tcp".parse().unwrap()],
        role: Role::Source,
        ..NewRule::default()
    };
    assert_eq!(
        append("", &peers),
        "[[rule]]\nport = \"443/tcp\"\nrole = \"source\"\n"
    );
}

#[test]
fn a_shadow_becomes_real_and_the_rest_of_the_text_stays() {
    let text = "# Who\n[[rule]]\nname = \"ssh\"\nport = \"22/tcp\"\n  shadow = true # try it\nfrom = \
                \"::1\"\n\n[[rule]]\nport = \"23/tcp\"\nshadow = true";
    let real = promote("f.toml", "portdemux", text, &["ssh", "ssh"]).unwrap();
    assert_eq!(real, text.replace("  shadow = true # try it\n", ""));
    let real = promote("f.toml", "portdemux", text, &["23/tcp", "ssh"]).unwrap();
    assert_eq!(
        real,
        "# Who\n[[rule]]\nname = \"ssh\"\nport = \"22/tcp\"\nfrom = \"::1\"\n\n[[rule]]\nport = \
         \"23/tcp\"\n"
    );
    let ruleset = parse("f.toml", &real).unwrap();
    assert!(ruleset.rules().iter().all(|rule| !rule.shadow));
    for (text, name, message, help) in [
        (text, "shs", "no shadow is called `shs`", "did you mean ssh"),
        (
            text,
            "web",
            "no shadow is called `web`",
            "the shadows are ssh, 23/tcp",
        ),
        (
            &real,
            "ssh",
            "`ssh` is no shadow",
            "it does already what it says",
        ),
        (
            &real,
            "web",
            "no shadow is called `web`",
            "portdemux add --shadow adds one",
        ),
        (
            "rule = [{ name = \"a\", port = \"1/tcp\", shadow = true }]",
            "a",
            "cannot be edited",
            "write each as [[rule]]",
        ),
    ] {
        let told = promote("f.toml", "portdemux", text, &[name])
            .unwrap_err()
            .to_string();
        assert!(told.contains(message) && told.contains(help), "{told}");
    }
}

proptest! {
    #[test]
    fn what_was_appended_can_be_removed_and_leaves_the_text_as_it_was(name in "[!-~äé名]{1,21}", port: u16) {
        let range = PortRange::single(portdemux_common::wire::Transport::Sctp, port);
        let rule = NewRule { name: Some(name.clone()), ports: vec![range], ..NewRule::default() };
        let with = append(FILE, &rule);
        let ruleset = parse("f.toml", &with).unwrap();
        prop_assert_eq!(&ruleset.rules().last().unwrap().name, &name);
        prop_assert_eq!(remove("f.toml", "portdemux", &with, &[range.to_string()]).unwrap(), FILE);
    }

    #[test]
    fn any_removal_leaves_the_other_claims(indices in proptest::collection::btree_set(0..8_usize, 1..8)) {
        let before = parse("f.toml", FILE).unwrap();
        let ports: Vec<_> = before.rules().iter().flat_map(|rule| rule.ports.clone()).collect();
        let selectors: Vec<_> = indices.iter().map(|&index| ports[index].to_string()).collect();
        let edited = remove("f.toml", "portdemux", FILE, &selectors).unwrap();
        let after = parse("f.toml", &edited).unwrap();
        let left: Vec<_> = after.rules().iter().flat_map(|rule| rule.ports.clone()).collect();
        let expected: Vec<_> =
            (0..ports.len()).filter(|index| !indices.contains(index)).map(|index| ports[index]).collect();
        prop_assert_eq!(left, expected);
    }
}
