//! Rules files: what they mean and how their mistakes read.

use proptest::prelude::*;

use super::{parse, *};
use crate::rules::{Destination, Malformed, Source};

fn refusal(text: &str) -> String {
    parse("f.toml", text).expect_err(text).to_string()
}

#[test]
fn every_key_is_read() {
    let ruleset = parse(
        "f.toml",
        r#"# A comment.
[default]
inbound   = "pass"
malformed = 'pass'

[[rule]]
name = "https"
port = ["443/tcp", "443/udp"] # both
address = ["203.0.113.10", "2001:db8::10"]
to = "local"

[[rule]]
port = "8000-8999/tcp"
address = "203.0.113.10"
to = "drop"
"#,
    )
    .unwrap();
    assert_eq!(ruleset.defaults().malformed, Malformed::Pass);
    let [https, range] = ruleset.rules() else {
        panic!("two rules")
    };
    assert_eq!(
        (&*https.name, https.line, https.to),
        ("https", 6, Destination::Local)
    );
    assert_eq!(https.ports_text(), "443/tcp 443/udp");
    assert_eq!(https.addresses_text(), "203.0.113.10 2001:db8::10");
    assert_eq!((range.line, range.to), (12, Destination::Drop));
    assert_eq!(range.name, "8000-8999/tcp@203.0.113.10");
}

#[test]
fn sets_and_sources_are_read_and_mean_their_prefixes() {
    let table =
        "[sets]\noffice = [\"192.0.2.0/24\", \"2001:db8:1::/48\"]\n\"the-boss\" = \"192.0.2.7\"\n";
    let inline =
        "sets = { office = [\"192.0.2.0/24\", \"2001:db8:1::/48\"], the-boss = \"192.0.2.7\" }\n";
    let dotted = "sets.office = [\"192.0.2.0/24\", \"2001:db8:1::/48\"]\nsets.the-boss = [\"192.0.2.7/32\"]\n";
    let rule = "[[rule]]\nport = \"22/tcp\"\nfrom = [\"@office\", \"::1\", \"@office\"]\ndeny = \"@the-boss\"\n";
    for sets in [table, inline, dotted] {
        // Where a table stands does not matter; what stands before the first header is no table.
        let mut texts = vec![format!("{sets}{rule}")];
        if sets == table {
            texts.push(format!("{rule}{sets}"));
        }
        for text in texts {
            let ruleset = parse("f.toml", &text).unwrap();
            let [ssh] = ruleset.rules() else {
                panic!("one rule")
            };
            let texts =
                |sources: &[Source]| -> Vec<_> { sources.iter().map(Source::to_string).collect() };
            assert_eq!(texts(&ssh.from), ["@office", "::1"]);
            assert_eq!(texts(&ssh.deny), ["@the-boss"]);
            let sets: Vec<_> = ruleset
                .sets()
                .iter()
                .map(|set| (&*set.name, set.prefixes.len()))
                .collect();
            assert_eq!(sets, [("office", 2), ("the-boss", 1)]);
            let policy = ruleset.lists().policy(0);
            assert_eq!((policy.from, policy.deny), (1, 2));
            // Nobody, the office, the boss in it, the office again, nobody.
            assert_eq!(ruleset.lists().v4().len(), 5);
            // Nobody, ::1, nobody, the office, nobody.
            assert_eq!(ruleset.lists().v6().len(), 5);
        }
    }
}

#[test]
fn more_lists_and_prefixes_than_there_is_room_for_are_refused() {
    use std::fmt::Write as _;
    let mut lists = String::new();
    for port in 0..=1024 {
        let _ = writeln!(
            lists,
            "[[rule]]\nport = \"{port}/tcp\"\nfrom = \"10.0.{}.{}\"",
            port >> 8,
            port & 255
        );
    }
    assert!(refusal(&lists).contains("1025 different lists of sources, 1024 at most"));
    let prefixes: Vec<_> = (0..=65_536_u32)
        .map(|number| format!("\"{}\"", std::net::Ipv4Addr::from(0x0a00_0000 + 2 * number)))
        .collect();
    let text = format!("[sets]\nmany = [{}]\n", prefixes.join(", "));
    assert!(
        parse("f.toml", &text).is_ok(),
        "a set that no rule uses takes no room"
    );
    let text = format!("{text}[[rule]]\nport = \"1/tcp\"\ndeny = \"@many\"\n");
    assert!(
        refusal(&text).contains("65537 prefixes of IPv4 in the lists of all rules, 65536 at most")
    );
}

