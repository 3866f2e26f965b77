//! Plans: what they say of two rulesets.

use serde_json::json;

use super::Plan;
use crate::rules::file::parse;

/// In March 2030.
const NOW: u64 = 1_900_000_000_000;

fn between(old: &str, new: &str) -> Plan {
    Plan::between(parse("old", old).unwrap(), parse("new", new).unwrap(), NOW)
}

const OLD: &str = "[[rule]]\nname = \"telnet\"\nport = \"23/tcp\"\n[[rule]]\nname = \
                   \"https\"\nport = \"443/tcp\"\n[[rule]]\nname = \"same\"\nport = [\"1/tcp\", \
                   \"2/tcp\"]\n";
const NEW: &str = "[default]\nmalformed = \"pass\"\n[[rule]]\nname = \"same\"\nport = \
                   [\"2/tcp\", \"1/tcp\"]\nto = \"local\"\n[[rule]]\nname = \"https\"\nport = \
                   [\"443/tcp\", \"443/udp\"]\nto = \"drop\"\n[[rule]]\nname = \"dns\"\nport = \
                   [\"53/udp\", \"53/tcp\"]\n[[rule]]\nport = \"22/tcp\"\naddress = \
                   \"203.0.113.10\"\n";

#[test]
fn a_member_whose_time_is_past_is_in_no_plan() {
    let set = |members: &str| {
        format!("sets.a = [{members}]\n[[rule]]\nport = \"1/tcp\"\nfrom = \"@a\"\n")
    };
    let ended = "{ prefix = \"192.0.2.1\", until = \"2030-01-31T12:00:00Z\" }";
    let lasting = "{ prefix = \"192.0.2.2\", until = \"2031-01-31T12:00:00Z\" }";
    let line = |old: &str, new: &str| {
        let text = between(old, new).to_string();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let both = format!("{ended}, {lasting}");
    assert_eq!(line("", &set(ended)), "+ @a     0 prefixes");
    assert_eq!(line("", &set(&both)), "+ @a     1 prefix");
    assert_eq!(
        line(&set(ended), &set(&both)),
        "~ @a  0 prefixes → 1 prefix"
    );
    assert_eq!(line(&set(&both), &set(lasting)), "= 1 unchanged");
}

#[test]
fn a_plan_has_a_line_for_each_rule_that_differs() {
    assert_eq!(
        between(OLD, NEW).to_string(),
        "~ [default]            malformed drop → pass\n\
         + dns                  53/udp 53/tcp  any address → local\n\
         + 22/tcp@203.0.113.10  22/tcp         203.0.113.10 → local\n\
         ~ https                443/tcp → 443/tcp 443/udp, local → drop\n\
         - telnet               23/tcp\n\
         = 1 unchanged"
    );
}

#[test]
fn order_and_place_are_no_difference() {
    let reversed = "[[rule]]\nname = \"b\"\nport = \"2/tcp\"\n\n[[rule]]\nname = \"a\"\nport = \
                    \"1/tcp\"\n";
    let plan = between(
        "[[rule]]\nname = \"a\"\nport = \"1/tcp\"\n[[rule]]\nname = \"b\"\nport = \"2/tcp\"\n",
        reversed,
    );
    assert!(plan.is_empty());
    assert_eq!(plan.to_string(), "= 2 unchanged");
}

#[test]
fn rules_are_found_wherever_they_went() {
    let text = |ports: &[u16]| -> String {
        let rules = ports.iter().map(|port| {
            let to = if port % 2 == 0 { "drop" } else { "local" };
            format!(
                "[[rule]]\nname = \"r{}\"\nport = \"{port}/tcp\"\nto = \"{to}\"\n",
                port / 2
            )
        });
        rules.collect()
    };
    let old = text(&[10, 20, 30, 40, 50]);
    for (new, lines) in [
        (&[20, 30, 40, 50][..], "- r5  10/tcp\n= 4 unchanged"),
        (&[10, 30, 50], "- r10  20/tcp\n- r20  40/tcp\n= 3 unchanged"),
        (&[50, 40, 30, 20, 10], "= 5 unchanged"),
        (&[40, 50, 10, 20, 30], "= 5 unchanged"),
        (
            &[10, 60, 20, 31, 40, 70, 50],
            "+ r30  60/tcp  any address → drop\n+ r35  70/tcp  any address → drop\n\
             ~ r15  30/tcp → 31/tcp, drop → local\n= 4 unchanged",
        ),
    ] {
        assert_eq!(between(&old, &text(new)).to_string(), lines, "{new:?}");
    }
}

#[test]
fn a_long_plan_keeps_its_beginning_and_its_end() {
    let many: Vec<_> = (1..=300)
        .map(|port| format!("[[rule]]\nport = \"{port}/tcp\"\n"))
        .collect();
    let many = many.concat();
    let text = between(OLD, &many).shortened(6, usize::MAX).to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 8, "{text}");
    assert_eq!(lines[0], "+ 1/tcp   1/tcp  any address → local");
    assert_eq!(lines[3], "… 297 more");
    assert_eq!(lines[5], "- https   443/tcp");
    assert_eq!(lines[7], "= 0 unchanged");
}

