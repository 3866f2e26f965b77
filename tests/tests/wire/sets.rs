//! Sets that change while traffic flows.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::Result;
use portdemux_tests::{
    frames::{self, Payload, With as _},
    lab::{INTERFACE, Lab},
    wait::{PATIENCE, wait_until},
};

use crate::{Mode, deliver, in_both_modes};

in_both_modes! {
    who_is_added_to_a_set_is_in_it_at_once_and_who_is_removed_is_not [];
    a_ban_ends_by_itself_and_holds_until_then_whatever_user_space_does [];
    lists_that_outgrow_their_map_get_a_larger_one_without_a_packet_going_past_them [];
    a_change_that_was_interrupted_is_made_up_for_by_the_next [];
}

const RULES: &str = r#"
[sets]
office = ["198.51.100.0/25", "2001:db8:1::/64"]
banned = ["203.0.113.1", "2001:db8:2::1"]

[[rule]]
name = "open"
port = "53/udp"
deny = "@banned"

[[rule]]
name = "office"
port = "54/udp"
from = ["@office", "203.0.113.200"]
deny = "@banned"
"#;

/// Which of these sources get a UDP datagram through to a port.
fn passing<'s>(lab: &Lab, port: u16, sources: &[&'s str]) -> Result<Vec<&'s str>> {
    let frame = |source: &str| -> Result<Vec<u8>> {
        let payload: Payload = frames::udp(40_000, port).into();
        Ok(match source.parse()? {
            IpAddr::V4(source) => frames::ipv4(payload).with(|ip| ip.source = source).frame(),
            IpAddr::V6(source) => frames::ipv6(payload).with(|ip| ip.source = source).frame(),
        }
        .bytes())
    };
    let sent: Vec<Vec<u8>> = sources
        .iter()
        .map(|source| frame(source))
        .collect::<Result<_>>()?;
    let delivered = deliver(lab, &sent)?;
    let through = sources
        .iter()
        .zip(&sent)
        .filter(|(_, frame)| delivered.contains(frame));
    Ok(through.map(|(source, _)| *source).collect())
}

fn who_is_added_to_a_set_is_in_it_at_once_and_who_is_removed_is_not(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, RULES)?;
    let all = [
        "198.51.100.7",
        "198.51.100.8",
        "203.0.113.1",
        "2001:db8:1::7",
        "2001:db8:1::8",
        "2001:db8:2::1",
    ];
    let [v4, v4_next, v4_banned, v6, v6_next, v6_banned] = all;
    assert_eq!(passing(&lab, 53, &all)?, [v4, v4_next, v6, v6_next]);
    assert_eq!(passing(&lab, 54, &all)?, [v4, v4_next, v6, v6_next]);
    let before = portdemux.stats()?.rule("open")?.received.packets;

    let said = portdemux.ok(&["set", "add", "banned", v4, v6])?.stdout;
    assert!(said.contains("\n@banned has 4 prefixes, "), "{said}");
    assert_eq!(passing(&lab, 53, &all)?, [v4_next, v6_next]);
    assert_eq!(passing(&lab, 54, &all)?, [v4_next, v6_next]);
    portdemux.ok(&["set", "remove", "@banned", v4_banned, v6_banned])?;
    assert_eq!(
        passing(&lab, 53, &all)?,
        [v4_next, v4_banned, v6_next, v6_banned]
    );
    // In the list of a rule that is made up of a set and more.
    portdemux.ok(&["set", "add", "office", v4_banned])?;
    assert_eq!(passing(&lab, 54, &all)?, [v4_next, v4_banned, v6_next]);
    portdemux.ok(&["set", "remove", "office", "198.51.100.0/25"])?;
    assert_eq!(passing(&lab, 54, &all)?, [v4_banned, v6_next]);

    // Nothing but the sets has changed: neither the ruleset nor its counters.
    let stats = portdemux.stats()?;
    assert_eq!(stats.generation()?, 1);
    assert_eq!(stats.rule("open")?.received.packets, before + 12);
    let text = portdemux.ok(&["export"])?.stdout;
    let sets = "office = [\"2001:db8:1::/64\", \"203.0.113.1\"]\n\
                banned = [\"198.51.100.7\", \"2001:db8:1::7\"]\n";
    assert!(text.contains(sets), "{text}");
    // What is exported comes to the same.
    portdemux.apply(&text)?;
    assert_eq!(
        passing(&lab, 53, &all)?,
        [v4_next, v4_banned, v6_next, v6_banned]
    );
    assert_eq!(passing(&lab, 54, &all)?, [v4_banned, v6_next]);
    Ok(())
}

