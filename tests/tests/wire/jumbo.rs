//! Frames that lie in more than one buffer.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use anyhow::{Result, ensure};
use portdemux_tests::{
    frames::{
        self, DESTINATION_OPTIONS, Frame, HOP_BY_HOP, SERVER_V4, SERVICE_VLAN, TCP, UDP, VLAN,
        With as _, ipv4, ipv6, tcp, udp,
    },
    lab::Lab,
    server::Server,
    veth::Offloads,
    wait::PATIENCE,
};

use crate::{Mode, deliver, in_both_modes, tap::Tap};

in_both_modes! {
    jumbo_frames_are_dispatched_and_counted_with_their_whole_length [];
    a_jumbo_frame_whose_length_field_lies_has_no_ports [];
    headers_beyond_the_first_buffer_are_no_way_around_the_rules [];
    a_real_connection_in_jumbo_frames_is_counted_byte_by_byte ["socat"];
}

/// What Ethernet carries at an MTU of 9,000 without a tag.
const LONGEST: usize = 9000 + 14;

const WEB_IS_CLOSED: &str =
    "[[rule]]\nname = \"web\"\nport = [\"443/tcp\", \"443/udp\", \"443/sctp\"]\nto = \"drop\"\n";
const CLOSED: [&str; 3] = ["443/tcp", "443/udp", "443/sctp"];

fn lab() -> Result<Lab> {
    Lab::with(9000, Offloads::Off)
}

fn jumbo_frames_are_dispatched_and_counted_with_their_whole_length(mode: Mode) -> Result<()> {
    let lab = lab()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, WEB_IS_CLOSED)?;
    let (mut sent, mut expected, mut closed) = (Vec::new(), Vec::new(), 0);
    for length in (3400..3700)
        .step_by(20)
        .chain((4000..LONGEST).step_by(500))
        .chain([4095, 4096, 4097, 8191, 8192, 8193, LONGEST])
    {
        for port in [443, 80] {
            let data = |headers: usize| vec![0x55; length - headers];
            for frame in [
                ipv4(tcp(40_000, port).with(|tcp| tcp.data = data(54))).frame(),
                ipv6(udp(40_000, port).with(|udp| udp.data = data(62))).frame(),
                ipv4(udp(40_000, port).with(|udp| udp.data = data(50)))
                    .frame()
                    .tag(SERVICE_VLAN, 7)
                    .tag(VLAN, 8),
            ] {
                let bytes = frame.bytes();
                assert_eq!(bytes.len(), length);
                if port == 443 {
                    closed += length as u64;
                } else {
                    expected.push(bytes.clone());
                }
                sent.push(bytes);
            }
        }
    }
    let delivered = deliver(&lab, &sent)?;
    assert_eq!(delivered.len(), expected.len());
    ensure!(delivered == expected, "a frame arrived as another");
    let stats = tap.agrees(&portdemux, &CLOSED)?;
    let rule = stats.rule("web")?;
    assert_eq!(rule.dropped.packets, (sent.len() / 2) as u64);
    assert_eq!(rule.dropped.bytes, closed);
    Ok(())
}

fn a_jumbo_frame_whose_length_field_lies_has_no_ports(mode: Mode) -> Result<()> {
    let lab = lab()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, WEB_IS_CLOSED)?;
    let v4 = |port, total_length| {
        ipv4(tcp(40_000, port).with(|tcp| tcp.data = vec![0x55; 8000]))
            .with(|ip| ip.total_length = Some(total_length))
            .frame()
    };
    let v6 = |port, payload_length| {
        ipv6(udp(40_000, port).with(|udp| udp.data = vec![0x55; 8000]))
            .with(|ip| ip.payload_length = Some(payload_length))
            .frame()
    };
    // Whether it passes, and why it does not.
    let frames: [(Frame, Option<&str>); 14] = [
        (v4(80, 8040), None),
        (v4(443, 8040), Some("rule_drop")),
        (v4(80, 8041), Some("ip4_totlen_long")),
        (v4(80, 65_535), Some("ip4_totlen_long")),
        (v4(80, 39), Some("l4_short")),
        (v4(80, 19), Some("ip4_totlen_small")),
        // The rest is padding, wherever it lies.
        (v4(80, 40), None),
        (v4(443, 40), Some("rule_drop")),
        (v4(443, 5000), Some("rule_drop")),
        (v6(80, 8008), None),
        (v6(80, 8009), Some("ip6_plen_long")),
        (v6(80, 65_535), Some("ip6_plen_long")),
        (v6(80, 7), Some("l4_short")),
        // Shorter than UDP says.
        (v6(80, 5000), Some("udp_len_long")),
    ];
    let sent: Vec<_> = frames.iter().map(|(frame, _)| frame.bytes()).collect();
    let passing = frames.iter().filter(|(_, reason)| reason.is_none());
    let expected: Vec<_> = passing.map(|(frame, _)| frame.bytes()).collect();
    let delivered = deliver(&lab, &sent)?;
    assert_eq!(delivered.len(), expected.len());
    ensure!(delivered == expected, "a frame arrived as another");
    let stats = tap.agrees(&portdemux, &CLOSED)?;
    for (_, reason) in &frames {
        let Some(reason) = reason else { continue };
        let of_this_reason = frames.iter().filter(|(_, other)| other == &Some(*reason));
        let (mut packets, mut bytes) = (0, 0);
        for (frame, _) in of_this_reason {
            packets += 1;
            bytes += frame.bytes().len() as u64;
        }
        let counted = stats.reason(reason)?;
        assert_eq!(
            (counted.packets, counted.bytes),
            (packets, bytes),
            "{reason}"
        );
    }
    Ok(())
}

