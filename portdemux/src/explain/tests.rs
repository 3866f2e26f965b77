//! What is said about frames, to programs and to people.

use std::net::SocketAddr;

use portdemux_common::{
    reason::{Reason, Verdict},
    ruleset::{Action, Entry},
    trace::Trace,
    wire::Transport,
};

use super::{
    agreement::{Difference, differences},
    capture::{Findings, Format},
    packet::{self, Endpoint},
    report::report,
    *,
};
use crate::{capture::Capture, dataplane::twin::TwinRun};

const RULES: &str = r#"
[[rule]]
name = "legacy"
port = "20-25/tcp"

[[rule]]
name = "ssh"
port = "22/tcp"
to   = "drop"

[[rule]]
name    = "login"
port    = ["1-100/tcp", "53/udp"]
address = ["203.0.113.10", "2001:db8::10"]
"#;

fn basis() -> Basis {
    Basis::from_text("portdemux.toml", RULES).unwrap()
}

fn frame(transport: Transport, source: &str, destination: &str) -> Vec<u8> {
    let end = |text: &str| text.parse::<Endpoint>().unwrap().0;
    packet::frame(transport, end(source), end(destination)).unwrap()
}

fn ssh() -> Vec<u8> {
    frame(Transport::Tcp, "198.51.100.7:52341", "203.0.113.11:22")
}

/// Puts VLAN tags before a frame's `EtherType`.
fn tagged(frame: &[u8], ids: &[u16]) -> Vec<u8> {
    let tags = ids
        .iter()
        .flat_map(|id| [0x81, 0x00, (id >> 8) as u8, (id & 0xff) as u8]);
    let mut tagged = frame[..12].to_vec();
    tagged.extend(tags);
    tagged.extend(&frame[12..]);
    tagged
}

/// Sets bytes of a frame.
fn with(mut frame: Vec<u8>, bytes: &[(usize, u8)]) -> Vec<u8> {
    for &(at, byte) in bytes {
        frame[at] = byte;
    }
    frame
}

fn json(frame: &[u8]) -> String {
    serde_json::to_string(&basis().explain(1, frame).line()).unwrap()
}

fn said(frame: &[u8]) -> String {
    basis().explain(1, frame).to_string()
}

#[test]
fn a_line_of_json_has_the_documented_keys_in_their_order() {
    assert_eq!(
        json(&tagged(&ssh(), &[100, 0])),
        "{\"frame\":1,\"class\":\"ports\",\"parse_reason\":null,\"protocol\":6,\
         \"source\":\"198.51.100.7\",\"destination\":\"203.0.113.11\",\"source_port\":52341,\
         \"destination_port\":22,\"vlan\":[100,0],\"fragment\":\"none\",\"verdict\":\"drop\",\
         \"reason\":\"rule_drop\",\"rule\":\"ssh\"}"
    );
}

#[test]
fn what_a_malformed_frame_said_before_it_broke_is_kept() {
    // A data offset of 4 words.
    let broken = with(ssh(), &[(46, 4 << 4)]);
    assert_eq!(
        json(&broken),
        "{\"frame\":1,\"class\":\"malformed\",\"parse_reason\":\"tcp_doff\",\"protocol\":6,\
         \"source\":\"198.51.100.7\",\"destination\":\"203.0.113.11\",\"source_port\":null,\
         \"destination_port\":null,\"vlan\":[],\"fragment\":\"none\",\"verdict\":\"drop\",\
         \"reason\":\"tcp_doff\",\"rule\":null}"
    );
    assert_eq!(
        json(&tagged(&[0; 14], &[7])[..16]),
        "{\"frame\":1,\"class\":\"malformed\",\"parse_reason\":\"vlan_short\",\"protocol\":null,\
         \"source\":null,\"destination\":null,\"source_port\":null,\"destination_port\":null,\
         \"vlan\":[],\"fragment\":\"none\",\"verdict\":\"drop\",\"reason\":\"vlan_short\",\
         \"rule\":null}"
    );
}