#[test]
fn an_empty_file_is_a_ruleset_without_rules_that_drops_what_is_malformed() {
    for text in ["", "\n", "# nothing\n", "\u{feff}", "[default]"] {
        let ruleset = parse("f.toml", text).unwrap();
        assert_eq!(ruleset.defaults().malformed, Malformed::Drop);
        assert!(ruleset.rules().is_empty());
    }
}

#[test]
fn every_way_to_write_the_same_in_toml_is_read_the_same() {
    let usual = "[default]\nmalformed = \"pass\"\n[[rule]]\nname = \"a\"\nport = \"1/tcp\"\n\
                 [[rule]]\nport = [\"2/tcp\", \"3/tcp\"]\nto = \"drop\"\n";
    let others = [
        "default.malformed = \"pass\"\nrule = [{ name = \"a\", port = \"1/tcp\" }, \
         { port = [\"2/tcp\", \"3/tcp\"], to = \"drop\" }]\n",
        "default = { malformed = \"pass\" }\nrule = [\n  { name = \"a\", port = \"1/tcp\" },\n  \
         { port = [\n\"2/tcp\",\n\"3/tcp\",\n], to = \"drop\" }, # done\n]\n",
        "[[ rule ]]\r\n\"name\" = 'a'\r\nport='1/tcp'\r\n\r\n[ \"default\" ]\r\nmalformed = \
         \"\"\"\r\npass\"\"\"\r\n[[rule]]\r\n'port' = [\r\n  # a comment\r\n  \"\\u0032/tcp\", \
         \"3/tcp\"]\r\nto = \"drop\"",
    ];
    let usual = parse("f.toml", usual).unwrap();
    for other in others {
        let other = parse("f.toml", other).unwrap();
        assert_eq!(other.defaults(), usual.defaults());
        for (left, right) in usual.rules().iter().zip(other.rules()) {
            assert!(left.says_the_same(right) && left.name == right.name);
        }
        assert_eq!(usual.rules().len(), other.rules().len());
    }
}

#[test]
fn a_mistake_shows_its_line_and_the_way_out() {
    assert_eq!(
        refusal("[default]\n\n[[rule]]\nprot = \"443/tcp\" # oops\n"),
        "error: unknown key `prot` in a rule\n  prot = \"443/tcp\" # oops  f.toml:4\n \
         help: did you mean `port`; nothing was changed"
    );
}

