//! Who may use a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use portdemux_tests::{
    cli::Portdemux,
    frames::{self, CLIENT_MAC, CLIENT_V4, CLIENT_V6, Payload, With as _},
    lab::{INTERFACE, Lab},
    server::{PAGE, Server},
    veth,
};

use crate::{Mode, SERVERS, deliver, in_both_modes, in_url, tap::Tap};

in_both_modes! {
    a_source_that_may_not_is_dropped_and_counted_and_the_next_one_to_it_passes [];
    a_page_is_served_to_whom_the_lists_admit_and_to_nobody_else ["nginx" "curl"];
}

/// A UDP datagram from a source.
fn from(source: &str, port: u16) -> Result<Vec<u8>> {
    let payload: Payload = frames::udp(40_000, port).into();
    Ok(match source.parse()? {
        IpAddr::V4(source) => frames::ipv4(payload).with(|ip| ip.source = source).frame(),
        IpAddr::V6(source) => frames::ipv6(payload).with(|ip| ip.source = source).frame(),
    }
    .bytes())
}

fn a_source_that_may_not_is_dropped_and_counted_and_the_next_one_to_it_passes(
    mode: Mode,
) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(
        &lab,
        r#"
        [sets]
        office = ["198.51.100.0/25", "2001:db8:1::/64"]

        [[rule]]
        name = "office"
        port = "53/udp"
        from = "@office"

        [[rule]]
        name = "but-one"
        port = "54/udp"
        from = ["@office", "203.0.113.9"]
        deny = ["198.51.100.66", "2001:db8:1::66"]

        [[rule]]
        name = "not-office"
        port = "55/udp"
        deny = "@office"
        "#,
    )?;
    let (inside, denied) = ("198.51.100.127", "198.51.100.66");
    let (outside, alone) = ("198.51.100.128", "203.0.113.9");
    let (inside6, denied6) = ("2001:db8:1:0:ffff:ffff:ffff:ffff", "2001:db8:1::66");
    let outside6 = "2001:db8:1:1::";
    let all = [inside, denied, outside, alone, inside6, denied6, outside6];
    let passing: [(u16, &[&str]); 4] = [
        (53, &[inside, denied, inside6, denied6]),
        (54, &[inside, alone, inside6]),
        (55, &[outside, alone, outside6]),
        (56, &all),
    ];
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for (port, passing) in passing {
        for source in all {
            let frame = from(source, port)?;
            if passing.contains(&source) {
                expected.push(frame.clone());
            }
            sent.push(frame);
        }
    }
    assert_eq!(deliver(&lab, &sent)?, expected);
    tap.read()?;
    let stats = portdemux.stats()?;
    for (rule, dropped) in [("office", 3), ("but-one", 4), ("not-office", 4)] {
        let traffic = stats.rule(rule)?;
        let packets = (traffic.received.packets, traffic.dropped.packets);
        assert_eq!(packets, (7, dropped), "{rule}");
    }
    for (port, dropped) in [("53/udp", 3), ("54/udp", 4), ("55/udp", 4), ("56/udp", 0)] {
        let traffic = stats.port(port)?;
        let packets = (traffic.received.packets, traffic.dropped.packets);
        assert_eq!(packets, (7, dropped), "{port}");
    }
    assert_eq!(stats.reason("source_not_allowed")?.packets, 5);
    assert_eq!(stats.reason("source_denied")?.packets, 6);
    Ok(())
}

const OTHER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 101);
const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x101);

fn a_page_is_served_to_whom_the_lists_admit_and_to_nobody_else(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    for address in [IpAddr::V4(OTHER_V4), OTHER_V6.into()] {
        veth::add_address(&lab.client, INTERFACE, address)?;
        veth::add_neighbour(&lab.server, INTERFACE, address, CLIENT_MAC)?;
    }
    let _nginx = Server::nginx(&lab.server, 80)?;
    let rules = |members: &str| {
        format!(
            "[sets]\nmembers = [{members}]\n[[rule]]\nname = \"web\"\nport = \"80/tcp\"\nfrom = \"@members\"\n"
        )
    };
    let quoted = |addresses: [IpAddr; 2]| addresses.map(|ip| format!("\"{ip}\"")).join(", ");
    let usual = [CLIENT_V4.into(), CLIENT_V6.into()];
    let other = [OTHER_V4.into(), OTHER_V6.into()];
    let portdemux = mode.attach_with_rules(&lab, &rules(&quoted(usual)))?;
    served(&lab, usual, true)?;
    served(&lab, other, false)?;
    // The set changes; the rule stays as it is, and so do its counters.
    let before = portdemux.stats()?.rule("web")?;
    let plan = portdemux.apply(&rules(&quoted(other)))?.stdout;
    assert!(
        plan.starts_with("~ @members  2 prefixes → 2 others\n= 1 unchanged\n"),
        "{plan}"
    );
    served(&lab, usual, false)?;
    served(&lab, other, true)?;
    let after = portdemux.stats()?.rule("web")?;
    assert!(after.received.packets > before.received.packets);
    assert!(before.dropped.packets > 0 && after.dropped.packets > before.dropped.packets);
    explained(
        &portdemux,
        usual[0],
        "policy      192.0.2.1 is not in @members",
        "drop, source_not_allowed",
    )?;
    explained(
        &portdemux,
        other[1],
        "policy      2001:db8::101 may: it is in @members",
        "pass, rule_local",
    )
}

/// Asks for a page from addresses of the client.
fn served(lab: &Lab, clients: [IpAddr; 2], is_served: bool) -> Result<()> {
    for (client, server) in clients.into_iter().zip(SERVERS) {
        let url = format!("http://{}/", in_url(server));
        let client = client.to_string();
        let arguments = [
            "-sS",
            "--connect-timeout",
            "0.5",
            "--interface",
            &client,
            &url,
        ];
        let page = lab.client.run("curl", &arguments)?;
        if is_served {
            assert_eq!(page.success()?.stdout, PAGE);
        } else {
            assert_eq!(page.code(), Some(28), "{client}");
        }
    }
    Ok(())
}

/// Holds `explain` to what it says of a source, with which the loaded program has to agree.
fn explained(portdemux: &Portdemux<'_>, client: IpAddr, policy: &str, verdict: &str) -> Result<()> {
    let server = SERVERS[usize::from(client.is_ipv6())];
    let (source, destination) = (
        format!("{}:40000", in_url(client)),
        format!("{}:80", in_url(server)),
    );
    let said = portdemux
        .ok(&["explain", "--kernel", "tcp", &source, &destination])?
        .stdout;
    let verdict = format!("verdict     {verdict}   (the kernel agrees)");
    assert!(said.lines().any(|line| line == policy), "{said}");
    assert!(said.lines().any(|line| line == verdict), "{said}");
    Ok(())
}