#[test]
fn frames_without_ports_say_only_what_they_have() {
    let arp = with(vec![0; 60], &[(12, 0x08), (13, 0x06)]);
    let line = json(&arp);
    assert!(
        line.contains("\"class\":\"non_ip\",\"parse_reason\":null,\"protocol\":null,"),
        "{line}"
    );
    assert!(
        line.ends_with("\"verdict\":\"pass\",\"reason\":\"non_ip\",\"rule\":null}"),
        "{line}"
    );

    // A fragment offset of 8 bytes.
    let later = json(&with(ssh(), &[(21, 1)]));
    assert!(
        later.contains("\"source_port\":null,\"destination_port\":null,\"vlan\":[]"),
        "{later}"
    );
    assert!(
        later.contains("\"fragment\":\"later\",\"verdict\":\"pass\""),
        "{later}"
    );
    let first = json(&with(ssh(), &[(20, 0x20)]));
    assert!(
        first.contains("\"destination_port\":22,\"vlan\":[],\"fragment\":\"first\""),
        "{first}"
    );
}

#[test]
fn a_packet_made_from_its_ends_is_sound_and_goes_from_one_to_the_other() {
    let ends = [
        ("198.51.100.7:52341", "203.0.113.10:53"),
        ("[2001:db8::7]:65535", "[2001:db8::10]:0"),
    ];
    for transport in Transport::ALL {
        for (source, destination) in ends {
            let frame = frame(transport, source, destination);
            let basis = basis();
            let line = basis.explain(7, &frame);
            let line = line.line();
            assert_eq!(
                (line.frame, line.class),
                (7, "ports"),
                "{transport:?} {source}"
            );
            assert_eq!(line.protocol, Some(transport.ip_proto().0));
            let from = SocketAddr::new(line.source.unwrap(), line.source_port.unwrap());
            let to = SocketAddr::new(line.destination.unwrap(), line.destination_port.unwrap());
            assert_eq!(
                (from.to_string(), to.to_string()),
                (source.into(), destination.into())
            );
        }
    }
    let v4: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let v6: SocketAddr = "[2001:db8::1]:2".parse().unwrap();
    assert_eq!(
        packet::frame(Transport::Udp, v4, v6)
            .unwrap_err()
            .to_string(),
        "192.0.2.1 and 2001:db8::1 are of different versions of IP: no packet goes from one to the \
         other"
    );
}