/// Texts, the line that is told and part of what is told.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "[default]\ninbound = \"drop\"",
        ":2",
        "no flow state, so under `inbound = \"drop\"`",
    ),
    (
        "[default]\ninbound = \"reject\"",
        ":2",
        "could not let replies through",
    ),
    (
        "[default]\ninbound = \"allow\"",
        ":2",
        "`inbound` cannot be `allow`",
    ),
    (
        "[default]\nmalformed = true",
        ":2",
        "`malformed` is true or false, not text",
    ),
    (
        "[default]\nfragments = \"track\"",
        ":2",
        "unknown key `fragments` in [default]",
    ),
    (
        "[default]\nmalfromed = \"drop\"",
        ":2",
        "did you mean `malformed`",
    ),
    ("[default]\nmalformed.x = \"drop\"", ":2", "unknown key `x`"),
    (
        "[default]\nmalformed=\"drop\"\nmalformed=\"drop\"",
        ":3",
        "`malformed` is given twice",
    ),
    ("[default]\n[default]", ":2", "`default` is given twice"),
    (
        "default.inbound = \"pass\"\n[default]",
        ":2",
        "given in two ways",
    ),
    (
        "default = {}\ndefault.inbound = \"pass\"",
        ":2",
        "given in two ways",
    ),
    ("default = 1", ":1", "`default` is a number, not a table"),
    ("[[default]]", ":1", "write [default]"),
    ("[default.icmp]", ":1", "unknown key `icmp` in [default]"),
    ("[rule]", ":1", "write [[rule]]"),
    ("rule = 1", ":1", "write [[rule]]"),
    ("rule = [1]", ":1", "a rule is a table, not a number"),
    (
        "rule = []\n\n[[rule]]\nport = \"1/tcp\"",
        ":3",
        "rules are given both",
    ),
    ("[[rules]]\nport = \"1/tcp\"", ":1", "did you mean [[rule]]"),
    ("[set]\noffice = []", ":1", "did you mean [sets]"),
    ("[[sets]]\noffice = []", ":1", "write [sets]"),
    ("sets = 1", ":1", "`sets` is a table of sets"),
    (
        "[sets.office]\nv4 = []",
        ":1",
        "a set is a list of prefixes",
    ),
    (
        "[sets]\na = []\n[sets]\nb = []",
        ":3",
        "`sets` is given twice",
    ),
    (
        "[sets]\na = []\na = \"::1\"",
        ":3",
        "two sets are called `a`",
    ),
    (
        "sets.a = []\n[sets]\nb = []",
        ":2",
        "`sets` is given in two ways",
    ),
    ("[sets]\nv1.2 = []", ":2", "put the name into quotes"),
    ("[sets]\n\"a b\" = []", ":2", "the name `a b` holds ' '"),
    (
        "[sets]\noffice = 192",
        ":2",
        "a set takes text, not a number",
    ),
    (
        "[sets]\noffice = [\"192.0.2.1/24\"]",
        ":2",
        "write 192.0.2.0/24, or 192.0.2.1 for the one address",
    ),
    (
        "[sets]\na = \"@b\"\nb = []",
        ":2",
        "a set cannot hold the set `@b`",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nfrom = \"@office\"",
        ":1",
        "define it: [sets], then office = [",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\ndeny = \"@ofice\"\n[sets]\noffice = []",
        ":1",
        "did you mean @office",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nfrom = [1]",
        ":3",
        "as in from = [\"@office\"",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nfrom = \"lan\"",
        ":3",
        "`lan` is not a prefix",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\ndeny = []",
        ":3",
        "leave `deny` out",
    ),
    (
        "port = \"443/tcp\"",
        ":1",
        "`port` stands outside of any rule",
    ),
    (
        "inbound = \"pass\"",
        ":1",
        "`inbound` stands outside of [default]",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nrate = []",
        ":3",
        "the keys name, port, address, from, deny, to",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\n[rule.to]",
        ":3",
        "unknown key `to` in a rule",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nport = \"2/tcp\"",
        ":3",
        "`port` is given twice in one rule",
    ),
    ("[[rule]]\nname = \"a\"", ":1", "a rule without `port`"),
    ("[[rule]]\nport = []", ":2", "`port` is an empty list"),
    (
        "[[rule]]\nport = \"1/tcp\"\naddress = []",
        ":3",
        "leave `address` out",
    ),
    (
        "[[rule]]\nport = 443",
        ":2",
        "write 443/tcp, 443/udp or 443/sctp, in quotes",
    ),
    (
        "[[rule]]\nport = [\n\"1/tcp\",\n443]",
        ":4",
        "`port` takes text, not a number",
    ),
    (
        "[[rule]]\nport = [[\"1/tcp\"]]",
        ":2",
        "`port` takes text, not a list",
    ),
    (
        "[[rule]]\nport = [\n\"1/tcp\",\n\"90-80/tcp\"]",
        ":4",
        "write the lower port first: 80-90",
    ),
    (
        "[[rule]]\nport = \"70000/tcp\"",
        ":2",
        "port 70000 is out of range",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nport.x = 1",
        ":3",
        "unknown key `x` in a rule",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\naddress = \"host\"",
        ":3",
        "`host` is not an IP address",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\naddress = \"10.0.0.0/8\"",
        ":3",
        "is more than one address",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\naddress = \"::ffff:192.0.2.1\"",
        ":3",
        "as IPv4: 192.0.2.1",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nname = \"a b\"",
        ":3",
        "the name `a b` holds ' '",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nname = \"\"",
        ":3",
        "an empty name",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nname = 7",
        ":3",
        "`name` is a number, not text",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"reject\"",
        ":3",
        "unknown destination `reject`",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = [\"drop\"]",
        ":3",
        "`to` is a list, not text",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\n\n[[rule]]\nport = \"1/tcp\"",
        ":4",
        "claim the same entry",
    ),
    ("[[rule]]\nport = \"1/tcp", ":2", "invalid basic string"),
    ("[[rule]\nport = \"1/tcp\"", ":1", "unclosed array table"),
    ("[[rule]]\nport = \"1/tcp\" \"2/tcp\"", ":2", "unexpected"),
    ("[[rule]]\nport =\n", ":2", "missing value"),
    (
        "[[rule]]\nport = 1/tcp\n",
        ":2",
        "text must stand in quotes",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nname = \"\\q\"",
        ":3",
        "missing escaped value",
    ),
];

