//! Single frames of every kind: tags, lies, fragments, and what is not IP.

use anyhow::{Context as _, Result};
use portdemux_tests::{
    answer::Class,
    frames::{
        self, ARP, Frame, HOP_BY_HOP, IPV4, IPV6, SERVICE_VLAN, VLAN, With as _, ethernet, ipv4,
        ipv6, llc, sctp, tcp, udp,
    },
    lab::Lab,
    reference, rows,
    veth::Offloads,
};

use crate::{Mode, deliver, in_both_modes, tap::Tap};

in_both_modes! {
    tagged_frames_follow_the_rules_for_their_ports [];
    a_third_tag_is_no_way_around_the_rules [];
    malformed_frames_are_dropped_unless_they_are_to_pass [];
    later_fragments_pass_and_first_ones_follow_the_rules [];
    sctp_follows_the_rules [];
    what_is_not_ip_passes_whatever_the_rules [];
    every_row_is_delivered_or_dropped_as_it_says [];
    every_row_is_delivered_or_dropped_as_it_says_where_malformed_frames_pass [];
}

const WEB_IS_CLOSED: &str =
    "[[rule]]\nport = [\"443/tcp\", \"443/udp\", \"443/sctp\"]\nto = \"drop\"\n";
const CLOSED: [&str; 3] = ["443/tcp", "443/udp", "443/sctp"];

/// Sends frames of which those with `true` have to arrive, and holds the counters to them.
fn expect(mode: Mode, rules: &str, frames: Vec<(Frame, bool)>) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, rules)?;
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for (frame, passes) in frames {
        sent.push(frame.bytes());
        if passes {
            expected.push(frame.bytes());
        }
    }
    assert_eq!(deliver(&lab, &sent)?, expected);
    tap.agrees(&portdemux, &CLOSED)?;
    Ok(())
}

fn tagged_frames_follow_the_rules_for_their_ports(mode: Mode) -> Result<()> {
    let mut frames = Vec::new();
    for (port, passes) in [(443, false), (80, true)] {
        for frame in [
            ipv4(tcp(40_000, port)).frame(),
            ipv4(udp(40_000, port)).frame(),
            ipv6(tcp(40_000, port)).frame(),
            ipv6(udp(40_000, port))
                .then(frames::extension(HOP_BY_HOP, 1))
                .frame(),
        ] {
            for kind in [VLAN, SERVICE_VLAN] {
                for id in [0, 1, 7, 4095, 0x2007] {
                    frames.push((frame.clone().tag(kind, id), passes));
                    frames.push((frame.clone().tag(kind, 7).tag(VLAN, id), passes));
                    frames.push((frame.clone().tag(kind, id).tag(SERVICE_VLAN, 8), passes));
                }
            }
        }
    }
    expect(mode, WEB_IS_CLOSED, frames)
}

fn a_third_tag_is_no_way_around_the_rules(mode: Mode) -> Result<()> {
    let lab = Lab::new()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach(&lab)?;
    let tagged = |tags: usize, kind| {
        let frame = ipv4(tcp(40_000, 80)).frame();
        (0..tags).fold(frame, |frame, _| frame.tag(kind, 7)).bytes()
    };
    let mut sent = Vec::new();
    for kind in [VLAN, SERVICE_VLAN] {
        sent.extend([tagged(2, kind), tagged(3, kind), tagged(4, kind)]);
    }
    assert_eq!(
        deliver(&lab, &sent)?,
        [tagged(2, VLAN), tagged(2, SERVICE_VLAN)]
    );
    let stats = tap.agrees(&portdemux, &[])?;
    let depth = stats.reason("vlan_depth")?;
    assert_eq!(depth.packets, 4);
    let three_and_four = [1, 2, 4, 5].map(|at: usize| sent[at].len() as u64);
    assert_eq!(depth.bytes, three_and_four.iter().sum::<u64>());
    Ok(())
}

