//! One frame: as JSON, in a few words, and made from its ends.

use std::net::SocketAddr;

use super::*;

#[test]
fn a_line_of_json_has_the_documented_keys_in_their_order() {
    assert_eq!(
        json(&tagged(&ssh(), &[100, 0])),
        "{\"frame\":1,\"class\":\"ports\",\"parse_reason\":null,\"protocol\":6,\
         \"source\":\"198.51.100.7\",\"destination\":\"203.0.113.11\",\"source_port\":52341,\
         \"destination_port\":22,\"vlan\":[100,0],\"fragment\":\"none\",\"verdict\":\"drop\",\
         \"reason\":\"rule_drop\",\"rule\":\"ssh\",\"direction\":\"in\",\
         \"relation\":null,\"flow\":null,\"rates\":[],\"shadow\":null}"
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
         \"reason\":\"tcp_doff\",\"rule\":null,\"direction\":\"in\",\
         \"relation\":null,\"flow\":null,\"rates\":[],\"shadow\":null}"
    );
    assert_eq!(
        json(&tagged(&[0; 14], &[7])[..16]),
        "{\"frame\":1,\"class\":\"malformed\",\"parse_reason\":\"vlan_short\",\"protocol\":null,\
         \"source\":null,\"destination\":null,\"source_port\":null,\"destination_port\":null,\
         \"vlan\":[],\"fragment\":\"none\",\"verdict\":\"drop\",\"reason\":\"vlan_short\",\
         \"rule\":null,\"direction\":\"in\",\
         \"relation\":null,\"flow\":null,\"rates\":[],\"shadow\":null}"
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
        line.contains("\"verdict\":\"pass\",\"reason\":\"non_ip\",\"rule\":null,"),
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
            let line = line.line(None);
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
fn fragments_that_follow_their_first_one_are_explained_by_it() {
    let first = with(ssh(), &[(20, 0x20)]);
    let later = with(ssh(), &[(21, 3)]);
    let text = format!("[default]\nfragments = \"track\"\n{RULES}");
    let basis = Basis::from_text("portdemux.toml", &text).unwrap();
    let said = |frame: &[u8]| {
        let explained = basis.explain(1, frame);
        (
            explained.decision.reason.name(),
            explained.rule.map(str::to_owned),
        )
    };
    let dropped = ("rule_drop", Some("ssh".to_owned()));
    assert_eq!(said(&later), ("fragment_unknown", None));
    assert_eq!(said(&first), dropped);
    assert_eq!(said(&later), dropped);
    // It begins where the first one has not ended.
    let over = with(ssh(), &[(21, 2)]);
    assert_eq!(said(&over), ("fragment_overlap", Some("ssh".to_owned())));
}