fn headers_beyond_the_first_buffer_are_no_way_around_the_rules(mode: Mode) -> Result<()> {
    let lab = lab()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux = mode.attach_with_rules(&lab, WEB_IS_CLOSED)?;
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    // The transport header begins at every 8th byte from 3,300 to 4,200, so that wherever a buffer
    // ends it is cut there once, and then at the end of the frame.
    let positions = (150..=255).map(|more| (more, 0)).chain([(255, 255)]);
    for (one, other) in positions {
        for port in [443, 80] {
            let datagram = ipv6(udp(40_000, port).with(|udp| udp.data = vec![0x55; 1200]));
            let packet = |protocol, length: usize| {
                ipv6(frames::other(protocol, &datagram.payload_bytes()[..length]))
                    .then(frames::extension(HOP_BY_HOP, 255))
                    .then(frames::extension(DESTINATION_OPTIONS, one))
                    .then(frames::extension(DESTINATION_OPTIONS, other))
                    .frame()
                    .bytes()
            };
            let whole = packet(UDP, 1208);
            if port == 80 {
                expected.push(whole.clone());
            }
            // A TCP header that is not all there.
            sent.extend([whole, packet(TCP, 19)]);
        }
    }
    let delivered = deliver(&lab, &sent)?;
    assert_eq!(delivered.len(), expected.len());
    ensure!(delivered == expected, "a frame arrived as another");
    let stats = tap.agrees(&portdemux, &CLOSED)?;
    assert_eq!(stats.rule("web")?.dropped.packets, expected.len() as u64);
    let short = stats.reason("l4_short")?;
    assert_eq!(short.packets, 2 * expected.len() as u64);
    Ok(())
}

fn a_real_connection_in_jumbo_frames_is_counted_byte_by_byte(mode: Mode) -> Result<()> {
    let lab = lab()?;
    let mut tap = Tap::open(&lab)?;
    let portdemux =
        mode.attach_with_rules(&lab, "[[rule]]\nname = \"echo\"\nport = \"7/tcp\"\n")?;
    let _echo = Server::tcp_echo(&lab.server, 7)?;
    let said: Vec<u8> = (0..400_000_u32).flat_map(u32::to_be_bytes).collect();
    lab.client.enter(|| {
        let connection = TcpStream::connect_timeout(&(SERVER_V4, 7).into(), PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let (mut writer, mut reader) = (connection.try_clone()?, connection);
        let heard = std::thread::scope(|scope| {
            let write = scope.spawn(|| -> Result<()> {
                writer.write_all(&said)?;
                Ok(writer.shutdown(Shutdown::Write)?)
            });
            let mut heard = Vec::new();
            reader.read_to_end(&mut heard)?;
            write.join().unwrap_or(Ok(()))?;
            Ok::<_, anyhow::Error>(heard)
        })?;
        ensure!(heard == said, "{} bytes came back", heard.len());
        Ok(())
    })?;
    let stats = tap.agrees(&portdemux, &[])?;
    let echo = stats.rule("echo")?.received;
    assert!(echo.bytes > said.len() as u64, "{echo:?}");
    // Frames of 9,014 bytes, and a few acknowledgements.
    assert!(echo.bytes / echo.packets > 2000, "{echo:?}");
    Ok(())
}