fn malformed_frames_are_dropped_unless_they_are_to_pass(mode: Mode) -> Result<()> {
    let web = || ipv4(tcp(40_000, 80));
    let lies = [
        (web().with(|ip| ip.version = Some(5)).frame(), "ip4_version"),
        (web().with(|ip| ip.ihl = Some(4)).frame(), "ip4_ihl"),
        (
            web().with(|ip| ip.total_length = Some(19)).frame(),
            "ip4_totlen_small",
        ),
        (
            web().with(|ip| ip.total_length = Some(41)).frame(),
            "ip4_totlen_long",
        ),
        (
            ipv4(tcp(40_000, 80).with(|tcp| tcp.data_offset = Some(4))).frame(),
            "tcp_doff",
        ),
        (
            ipv4(tcp(40_000, 80).with(|tcp| tcp.data_offset = Some(6))).frame(),
            "tcp_doff_long",
        ),
        (
            ipv6(udp(40_000, 80).with(|udp| udp.length = Some(7))).frame(),
            "udp_len_small",
        ),
        (
            ipv6(udp(40_000, 80).with(|udp| udp.length = Some(9))).frame(),
            "udp_len_long",
        ),
        (
            ipv6(udp(40_000, 80))
                .with(|ip| ip.payload_length = Some(9))
                .frame(),
            "ip6_plen_long",
        ),
        (ethernet(IPV6, [0x60; 39]), "ip6_short"),
    ];
    let sent: Vec<_> = lies.iter().map(|(frame, _)| frame.bytes()).collect();
    for (rules, arrive) in [
        ("[default]\n", false),
        ("[default]\nmalformed = \"pass\"\n", true),
    ] {
        let lab = Lab::new()?;
        let mut tap = Tap::open(&lab)?;
        if arrive {
            tap = tap.malformed_pass();
        }
        let portdemux = mode.attach_with_rules(&lab, rules)?;
        let expected: &[_] = if arrive { &sent } else { &[] };
        assert_eq!(deliver(&lab, &sent)?, expected);
        let stats = tap.agrees(&portdemux, &[])?;
        for (frame, reason) in &lies {
            let counted = stats.reason(reason)?;
            let length = frame.bytes().len() as u64;
            assert_eq!((counted.packets, counted.bytes), (1, length), "{reason}");
        }
    }
    Ok(())
}

fn later_fragments_pass_and_first_ones_follow_the_rules(mode: Mode) -> Result<()> {
    let mut frames = Vec::new();
    for (port, passes) in [(443, false), (80, true)] {
        let datagram = udp(40_000, port).with(|udp| udp.data = vec![7; 2000]);
        let v4 = ipv4(datagram.clone()).fragments(800);
        let v6 = ipv6(datagram)
            .then(frames::extension(HOP_BY_HOP, 0))
            .fragments(800);
        let v4 = v4.iter().map(frames::Ipv4::frame).enumerate();
        let v6 = v6.iter().map(frames::Ipv6::frame).enumerate();
        for (position, frame) in v4.chain(v6) {
            let is_first = position == 0;
            frames.push((frame, !is_first || passes));
        }
        // The tiny fragment of RFC 1858: whoever has no whole header has no ports, and does not pass.
        let tiny = ipv4(tcp(40_000, port)).fragments(8).remove(0);
        frames.push((tiny.frame(), false));
    }
    // A later fragment whose bytes look like a header that a rule drops.
    let bait = ipv4(tcp(40_000, 443)).with(|ip| ip.offset = 3);
    frames.push((bait.frame(), true));
    let later = frames
        .iter()
        .filter(|(frame, _)| reference::answer(&frame.bytes()).class == Class::NoPorts)
        .count();
    assert_eq!(later, 9);
    expect(mode, WEB_IS_CLOSED, frames)
}

fn sctp_follows_the_rules(mode: Mode) -> Result<()> {
    // An INIT chunk (RFC 9260 §3.3.2).
    let init = |port| {
        sctp(40_000, port).with(|sctp| {
            sctp.chunks = [
                [1, 0, 0, 20].as_slice(),
                &[0, 0, 0, 1],
                &[0, 1, 0, 0],
                &[0, 10, 0, 10],
                &[0; 4],
            ]
            .concat();
        })
    };
    let mut frames = Vec::new();
    for (port, passes) in [(443, false), (80, true)] {
        frames.push((ipv4(init(port)).frame(), passes));
        frames.push((ipv6(init(port)).frame(), passes));
        frames.push((ipv6(init(port)).frame().tag(VLAN, 7), passes));
    }
    expect(mode, WEB_IS_CLOSED, frames)
}