#[test]
fn an_end_that_is_none_is_told_how_to_be_one() {
    let rows = [
        (
            "203.0.113.10",
            "a port is missing: write ADDRESS:PORT, as in 203.0.113.10:443",
        ),
        (
            "2001:db8::1",
            "a port is missing: write ADDRESS:PORT, as in [2001:db8::1]:443",
        ),
        (
            "[2001:db8::1]",
            "a port is missing: write ADDRESS:PORT, as in [2001:db8::1]:443",
        ),
        (
            "2001:db8:1:2:3:4:5:6:443",
            "where does the address end? write an IPv6 address in brackets, as in \
             [2001:db8:1:2:3:4:5:6]:443",
        ),
        (
            "host:22",
            "write ADDRESS:PORT, as in 198.51.100.7:52341 or [2001:db8::1]:443",
        ),
        (
            "192.0.2.1:65536",
            "write ADDRESS:PORT, as in 198.51.100.7:52341 or [2001:db8::1]:443",
        ),
        (
            "",
            "write ADDRESS:PORT, as in 198.51.100.7:52341 or [2001:db8::1]:443",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(
            text.parse::<Endpoint>().unwrap_err().to_string(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn a_frame_is_said_in_a_few_words() {
    assert_eq!(said(&ssh()), "tcp 198.51.100.7:52341 > 203.0.113.11:22");
    assert_eq!(
        said(&tagged(
            &frame(Transport::Udp, "[2001:db8::1]:1", "[2001:db8::2]:2"),
            &[7, 8]
        )),
        "vlan 7.8 udp [2001:db8::1]:1 > [2001:db8::2]:2"
    );
    assert_eq!(
        said(&with(ssh(), &[(23, 47)])),
        "gre 198.51.100.7 > 203.0.113.11"
    );
    assert_eq!(
        said(&with(ssh(), &[(23, 200)])),
        "protocol 200 198.51.100.7 > 203.0.113.11"
    );
    assert_eq!(
        said(&with(ssh(), &[(21, 1)])),
        "tcp later fragment 198.51.100.7 > 203.0.113.11"
    );
    assert_eq!(said(&[0; 13]), "13 bytes");
    assert_eq!(said(&[0; 60]), "802.3 frame of 0 bytes");
    assert_eq!(said(&with(vec![0; 60], &[(12, 8), (13, 6)])), "arp");
    assert_eq!(said(&with(vec![0; 60], &[(12, 0x91)])), "ethertype 0x9100");
    assert_eq!(said(&with(ssh(), &[(14, 0x55)])), "ipv4");
    // A port that is unreachable, about what was sent there.
    let inner = frame(Transport::Udp, "203.0.113.11:9", "198.51.100.7:53");
    let mut error = frame(Transport::Udp, "192.0.2.1:0", "203.0.113.11:0");
    error.truncate(34);
    error.extend([3, 3, 0, 0, 0, 0, 0, 0]);
    error.extend(&inner[14..]);
    let length = u8::try_from(error.len() - 14).unwrap();
    assert_eq!(
        said(&with(error, &[(17, length), (23, 1)])),
        "icmp 192.0.2.1 > 203.0.113.11 about udp 203.0.113.11:9 > 198.51.100.7:53"
    );
}

#[test]
fn a_report_names_the_winner_and_why_the_others_lose() {
    let basis = basis();
    assert_eq!(
        report(&basis, &basis.explain(1, &ssh()), true),
        "parsed      IPv4 TCP SYN\n\
         entry point ssh: 22/tcp, any address   portdemux.toml:6\n\
         \x20           also claimed by legacy 20-25/tcp (portdemux.toml:2): a single port beats a \
         range\n\
         verdict     drop, rule_drop   (the kernel agrees)\n"
    );
    let exact = frame(Transport::Tcp, "198.51.100.7:1", "203.0.113.10:23");
    assert_eq!(
        report(&basis, &basis.explain(1, &exact), false),
        "parsed      IPv4 TCP SYN\n\
         entry point login: 1-100/tcp, 203.0.113.10   portdemux.toml:11\n\
         \x20           also claimed by legacy 20-25/tcp (portdemux.toml:2): an exact address beats \
         any address\n\
         verdict     pass, rule_local\n"
    );
    let free = frame(Transport::Sctp, "[2001:db8::7]:1", "[2001:db8::10]:22");
    assert_eq!(
        report(&basis, &basis.explain(1, &free), false),
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
    let text = report(&basis, &basis.explain(1, &ssh()), false);
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
    let findings = capture::explain(&mut capture, &basis(), None, format, |more| {
        text.push_str(more);
        Ok(())
    });
    (text, findings.unwrap())
}

#[test]
fn a_capture_becomes_a_table_with_a_summary() {
    let open = frame(Transport::Tcp, "198.51.100.7:52342", "203.0.113.11:2222");
    let (text, findings) = explain_all(&pcap(&[ssh(), open.clone(), open]), Format::Table);
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
fn whatever_the_kernel_says_differently_is_named_with_both_sides() {
    let basis = basis();
    let frame = ssh();
    let explained = basis.explain(1, &frame);
    let agreeing = TwinRun {
        action: 1,
        trace: explained.trace(),
    };
    assert_eq!(differences(&explained, &agreeing), []);
    let run = TwinRun {
        action: 2,
        trace: Trace {
            verdict: Verdict::Pass as u8,
            reason: Reason::RuleLocal as u8,
            entry: Entry::new(0, Action::Local),
            ..explained.trace()
        },
    };
    let difference = |what, host: &str, kernel: &str| Difference {
        what,
        host: host.into(),
        kernel: kernel.into(),
    };
    assert_eq!(
        differences(&explained, &run),
        [
            difference("action", "XDP_DROP", "XDP_PASS"),
            difference("verdict", "drop", "pass"),
            difference("reason", "rule_drop", "rule_local"),
            difference("rule", "id 1, Drop", "id 0, Local"),
        ]
    );
}

/// Every byte of a trace is told about in some field: none can differ unnoticed.
#[test]
fn a_difference_in_any_byte_of_a_trace_is_seen() {
    let basis = basis();
    let bytes = tagged(
        &frame(Transport::Tcp, "[2001:db8::1]:1", "[2001:db8::10]:22"),
        &[1, 2],
    );
    let explained = basis.explain(1, &bytes);
    for at in 0..size_of::<Trace>() {
        let mut trace = explained.trace();
        bytemuck::bytes_of_mut(&mut trace)[at] ^= 1;
        let run = TwinRun { action: 2, trace };
        assert_ne!(differences(&explained, &run), [], "byte {at}");
    }
}
