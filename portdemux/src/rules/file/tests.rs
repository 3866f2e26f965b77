//! Rules files: what they mean and how their mistakes read.

mod mistakes;
mod terms;

use proptest::prelude::*;

use super::{parse, *};
use crate::rules::{Destination, Malformed, Source, lists::Atom};

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
        (&*https.name, https.line, https.to.clone()),
        ("https", 6, Destination::Local)
    );
    assert_eq!(https.ports_text(), "443/tcp 443/udp");
    assert_eq!(https.addresses_text(), "203.0.113.10 2001:db8::10");
    assert_eq!((range.line, range.to.clone()), (12, Destination::Drop));
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
            assert_eq!((policy.from, policy.deny), (4, 3));
            let own = Atom::Own(vec!["::1/128".parse().unwrap()]);
            let atoms = [Atom::Set(0), own, Atom::Set(1)];
            assert_eq!(ruleset.lists().atoms(), atoms);
            assert_eq!(ruleset.lists().unions(), [[0, 1]]);
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
    let prefixes = "\"10.0.0.1\",".repeat(4_194_305);
    let text =
        format!("[sets]\nmany = [{prefixes}]\n[[rule]]\nport = \"1/tcp\"\ndeny = \"@many\"\n");
    assert!(refusal(&text).contains("4194305 prefixes in the lists of all rules, 4194304 at most"));
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
        "[sets]",
        "sets",
        "lan",
        "from",
        "deny",
        "\"@lan\"",
        "'192.0.2.0/24'",
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
