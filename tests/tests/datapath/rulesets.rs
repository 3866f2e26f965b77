//! The rulesets under which frames are decided about, and the addresses that matter to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portdemux_tests::frames::{SERVER_V4, SERVER_V6};

pub(crate) const NO_RULES: &str = "";

pub(crate) const SOME_PORTS_DROPPED: &str = r#"
[[rule]]
name = "web"
port = ["443/tcp", "443/udp", "443/sctp"]
to = "drop"

[[rule]]
name = "dns"
port = ["53/udp"]
to = "drop"

[[rule]]
name = "proxy"
port = ["8080/tcp", "8080/udp"]

[[rule]]
name = "ends"
port = ["0/tcp", "65535/tcp", "0/udp", "65535/udp", "0/sctp", "65535/sctp"]
to = "drop"
"#;

/// Ports that are rejected: at any address, at one, to some only.
pub(crate) const REJECTED: &str = r#"
[[rule]]
name = "web"
port = ["443/tcp", "443/udp", "443/sctp"]
to = "reject"

[[rule]]
name = "web-here"
port = "443/tcp"
address = ["192.0.2.2", "2001:db8::2"]

[[rule]]
name = "dns-here"
port = ["53/tcp", "53/udp"]
address = ["192.0.2.2", "2001:db8::2"]
to = "reject"

[[rule]]
name = "denied"
port = ["8080/tcp", "8080/udp"]
deny = ["192.0.2.0/24", "2001:db8::/64"]
to = "reject"
"#;

/// Ports whose packets go elsewhere, at any address, at one, for some only.
pub(crate) const REDIRECTED: &str = r#"
[[rule]]
name = "box"
port = ["443/tcp", "443/udp", "443/sctp"]
to = "interface:veth0"
mac = "02:00:5e:10:00:04"

[[rule]]
name = "box-here"
port = "443/tcp"
address = ["192.0.2.2", "2001:db8::2"]
to = "interface:veth1"
fallback = "local"

[[rule]]
name = "spread"
port = ["53/tcp", "53/udp"]
to = "cpu:0-1,7"

[[rule]]
name = "raw"
port = ["8080/tcp", "8080/udp"]
deny = ["192.0.2.0/24", "2001:db8::/64"]
to = "xsk:echo"
fallback = "reject"

[[rule]]
name = "steered"
port = ["8000/tcp", "8000/udp"]
to = "socket:127.0.0.1:80"
"#;

pub(crate) const EXACT_ADDRESSES: &str = r#"
[[rule]]
name = "web-anywhere"
port = ["443/tcp", "443/udp"]
to = "drop"

[[rule]]
name = "web-here"
port = ["443/tcp", "443/udp", "53/udp"]
address = ["192.0.2.2", "2001:db8::2"]

[[rule]]
name = "sctp-here"
port = ["0-65535/sctp"]
address = ["192.0.2.2", "2001:db8::2"]
to = "drop"

[[rule]]
name = "elsewhere"
port = ["53/udp", "443/tcp", "8080/tcp"]
address = ["203.0.113.9", "2001:db8:9::9"]
to = "drop"

[[rule]]
name = "more"
port = ["8080/tcp", "8080/udp", "8080/sctp"]
address = ["203.0.113.10", "203.0.113.11", "2001:db8:9::10", "2001:db8:9::2"]
"#;

/// The addresses that rules claim, and one that differs from one of them in its last bit.
pub(crate) const CLAIMED: [IpAddr; 6] = [
    IpAddr::V4(SERVER_V4),
    IpAddr::V6(SERVER_V6),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 8)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 0x10)),
];

pub(crate) const RANGES: &str = r#"
[[rule]]
name = "tcp"
port = ["0-65535/tcp"]

[[rule]]
name = "system"
port = ["0-1023/tcp", "0-1023/sctp"]
to = "drop"

[[rule]]
name = "https"
port = ["443/tcp"]

[[rule]]
name = "high"
port = ["1024-65535/udp"]
to = "drop"

[[rule]]
name = "proxies"
port = ["8000-8999/udp"]

[[rule]]
name = "proxy"
port = ["8080/udp"]
to = "drop"
"#;

pub(crate) const SOURCES: &str = r#"
[sets]
clients = ["192.0.2.1", "2001:db8::1"]
half = ["0.0.0.0/1", "::/1", "8000::/2"]
nobody = []

[[rule]]
name = "web"
port = ["443/tcp", "443/udp"]
from = "@half"
deny = ["192.0.2.0/24", "2001:db8::/126"]

[[rule]]
name = "clients"
port = ["53/udp", "8080/tcp"]
from = ["@clients", "@nobody"]

[[rule]]
name = "others"
port = ["8080/udp", "0-1023/sctp", "8000/tcp"]
deny = "@clients"
to = "drop"

[[rule]]
name = "here"
port = "443/tcp"
address = ["192.0.2.2", "2001:db8::2"]
from = ["128.0.0.0/1", "2000::/3"]

[[rule]]
name = "free"
port = "0-65535/tcp"
"#;

/// Sources at both sides of where the lists of [`SOURCES`] begin and end.
pub(crate) const AT_EDGES: [&str; 20] = [
    "0.0.0.0",
    "127.255.255.255",
    "128.0.0.0",
    "192.0.1.255",
    "192.0.2.0",
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.255",
    "192.0.3.0",
    "255.255.255.255",
    "::",
    "2001:db8::",
    "2001:db8::1",
    "2001:db8::3",
    "2001:db8::4",
    "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "4000::",
    "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "bfff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "c000::",
];

pub(crate) const MALFORMED_PASS: &str = r#"
[default]
malformed = "pass"

[[rule]]
name = "web"
port = ["443/tcp", "443/udp", "443/sctp"]
to = "drop"
"#;

pub(crate) const FRAGMENTS_DROPPED: &str = r#"
[default]
fragments = "drop"

[[rule]]
name = "web"
port = ["443/tcp", "443/udp", "443/sctp"]
"#;