fn what_is_not_ip_passes_whatever_the_rules(mode: Mode) -> Result<()> {
    let rules =
        "[[rule]]\nport = [\"0-65535/tcp\", \"0-65535/udp\", \"0-65535/sctp\"]\nto = \"drop\"\n";
    let packet = ipv4(tcp(40_000, 443)).bytes();
    // Who has 192.0.2.2? (RFC 826)
    let mut question = vec![0, 1, 0x08, 0, 6, 4, 0, 1];
    question.extend(frames::CLIENT_MAC);
    question.extend(frames::CLIENT_V4.octets());
    question.extend([0; 6]);
    question.extend(frames::SERVER_V4.octets());
    let mut frames: Vec<_> = [
        ethernet(ARP, question.clone()).with(|frame| frame.destination = [0xff; 6]),
        ethernet(ARP, question).tag(VLAN, 7),
        llc([0; 35]),
    ]
    .map(|frame| (frame, true))
    .into();
    // MPLS, PPPoE, LLDP, 802.1ah and an old service tag, with a packet inside that rules would drop.
    for ether_type in [0x8847, 0x8864, 0x88cc, 0x88e7, 0x9100] {
        frames.push((ethernet(ether_type, packet.clone()), true));
    }
    frames.push((ethernet(IPV4, packet), false));
    let lab = Lab::new()?;
    let portdemux = mode.attach_with_rules(&lab, rules)?;
    let sent: Vec<_> = frames.iter().map(|(frame, _)| frame.bytes()).collect();
    let delivered = deliver(&lab, &sent)?;
    assert_eq!(delivered, sent[..sent.len() - 1]);
    let stats = portdemux.stats()?;
    // And the last frame, which says that all have arrived.
    assert_eq!(stats.reason("non_ip")?.packets, sent.len() as u64);
    assert_eq!(stats.reason("rule_drop")?.packets, 1);
    Ok(())
}

fn every_row_is_delivered_or_dropped_as_it_says(mode: Mode) -> Result<()> {
    rows_on_the_wire(mode, false)
}

fn every_row_is_delivered_or_dropped_as_it_says_where_malformed_frames_pass(
    mode: Mode,
) -> Result<()> {
    rows_on_the_wire(mode, true)
}

fn rows_on_the_wire(mode: Mode, malformed_pass: bool) -> Result<()> {
    const MTU: usize = 9000;
    let lab = Lab::with(u32::try_from(MTU)?, Offloads::Off)?;
    let mut tap = Tap::open(&lab)?;
    let mut rules = WEB_IS_CLOSED.to_owned();
    if malformed_pass {
        tap = tap.malformed_pass();
        rules.insert_str(0, "[default]\nmalformed = \"pass\"\n");
    }
    let portdemux = mode.attach_with_rules(&lab, &rules)?;
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for row in rows::all() {
        let answer = &row.expected;
        let length = row.frame.len();
        // What a packet socket does not send.
        if !(14..=14 + MTU).contains(&length) {
            continue;
        }
        // What the stack throws away before a packet socket sees it (Linux 6.18,
        // net/core/skbuff.c, skb_vlan_untag).
        if !answer.vlans.is_empty() && length < 20 || answer.reason == Some("vlan_short") {
            continue;
        }
        let passes = match answer.class {
            Class::Malformed => malformed_pass,
            Class::NoPorts | Class::NonIp => true,
            Class::Ports => answer.ports.is_none_or(|(_, port)| port != 443),
        };
        if passes {
            expected.push((row.name, row.frame.clone()));
        }
        sent.push(row.frame);
    }
    let delivered = deliver(&lab, &sent)?;
    let mut arrived = delivered.iter();
    for (name, frame) in &expected {
        let frame_that_came = arrived
            .next()
            .with_context(|| format!("{name}: did not come"))?;
        assert_eq!(frame_that_came, frame, "{name}");
    }
    assert_eq!(arrived.next(), None);
    tap.agrees(&portdemux, &CLOSED)?;
    Ok(())
}