#[test]
fn every_mistake_is_told_with_its_line() {
    for (text, line, message) in MISTAKES {
        let told = refusal(text);
        assert!(told.contains(&format!("f.toml{line}")), "{text}\n{told}");
        assert!(told.contains(message), "{text}\n{told}");
        assert!(told.contains("nothing was changed"), "{told}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_in_the_order_of_their_lines() {
    let text = "[default]\ninbound = \"drop\"\n[[rule]]\nport = \"443\"\n[[rule]]\nport = \
                \"1/tcp\"\nname = \"a\"\n[[rule]]\nname = \"a\"\nport = \"1/tcp\"\n[[rule]]\nport = \
                = \n[[rule]]\nport = \"2/tcp\"\nfoo = 1\n";
    let error = parse("f.toml", text).unwrap_err();
    let lines: Vec<_> = error.diagnostics.iter().map(Diagnostic::line).collect();
    assert_eq!(lines, [2, 4, 5, 5, 12, 15], "{error}");
}

#[test]
fn what_is_not_toml_in_one_rule_makes_no_second_mistake_of_it() {
    let told = refusal("[[rule]]\nport = \"443/tcp\n\n[[rule]]\nport = \"1/tcp\"\n");
    assert_eq!(told.matches("error:").count(), 1, "{told}");
}

/// Texts made of what rules files are made of, more often wrong than right.
fn texts() -> impl Strategy<Value = String> {
    let words = [
        "[[rule]]",
        "[default]",
        "[rule]",
        "\n",
        "\n",
        "\n",
        "port",
        "name",
        "to",
        "address",
        "=",
        "=",
        ".",
        ",",
        "[",
        "]",
        "{",
        "}",
        "\"1/tcp\"",
        "'2-9/udp'",
        "\"local\"",
        "\"192.0.2.1\"",
        "\"\"\"",
        "'''",
        "# x",
        "1",
        "true",
        "inbound",
        "malformed",
        "\"pass\"",
        "\\",
        "\r\n",
        " ",
        "rule",
        "default",
        "é",
        "\u{0}",
    ];
    proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..40)
        .prop_map(|words| words.join(" ").replace(" \n ", "\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_is_read_that_is_not_toml_and_every_refusal_has_a_line_of_the_file(text in texts()) {
        match parse("f.toml", &text) {
            Ok(_) => prop_assert!(text.parse::<toml::Table>().is_ok()),
            Err(error) => {
                let last = text.matches('\n').count() + 1;
                let lines = error.diagnostics.iter().map(Diagnostic::line);
                prop_assert!(lines.into_iter().all(|line| (1..=last).contains(&line)));
                prop_assert!(error.to_string().starts_with("error: "));
            }
        }
    }

    #[test]
    fn pieces_of_a_long_file_are_read_as_the_whole(sizes in proptest::collection::vec(1..40_u16, 1..60)) {
        // Once as tables, once as a list whose lines begin with brackets.
        let (mut text, mut list) = (String::new(), String::from("rule = [\n"));
        let mut port = 0;
        for &size in &sizes {
            let ports: Vec<_> = (1..=size).map(|step| port + 2 * step).collect();
            port += 2 * size;
            let ports: String = ports.iter().map(|port| ["\"", &port.to_string(), "/tcp\"\n,\n"].concat()).collect();
            text.extend(["[[rule]]\nport = [\n", &ports, "]\n"]);
            list.extend(["{\nport = [\n", &ports, "] },\n"]);
        }
        let list = parse("f.toml", &(list + "]")).unwrap();
        let ruleset = parse("f.toml", &text).unwrap();
        let counts: Vec<_> = ruleset.rules().iter().map(|rule| rule.ports.len()).collect();
        prop_assert_eq!(counts, sizes.iter().map(|&size| usize::from(size)).collect::<Vec<_>>());
        prop_assert!(list.rules().iter().zip(ruleset.rules()).all(|(l, r)| l.ports == r.ports));
        let mut port = 0;
        for range in ruleset.rules().iter().flat_map(|rule| &rule.ports) {
            port += 2;
            prop_assert_eq!(range.first, port);
        }
    }
}
