//! What rulesets say about socket lookups.

use std::net::{IpAddr, SocketAddr};

use portdemux_common::{
    conntrack::Shape,
    ids::RuleId,
    parse::Version,
    reason::{Reason, Verdict},
    sockets::Lookup,
    wire::Transport,
};

use crate::{
    host::{Host, State},
    image,
    rules::file,
    sockets::words,
};

const RULES: &str = r#"
[default]
inbound = "drop"

[[rule]]
name = "web"
port = ["80/tcp", "80/udp"]
from = ["192.0.2.0/24", "2001:db8::/32"]
deny = "192.0.2.66"
to   = "socket:127.0.0.1:8080"

[[rule]]
name    = "here"
port    = "80/tcp"
address = "203.0.113.10"

[[rule]]
name    = "there"
port    = "1-100/tcp"
address = ["203.0.113.11", "2001:db8::11"]
to      = "socket:web"

[[rule]]
name     = "slow"
port     = ["81/tcp", "81/udp"]
new_rate = "1/h"
to       = "socket:web"

[[rule]]
name = "closed"
port = "82/tcp"
to   = "drop"
"#;

fn lookup(transport: Transport, from: &str, to: &str) -> Lookup {
    let (from, to): (IpAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    Lookup {
        source: words(from),
        destination: words(to.ip()),
        source_port: 40_000_u16.to_be_bytes(),
        destination_port: to.port().to_be_bytes(),
        version: if from.is_ipv4() {
            Version::V4
        } else {
            Version::V6
        },
        transport,
    }
}

#[test]
fn a_rule_s_terms_hold_for_lookups_unless_a_program_has_asked_before() {
    let ruleset = file::parse("rules", RULES).unwrap();
    let ids: Vec<RuleId> = (0..).take(ruleset.rules().len()).collect();
    let compiled = image::compile(&ruleset, &ids).unwrap();
    let (tcp, udp, sctp) = (Transport::Tcp, Transport::Udp, Transport::Sctp);
    let (pass, drop) = (Verdict::Pass, Verdict::Drop);
    let rows = [
        (
            tcp,
            "192.0.2.7",
            "198.51.100.1:80",
            Some((pass, Reason::RuleSocket, 0)),
        ),
        (
            udp,
            "192.0.2.7",
            "127.0.0.1:80",
            Some((pass, Reason::RuleSocket, 0)),
        ),
        (
            tcp,
            "2001:db8::7",
            "[::1]:80",
            Some((pass, Reason::RuleSocket, 0)),
        ),
        (
            tcp,
            "192.0.2.66",
            "127.0.0.1:80",
            Some((drop, Reason::SourceDenied, 0)),
        ),
        (
            tcp,
            "192.0.3.7",
            "127.0.0.1:80",
            Some((drop, Reason::SourceNotAllowed, 0)),
        ),
        (
            tcp,
            "127.0.0.1",
            "127.0.0.1:80",
            Some((drop, Reason::SourceNotAllowed, 0)),
        ),
        (
            tcp,
            "::1",
            "[::1]:80",
            Some((drop, Reason::SourceNotAllowed, 0)),
        ),
        // Another rule has the port at this address, and it is for no socket.
        (tcp, "192.0.2.7", "203.0.113.10:80", None),
        (
            udp,
            "192.0.2.7",
            "203.0.113.10:80",
            Some((pass, Reason::RuleSocket, 0)),
        ),
        (
            tcp,
            "127.0.0.1",
            "203.0.113.11:80",
            Some((pass, Reason::RuleSocket, 2)),
        ),
        (
            tcp,
            "::1",
            "[2001:db8::11]:100",
            Some((pass, Reason::RuleSocket, 2)),
        ),
        (tcp, "::1", "[2001:db8::11]:101", None),
        (tcp, "::1", "[2001:db8::12]:100", None),
        (tcp, "127.0.0.1", "127.0.0.1:82", None),
        (tcp, "127.0.0.1", "127.0.0.1:84", None),
        // Nothing else has come, and all of a rate is left.
        (
            tcp,
            "127.0.0.1",
            "127.0.0.1:81",
            Some((pass, Reason::RuleSocket, 3)),
        ),
        (sctp, "127.0.0.1", "127.0.0.1:80", None),
    ];
    for (transport, from, to, expected) in rows {
        let lookup = lookup(transport, from, to);
        let decided = |is_guarded| {
            let state = State::empty(Shape::default());
            let host = Host::new(&compiled, &state, 0);
            let (goes_on, decision) = host.lookup(lookup, is_guarded)?;
            assert_eq!(goes_on, decision.verdict == Verdict::Pass);
            Some((decision.verdict, decision.reason, decision.entry.rule()))
        };
        assert_eq!(decided(false), expected, "{transport:?} {from} {to}");
        let guarded = expected.map(|(_, _, rule)| (pass, Reason::RuleSocket, rule));
        assert_eq!(decided(true), guarded, "{transport:?} {from} {to}");
    }
}