#[test]
fn a_plan_serializes_with_plain_values() {
    let https =
        |ports: &[&str], to| json!({"name": "https", "ports": ports, "addresses": [], "to": to});
    assert_eq!(
        serde_json::to_value(between(OLD, NEW)).unwrap(),
        json!({
            "added": [
                {"name": "dns", "ports": ["53/udp", "53/tcp"], "addresses": [], "to": "local"},
                {
                    "name": "22/tcp@203.0.113.10",
                    "ports": ["22/tcp"],
                    "addresses": ["203.0.113.10"],
                    "to": "local",
                },
            ],
            "changed": [{
                "name": "https",
                "old": https(&["443/tcp"], "local"),
                "new": https(&["443/tcp", "443/udp"], "drop"),
            }],
            "removed": [
                {"name": "telnet", "ports": ["23/tcp"], "addresses": [], "to": "local"},
            ],
            "unchanged": 1,
            "settings": [
                {"table": "default", "key": "malformed", "old": "drop", "new": "pass"},
            ],
        })
    );
}

#[test]
fn lists_that_look_the_same_when_they_are_cut_show_what_differs() {
    let rule = |last: &str| {
        let prefixes: Vec<_> = (0..8).map(|host| format!("\"192.0.2.{host}\", ")).collect();
        let prefixes = prefixes.concat();
        format!("[[rule]]\nport = \"22/tcp\"\nfrom = [{prefixes}{last}]\n")
    };
    for (old, new, says) in [
        ("\"10.0.0.7\"", "\"10.0.0.8\"", "- 10.0.0.7 + 10.0.0.8"),
        // The number of those that are left out differs.
        (
            "",
            "\"10.0.0.8\"",
            "192.0.2.0 192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 … 2 more → from \
             192.0.2.0 192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 … 3 more",
        ),
    ] {
        assert_eq!(
            between(&rule(old), &rule(new)).to_string(),
            format!("~ 22/tcp  from {says}\n= 0 unchanged")
        );
    }
}

