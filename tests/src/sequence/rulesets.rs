//! Rulesets under which what came before decides.

/// Denies by default and follows everything.
const STRICT: &str = r#"
[default]
inbound = "drop"
icmp = "errors-only"
fragments = "track"

[flows]
handshake = "3s"
tcp = "40s"
closing = "8s"
one_way = "3s"
udp = "15s"
sctp = "30s"
echo = "3s"

[sets]
some = ["192.0.2.7", "2001:db8::7"]

[[rule]]
name = "web"
port = ["443/tcp", "443/udp", "443/sctp"]

[[rule]]
name = "web-here"
port = ["443/tcp", "443/udp"]
address = ["192.0.2.3", "2001:db8::3"]
from = "@some"

[[rule]]
name = "proxy"
port = ["8000-8999/tcp", "8000-8999/udp"]
deny = "@some"
rate = "2/s"
burst = 5

[[rule]]
name = "ssh"
port = ["22/tcp", "22/udp", "22/sctp"]
new_rate = "5/m"
new_burst = 2
per = "source"

[[rule]]
name = "replies"
port = ["40001/tcp", "40001/udp", "40001/sctp"]
connections = "established"

[[rule]]
name = "from-9000"
port = ["9000/tcp", "9000/udp"]
role = "source"
connections = "established"

[[rule]]
name = "mail"
port = "25/tcp"
to = "reject"

[[rule]]
name = "tried-web"
port = ["443/tcp", "443/udp"]
shadow = true
new_rate = "10/m"
rate = "1/s"
burst = 2

[[rule]]
name = "tried-here"
port = "443/tcp"
address = ["192.0.2.2", "2001:db8::2"]
shadow = true
connections = "established"
"#;

/// Lets everything in but for some, and limits what it lets in.
const OPEN: &str = r#"
[default]
inbound = "pass"
icmp = "drop"
fragments = "track"
malformed = "pass"

[flows]
track = true
handshake = "5s"
tcp = "30s"
closing = "5s"
one_way = "5s"
udp = "10s"
sctp = "20s"
echo = "5s"

[[rule]]
name = "web"
port = ["443/tcp", "443/udp"]
rate = "60/m"
burst = 3
new_rate = "10/m"
new_burst = 3
per = "source"

[[rule]]
name = "ssh"
port = ["22/tcp", "22/udp"]
from = ["192.0.2.8/30", "2001:db8::8/125"]
new_rate = "1/s"
new_burst = 2

[[rule]]
name = "replies"
port = ["40000-40002/tcp", "40000-40002/udp"]
connections = "established"

[[rule]]
name = "mail"
port = "25/tcp"
to = "drop"

[[rule]]
name = "dns"
port = ["53/udp", "53/tcp"]
address = ["192.0.2.2", "2001:db8::2"]
to = "reject"

[[rule]]
name = "tried-all"
port = ["0-65535/udp"]
deny = ["192.0.2.7", "2001:db8::7"]
to = "drop"
shadow = true
"#;

/// Rejects by default; fragments pass on their own.
const REJECTING: &str = r#"
[default]
inbound = "reject"
fragments = "pass"

[flows]
handshake = "2s"
closing = "2s"

[[rule]]
name = "web"
port = ["443/tcp", "443/udp", "443/sctp"]
new_rate = "2/s"
rate = "10/s"
burst = 4

[[rule]]
name = "from-443"
port = ["443/tcp", "443/udp"]
role = "source"
rate = "2/s"
per = "source"

[[rule]]
name = "ssh"
port = "22/tcp"
connections = "established"
"#;

/// What is there without flows: rates, lists, fragments.
const WITHOUT_FLOWS: &str = r#"
[default]
fragments = "track"

[[rule]]
name = "web"
port = ["443/tcp", "443/udp", "443/sctp"]
rate = "20/s"
burst = 3
per = "source"

[[rule]]
name = "web-here"
port = "443/tcp"
address = ["192.0.2.3", "2001:db8::3"]
to = "drop"

[[rule]]
name = "from-9000"
port = ["9000/tcp", "9000/udp"]
role = "source"
to = "reject"

[[rule]]
name = "ssh"
port = ["22/tcp", "22/udp"]
deny = ["192.0.2.1", "2001:db8::1"]

[[rule]]
name = "tried-web"
port = ["443/tcp", "443/udp"]
shadow = true
rate = "1/s"
"#;

/// Each after the other.
pub const RULESETS: [&str; 5] = [
    STRICT,
    OPEN,
    REJECTING,
    WITHOUT_FLOWS,
    // Nothing passes that is no whole packet.
    "[default]\nfragments = \"drop\"\ninbound = \"drop\"\n[[rule]]\nname = \"web\"\nport = [\"443/tcp\", \"443/udp\"]\n",
];

/// A ruleset whose flows are remembered for a month, and of whose rates nothing comes back in the meantime.
#[must_use]
pub fn for_a_month(text: &str) -> String {
    const KEYS: [&str; 7] = [
        "handshake",
        "tcp",
        "closing",
        "one_way",
        "udp",
        "sctp",
        "echo",
    ];
    let is_time = |line: &&str| {
        KEYS.iter()
            .any(|key| line.starts_with(&format!("{key} = ")))
    };
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| !is_time(line) && *line != "[flows]" && *line != "track = true")
        .collect();
    let times: Vec<String> = KEYS
        .iter()
        .map(|key| format!("{key} = \"30d\"\n"))
        .collect();
    let text = kept.join("\n");
    let text = ["/s\"", "/m\""]
        .iter()
        .fold(text, |text, unit| text.replace(unit, "/h\""));
    format!("{text}\n[flows]\ntrack = true\n{}", times.concat())
}
