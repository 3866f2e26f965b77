//! Reports about a packet and about a capture.

use std::net::SocketAddr;

use portdemux_common::{
    conntrack::{Direction, Relation},
    reason::{Reason, Verdict},
};

use super::{packet::Flags, *};
use crate::{
    capture::Capture,
    explain::{
        capture::{Findings, Format},
        report::report,
    },
};

#[test]
fn a_report_names_the_winner_and_why_the_others_lose() {
    let basis = basis();
    assert_eq!(
        report(&basis, &basis.explain(1, &ssh()), true, &[]),
        "parsed      IPv4 TCP SYN\n\
         entry point ssh: 22/tcp, any address   portdemux.toml:6\n\
         \x20           also claimed by legacy 20-25/tcp (portdemux.toml:2): a single port beats a \
         range\n\
         verdict     drop, rule_drop   (the kernel agrees)\n"
    );
    let exact = frame(Transport::Tcp, "198.51.100.7:1", "203.0.113.10:23");
    assert_eq!(
        report(&basis, &basis.explain(1, &exact), false, &[]),
        "parsed      IPv4 TCP SYN\n\
         entry point login: 1-100/tcp, 203.0.113.10   portdemux.toml:11\n\
         \x20           also claimed by legacy 20-25/tcp (portdemux.toml:2): an exact address beats \
         any address\n\
         verdict     pass, rule_local\n"
    );
    let free = frame(Transport::Sctp, "[2001:db8::7]:1", "[2001:db8::10]:22");
    assert_eq!(
        report(&basis, &basis.explain(1, &free), false, &[]),
        "parsed      IPv6 SCTP\n\
         entry point none: no rule claims 22/sctp at 2001:db8::10\n\
         verdict     pass, unclaimed\n"
    );
}

