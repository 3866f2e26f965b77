//! How mistakes in rules files read.

use super::{super::parse, refusal};
use crate::rules::Diagnostic;

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
        "[default]\nfragment = \"track\"",
        ":2",
        "did you mean `fragments`",
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
    ("[default.icmp]", ":1", "write icmp = … under [default]"),
    ("[default.imcp]", ":1", "unknown key `imcp` in [default]"),
    (
        "[atach]\ninterface = \"eth0\"",
        ":1",
        "did you mean [attach]",
    ),
    (
        "[attach]\ninterface = []",
        ":2",
        "leave `interface` out to name interfaces on the command line",
    ),
    (
        "[attach]\ninterface = [\n\"eth0\",\n\"eth0\"]",
        ":4",
        "`eth0` is named twice",
    ),
    (
        "[attach]\ninterface = 1",
        ":2",
        "`interface` takes text, not a number",
    ),
    (
        "[attach]\ninterface = \"\"",
        ":2",
        "an interface without a name",
    ),
    (
        "[attach]\ninterface = \"a/b\"",
        ":2",
        "no interface can be called `a/b`",
    ),
    (
        "[attach]\ninterface = \"sixteen-bytes-16\"",
        ":2",
        "names of interfaces have at most 15 bytes",
    ),
    (
        "[attach]\nmode = \"driver\"",
        ":2",
        "`mode` cannot be `driver`",
    ),
    (
        "[attach]\ninterfaces = \"eth0\"",
        ":2",
        "did you mean `interface`",
    ),
    ("interface = \"eth0\"", ":1", "write [attach] above it"),
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
        "a set holds prefixes and addresses",
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
        "a set is written @lan, a prefix as in 192.0.2.0/24",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nfrom = \"any\"",
        ":3",
        "leave `from` out for anyone",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nfrom = \"@\"",
        ":3",
        "`@` names no set",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nform = \"@lan\"",
        ":3",
        "did you mean `from`",
    ),
    (
        "[sets]\na = \"192.0.2.0/255.255.255.0\"",
        ":2",
        "write 192.0.2.0/24",
    ),
    (
        "[sets]\na = \"host\"",
        ":2",
        "is not a prefix or an address",
    ),
    (
        "[sets]\na = []\noffice = []\n[[rule]]\nport = \"1/tcp\"\nfrom = \"@lan\"",
        ":4",
        "which has a, office",
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
        "[[rule]]\nport = \"1/tcp\"\ncolour = []",
        ":3",
        "the keys name, port, address, from, deny, to, fallback, mac, queue, connections, role, rate, burst, \
         per, new_rate, new_burst, shadow",
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
        "[[rule]]\nport = \"1/tcp\"\nto = \"refuse\"",
        ":3",
        "unknown destination `refuse`",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"socket:8080\"",
        ":3",
        "names a port without an address",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"cpu:3-1\"",
        ":3",
        "ends before it begins",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"local\"\nfallback = \"drop\"",
        ":1",
        "`fallback` with `to = \"local\"`",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"interface:veth0\"\nfallback = \"interface:veth1\"",
        ":4",
        "`fallback` cannot be `interface:veth1`",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"interface:veth0\"\nmac = \"02:00\"",
        ":4",
        "`02:00` is not a MAC address",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"xsk:echo\"\nmac = \"02:00:5e:10:00:01\"",
        ":1",
        "`mac` with `to = \"xsk:echo\"`",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"cpu:0\"\nqueue = 0",
        ":4",
        "a queue cannot have 0 frames",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"cpu:0\"\nqueue = \"many\"",
        ":4",
        "`queue` is text, not a number",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"cpu:0-2\"\n[[rule]]\nport = \"2/tcp\"\nto = \
         \"cpu:2\"\nqueue = 64",
        ":1",
        "CPU 2 has two queues",
    ),
    (
        "[[rule]]\nport = \"1/tcp\"\nto = \"socket:web\"\nconnections = \"established\"",
        ":1",
        "lets no new connection in",
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
    let text = "[default]\ninbound = \"dorp\"\n[[rule]]\nport = \"443\"\n[[rule]]\nport = \
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

#[test]
fn a_set_with_a_mistake_makes_no_second_mistake_of_the_rules_that_name_it() {
    let rule = "[[rule]]\nport = \"1/tcp\"\nfrom = \"@lan\"\n";
    for sets in [
        "[sets]\nlan = [\"192.0.2.1/24\", \"::/0\"]\n",
        "[sets]\nlan = \"::/0\n",
        "[sets]\nother = \nlan = \"::/0\"\n",
        "[sets]\nlan = 1\n",
        "[sets]\nlan = {}\n",
        "[sets]\nlan.v4 = []\n",
        "[sets.lan]\n",
        "[[sets]]\nlan = []\n",
        "[set]\nlan = []\n",
        "sets = [\"lan\"]\n",
    ] {
        let told = refusal(&[sets, rule].concat());
        assert_eq!(told.matches("error:").count(), 1, "{sets}{told}");
    }
    // The list goes on over the rule.
    let told = refusal(&["[sets]\nlan = [\"::/0\n", rule].concat());
    assert!(
        !told.contains("no set") && !told.contains("prefix"),
        "{told}"
    );
}

#[test]
fn an_unknown_set_shows_the_rule_that_names_it() {
    let text = "[sets]\noffice = []\n[[rule]]\nname = \"web\"\nport = \"80/tcp\"\nfrom = [\n  \
                \"@ofice\",\n]\n";
    assert_eq!(
        refusal(text),
        "error: no set is called `ofice`\n  web  from @ofice  f.toml:3\n help: did you mean \
         @office; nothing was changed"
    );
}

#[test]
fn every_mistake_of_a_long_line_is_told() {
    let prefixes: Vec<_> = (0..1 << 16)
        .map(|net| format!("\"10.{}.{}.0/33\",", net >> 8, net & 255))
        .collect();
    let text = format!("[sets]\nall = [{}]\n", prefixes.concat());
    let error = parse("f.toml", &text).unwrap_err();
    assert_eq!(error.diagnostics.len(), prefixes.len());
    assert!(error.diagnostics.iter().all(|mistake| mistake.line() == 2));
}