#[test]
fn every_key_of_a_rule_that_differs_is_in_the_plan() {
    let rule = |keys: &str| format!("[[rule]]\nname = \"ssh\"\nport = \"22/tcp\"\n{keys}\n");
    for (old, new, says) in [
        ("", "rate = \"1000/s\"", "no rate → rate 1000/s"),
        (
            "rate = \"1000/s\"",
            "rate = \"1000/s\"\nburst = 5\nper = \"source\"",
            "rate 1000/s → rate 1000/s burst 5, per rule → per source",
        ),
        (
            "new_rate = \"10/m\"\nnew_burst = 20",
            "new_rate = \"10/m\"",
            "new_rate 10/m burst 20 → new_rate 10/m",
        ),
        ("role = \"source\"", "", "role source → role destination"),
        (
            "connections = \"established\"",
            "to = \"reject\"",
            "local → reject, connections established → connections all",
        ),
        ("shadow = true", "", "shadow → real"),
        ("to = \"drop\"", "to = \"xsk:echo\"", "drop → xsk:echo"),
        (
            "to = \"interface:veth0\"",
            "to = \"interface:veth1\"\nmac = \"02:00:5e:10:00:01\"\nfallback = \"local\"",
            "interface:veth0 → interface:veth1, no mac → mac 02:00:5e:10:00:01, usual fallback → fallback \
             local",
        ),
        (
            "to = \"cpu:0-3\"\nqueue = 64",
            "to = \"cpu:0-3\"\nqueue = 2048",
            "queue 64 → usual queue",
        ),
    ] {
        let plan = between(&rule(old), &rule(new)).to_string();
        let line = plan.lines().find_map(|line| line.strip_prefix("~ ssh"));
        assert_eq!(line.map(str::trim_start), Some(says), "{plan}");
        let said = between("", &rule(old)).to_string();
        assert!(said.contains("+ ssh"), "{said}");
    }
    // What is written out and what is left out come to the same.
    let same = between(
        &rule("rate = \"10/m\"\nburst = 10\nper = \"rule\""),
        &rule("rate = \"10/m\"\nconnections = \"all\"\nshadow = false"),
    );
    assert!(same.is_empty(), "{same}");
    let same = between(
        &rule("to = \"cpu:0,1-2\"\nqueue = 2048"),
        &rule("to = \"cpu:0-2\""),
    );
    assert!(same.is_empty(), "{same}");
    assert_eq!(
        between(
            "",
            &rule("rate = \"10/m\"\nburst = 5\nper = \"source\"\nshadow = true\nfrom = \"::1\"")
        )
        .to_string(),
        "+ ssh  22/tcp  any address → local, from ::1, rate 10/m burst 5, per source, shadow\n\
         = 0 unchanged"
    );
}

#[test]
fn defaults_and_flows_that_differ_are_in_the_plan() {
    let plan = between(
        "[flows]\ntcp = \"24h\"\n",
        "[default]\ninbound = \"drop\"\nicmp = \"errors-only\"\nfragments = \"track\"\n[flows]\nsize \
         = 100000\nhalf_open = 65536\ntcp = \"2h\"\n",
    );
    assert_eq!(
        plan.to_string(),
        "~ [default]  inbound pass → drop\n\
         ~ [default]  fragments pass → track\n\
         ~ [default]  icmp pass → errors-only\n\
         ~ [flows]    track false → true\n\
         ~ [flows]    size 65536 → 100000\n\
         ~ [flows]    tcp 24h → 2h\n\
         = 0 unchanged"
    );
    assert_eq!(
        serde_json::to_value(&plan).unwrap()["settings"][3],
        json!({"table": "flows", "key": "track", "old": "false", "new": "true"})
    );
}

#[test]
fn a_line_that_is_too_wide_loses_items_of_its_lists_and_then_its_end() {
    let ports: Vec<_> = (1..=6)
        .map(|port| format!("\"{}/tcp\"", port * 1000))
        .collect();
    let new = format!(
        "[[rule]]\nname = \"many\"\nport = [{}]\nfrom = [\"192.0.2.0/24\", \"198.51.100.0/24\", \
         \"2001:db8:1::/48\"]\n",
        ports.join(", ")
    );
    let plan = between("", &new);
    let says = |width| {
        let text = plan.shortened(20, width).to_string();
        let line = text.lines().next().unwrap_or_default().to_owned();
        assert!(line.chars().count() <= width, "{line}");
        line
    };
    assert_eq!(
        says(usize::MAX),
        "+ many  1000/tcp 2000/tcp 3000/tcp 4000/tcp 5000/tcp 6000/tcp  any address → local, from \
         192.0.2.0/24 198.51.100.0/24 2001:db8:1::/48"
    );
    assert_eq!(
        says(80),
        "+ many  1000/tcp … 5 more     any address → local, from 192.0.2.0/24 … 2 more"
    );
    assert_eq!(says(40), "+ many  1000/tcp … 5 more  any address …");
}