#[test]
fn without_the_ruleset_s_text_a_report_still_names_the_rule() {
    let Basis { image, .. } = basis();
    let names = [(1, "ssh".to_owned())].into();
    let basis = Basis::in_force(image, names);
    let text = report(&basis, &basis.explain(1, &ssh()), false, &[]);
    assert!(
        text.contains("\nentry point ssh\nverdict     drop, rule_drop\n"),
        "{text}"
    );
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        for word in [0, 0, length, length + 1] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

fn explain_all(file: &[u8], format: Format) -> (String, Findings) {
    let mut text = String::new();
    let mut capture = Capture::new("trace.pcap", file).unwrap();
    let findings = capture::explain(
        &mut capture,
        &basis(),
        None,
        format,
        &capture::Ways::default(),
        |more| {
            text.push_str(more);
            true
        },
    );
    (text, findings.unwrap().unwrap())
}

#[test]
fn what_nobody_reads_is_not_explained_to_its_end() {
    let file = pcap(&[vec![0; 60]]);
    let mut capture = Capture::new("trace.pcap", &file[..]).unwrap();
    let found = capture::explain(
        &mut capture,
        &basis(),
        None,
        Format::Json,
        &capture::Ways::default(),
        |_| false,
    );
    assert!(found.unwrap().is_none());
}

#[test]
fn a_capture_becomes_a_table_with_a_summary() {
    let open = frame(Transport::Tcp, "198.51.100.7:52342", "203.0.113.11:2222");
    let (text, findings) = explain_all(
        &pcap(&[ssh(), open.clone(), open]),
        Format::Table {
            columns: usize::MAX,
        },
    );
    assert_eq!(
        text,
        "\x20FRAME  VERDICT  REASON       RULE    PACKET\n\
         \x20    1  drop     rule_drop    ssh     tcp 198.51.100.7:52341 > 203.0.113.11:22\n\
         \x20    2  pass     unclaimed    –       tcp 198.51.100.7:52342 > 203.0.113.11:2222\n\
         \x20    3  pass     unclaimed    –       tcp 198.51.100.7:52342 > 203.0.113.11:2222\n\
         \n\
         3 frames\n\
         \x20          2  pass  unclaimed\n\
         \x20          1  drop  rule_drop\n"
    );
    assert_eq!(findings.cut, 3);
    assert!(findings.error.is_none());
}

#[test]
fn a_packet_that_has_no_room_has_a_line_of_its_own() {
    let long = frame(
        Transport::Udp,
        "[2001:db8:1111:2222:3333:4444:5555:6666]:52342",
        "[2001:db8::10]:2222",
    );
    let (text, _) = explain_all(&pcap(&[ssh(), long]), Format::Table { columns: 80 });
    assert!(
        text.starts_with(
            "\x20FRAME  VERDICT  REASON       RULE    PACKET\n\
             \x20    1  drop     rule_drop    ssh     tcp 198.51.100.7:52341 > 203.0.113.11:22\n\
             \x20    2  pass     unclaimed    –\n\
             \x20       udp [2001:db8:1111:2222:3333:4444:5555:6666]:52342 > [2001:db8::10]:2222\n"
        ),
        "{text}"
    );
}

#[test]
fn a_capture_that_breaks_off_is_explained_as_far_as_it_goes() {
    let file = pcap(&[ssh(), ssh(), ssh()]);
    let (text, findings) = explain_all(&file[..file.len() - 1], Format::Json);
    assert_eq!(text.lines().count(), 2);
    assert_eq!(findings.tally.frames(), 2);
    assert!(
        findings
            .error
            .unwrap()
            .to_string()
            .contains("frame 3 is cut off")
    );
    assert_eq!(
        findings.tally.outcomes(),
        [(Verdict::Drop, Reason::RuleDrop, 2)]
    );
}

#[test]
fn many_flows_are_followed_at_once_if_that_is_asked() {
    const FLOWS: u16 = 1_000;
    let text =
        "[default]\ninbound = \"drop\"\n[flows]\n[[rule]]\nname = \"web\"\nport = \"80/tcp\"\n";
    let basis = Basis::from_text("portdemux.toml", text).unwrap().tracking();
    let (here, there) = (SocketAddr::from(([192, 0, 2, 1], 80)), |flow| {
        SocketAddr::from(([198, 51, 100, 7], 40_000 + flow))
    });
    let relation = |direction, flags, [from, to]: [SocketAddr; 2]| {
        let frame = packet::frame_with(Transport::Tcp, Flags(flags), from, to).unwrap();
        let explained = basis.explain_going(direction, 1, &frame, Some(7));
        explained.packet_state.relation.map(Relation::name)
    };
    let in_all = |direction, flags| -> Vec<_> {
        let ends = (0..FLOWS).map(|flow| match direction {
            Direction::Received => [there(flow), here],
            Direction::Sent => [here, there(flow)],
        });
        ends.map(|ends| relation(direction, flags, ends)).collect()
    };
    let all = |relation| vec![relation; usize::from(FLOWS)];
    assert_eq!(in_all(Direction::Received, 0x02), all(Some("new")));
    assert_eq!(in_all(Direction::Sent, 0x12), all(None));
    // The number that was sent is 0, and so this completes no handshake but with 1.
    assert_eq!(in_all(Direction::Received, 0x10), all(Some("new")));
    let known = basis.explain_going(Direction::Received, 1, &[], Some(7));
    assert_eq!(known.packet_state.flow, None);
    let frame = packet::frame_with(Transport::Tcp, Flags(0x10), there(FLOWS - 1), here).unwrap();
    let last = basis.explain_going(Direction::Received, 1, &frame, Some(7));
    let flow = last.packet_state.flow.unwrap();
    assert_eq!(
        (flow.state, flow.begun_by, flow.half_open),
        ("answered", "peer", true)
    );
    assert_eq!((flow.packets_in, flow.packets_out), (2, 1));
    let frame = packet::frame_with(Transport::Tcp, Flags(0x10), there(0), here).unwrap();
    let first = basis.explain_going(Direction::Received, 1, &frame, Some(7));
    assert_eq!(first.packet_state.flow, Some(flow));
}