fn a_ban_ends_by_itself_and_holds_until_then_whatever_user_space_does(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, RULES)?;
    let all = ["198.51.100.7", "198.51.100.8", "2001:db8:1::7"];
    let [short, long, short6] = all;
    portdemux.ok(&["set", "add", "banned", long, "--expires", "1h"])?;
    portdemux.ok(&["set", "add", "banned", short, short6, "--expires", "3s"])?;
    assert_eq!(passing(&lab, 53, &all)?, [""; 0]);
    // The program is another, the rules are applied from what is exported, and still it is banned.
    portdemux.ok(&["attach", INTERFACE])?;
    portdemux.ok(&["add", "99/udp"])?;
    let text = portdemux.ok(&["export"])?.stdout;
    portdemux.apply(&text)?;
    assert_eq!(passing(&lab, 53, &[long])?, [""; 0]);
    // No command runs while it ends.
    wait_until("the end of the ban", PATIENCE, || {
        Ok(passing(&lab, 53, &all)? == [short, short6])
    })?;
    let listed = portdemux.json(&["set", "list", "banned"])?;
    let members = listed["sets"][0]["prefixes"].as_array().map(Vec::as_slice);
    let members: Vec<_> = members.unwrap_or_default().iter().collect();
    assert_eq!(members.len(), 3, "{listed}");
    assert_eq!(members[2]["prefix"], "198.51.100.8/32", "{listed}");
    Ok(())
}

fn lists_that_outgrow_their_map_get_a_larger_one_without_a_packet_going_past_them(
    mode: Mode,
) -> Result<()> {
    let lab = Lab::new()?;
    let many = |count: u32| {
        let mut text = String::from("[sets]\nmany = [");
        for number in 0..count {
            let address = Ipv4Addr::from(0x0a00_0000 + number * 2);
            let _ = write!(text, "\"{address}\",");
        }
        text + "]\n[[rule]]\nport = \"53/udp\"\nfrom = \"@many\"\n"
    };
    let portdemux = mode.attach_with_rules(&lab, &many(10))?;
    let all = ["10.0.0.2", "10.0.0.3", "10.1.0.2", "10.1.0.3"];
    let [near, _, far, stranger] = all;
    for (count, expected) in [
        (10, &[near][..]),
        (100_000, &[near, far]),
        (10, &[near]),
        (150_000, &[near, far]),
    ] {
        portdemux.apply(&many(count))?;
        assert_eq!(passing(&lab, 53, &all)?, expected, "{count}");
    }
    portdemux.ok(&["set", "add", "many", stranger])?;
    portdemux.ok(&["set", "remove", "many", near])?;
    assert_eq!(passing(&lab, 53, &all)?, [far, stranger]);
    Ok(())
}

fn a_change_that_was_interrupted_is_made_up_for_by_the_next(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, RULES)?;
    let all = ["198.51.100.7", "198.51.100.8", "198.51.100.9"];
    portdemux.ok(&["set", "add", "banned", all[0]])?;
    // Two changes were written down, the second in part, and then the writer was killed.
    let changes = portdemux.state().join("default/1.changes");
    let mut file = OpenOptions::new().append(true).open(changes)?;
    file.write_all(b"+ banned 198.51.100.8/32\n+ banned 203.0.113.99")?;
    assert_eq!(passing(&lab, 53, &all)?, all[1..]);
    portdemux.ok(&["set", "add", "banned", all[2]])?;
    assert_eq!(passing(&lab, 53, &all)?, [""; 0]);
    let text = portdemux.ok(&["export"])?.stdout;
    assert!(!text.contains("203.0.113.99"), "{text}");
    Ok(())
}
