//! `explain --json` prints what its page says.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    cli::{self, Portdemux},
    frames::{self, ARP, TCP, UDP, VLAN, With as _},
    lab::Lab,
    netns::Netns,
    require, run,
};
use serde_json::Value;

use crate::{
    bed::busy,
    json::{documented, has_keys, page},
};

/// A capture file with these frames and the seconds at which they come, in microseconds and little-endian.
fn pcap(frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let words = |words: &[u32]| -> Vec<u8> {
        let bytes = words.iter().copied().map(u32::to_le_bytes);
        bytes.flatten().collect()
    };
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1]);
    for (seconds, frame) in frames {
        #[expect(clippy::cast_possible_truncation, reason = "frames are short")]
        let length = frame.len() as u32;
        file.extend(words(&[*seconds, 0, length, length]));
        file.extend(frame);
    }
    file
}

const RULES: &str = "[[rule]]\nname = \"ssh\"\nport = \"22/tcp\"\nto = \"drop\"\n";

/// The frames of the page: one that is dropped, one that is malformed, one that passes.
fn documented_frames() -> Vec<Vec<u8>> {
    let ssh = frames::ipv4(frames::tcp(52_341, 22)).with(|ip| {
        ip.source = [198, 51, 100, 7].into();
        ip.destination = [203, 0, 113, 10].into();
    });
    // A first fragment that ends within its UDP header.
    let broken = frames::ipv6(frames::other(UDP, [0; 4]))
        .then(frames::first_fragment())
        .with(|ip| {
            ip.source = "2001:db8::7".parse().unwrap_or(ip.source);
            ip.destination = "2001:db8::10".parse().unwrap_or(ip.destination);
        });
    vec![
        ssh.frame().bytes(),
        broken.frame().tag(VLAN, 100).bytes(),
        frames::ethernet(ARP, [0; 28]).bytes(),
    ]
}

/// Writes a capture file and says where it is.
fn capture(portdemux: &Portdemux<'_>, frames: &[Vec<u8>]) -> Result<String> {
    let frames: Vec<_> = frames.iter().map(|frame| (0, frame.clone())).collect();
    timed_capture(portdemux, &frames)
}

/// The same of frames that come at so many seconds.
pub(crate) fn timed_capture(
    portdemux: &Portdemux<'_>,
    frames: &[(u32, Vec<u8>)],
) -> Result<String> {
    let path = portdemux.state().join("frames.pcap");
    fs::write(&path, pcap(frames))?;
    Ok(path.display().to_string())
}

/// The examples of a page.
fn examples(page: &str) -> Vec<&str> {
    let blocks = page.split("```json\n").skip(1);
    blocks
        .filter_map(|block| block.split("```").next())
        .collect()
}

#[test]
fn explain_prints_what_its_page_shows() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let file = portdemux.rules_file(RULES)?;
    let file = file.display().to_string();
    let capture = capture(&portdemux, &documented_frames())?;
    let explain = ["explain", "--pcap", &capture, "--json"];
    let page = page("json-explain.md")?;
    let example = *examples(&page).first().context("no example")?;
    let lines = portdemux.ok(&[&explain[..], &["--rules", &file]].concat())?;
    assert_eq!(lines.stdout, example);
    // Under the rules in force it is the same, but for the claim.
    let lines = portdemux.ok(&explain)?.stdout;
    let unclaimed = example.replace(
        "\"drop\",\"reason\":\"rule_drop\",\"rule\":\"ssh\"",
        "\"pass\",\"reason\":\"unclaimed\",\"rule\":null",
    );
    assert_eq!(lines, unclaimed);

    // Every key of the table, in its order.
    let tables = documented(&page);
    let keys = tables.first().context("no table")?;
    for line in lines.lines() {
        has_keys(&serde_json::from_str(line)?, keys)?;
        let positions: Option<Vec<usize>> = keys
            .iter()
            .map(|key| line.find(&format!("\"{key}\":")))
            .collect();
        ensure!(positions.context("a key")?.is_sorted(), "{line}");
    }
    // And so for a single packet.
    let packet = ["explain", "tcp", "198.51.100.7:52341", "203.0.113.10:22"];
    let line = portdemux.json(&[&packet[..], &["--rules", &file]].concat())?;
    let first = example.lines().next().context("no line")?;
    assert_eq!(line, serde_json::from_str::<Value>(first)?);
    assert_eq!(line["protocol"], u64::from(TCP));
    Ok(())
}

#[test]
fn the_words_of_the_kernel_stand_with_each_frame() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let namespace = Netns::new("log")?;
    let portdemux = Portdemux::new(&namespace)?;
    let file = portdemux.rules_file(RULES)?;
    let file = file.display().to_string();
    let mut frames = documented_frames();
    let path = capture(&portdemux, &frames)?;
    let explain = ["explain", "--pcap", &path, "--rules", &file, "--kernel"];
    let with = |more: &[&str]| portdemux.ok(&[&explain[..], more].concat());
    let page = page("json-explain.md")?;
    let examples = examples(&page);
    // Only if they are asked for.
    assert_eq!(with(&["--json"])?.stdout, examples[0]);
    assert_eq!(with(&["--json", "--log"])?.stdout, examples[1]);

    // The kernel gives no program a frame of two bytes: it says nothing about that one.
    frames.push(vec![0; 2]);
    capture(&portdemux, &frames)?;
    let table = with(&["--log"])?.stdout;
    let (rows, _) = table.split_once("\n\n").context("no summary")?;
    assert_eq!(
        rows,
        "\x20FRAME  VERDICT  REASON       RULE  PACKET\n\
         \x20    1  drop     rule_drop    ssh   tcp 198.51.100.7:52341 > 203.0.113.10:22\n\
         \x20       kernel: 54 bytes: IPv4, protocol 6, port 52341 to port 22\n\
         \x20       kernel: rule id 0: drop, rule_drop\n\
         \x20    2  drop     l4_short     –     vlan 100 udp first fragment 2001:db8::7 > \
         2001:db8::10\n\
         \x20       kernel: 70 bytes: malformed\n\
         \x20       kernel: no rule: drop, l4_short\n\
         \x20    3  pass     non_ip       –     arp\n\
         \x20       kernel: 42 bytes: not IP\n\
         \x20       kernel: no rule: pass, non_ip\n\
         \x20    4  drop     eth_short    –     2 bytes"
    );
    let lines = with(&["--json", "--log"])?.stdout;
    let last: Value = serde_json::from_str(lines.lines().last().context("no line")?)?;
    assert_eq!(last["log"], Value::Array(Vec::new()));

    let packet = ["explain", "udp", "[2001:db8::7]:53", "[2001:db8::10]:22"];
    let asked = ["--rules", &file, "--kernel", "--log"];
    assert_eq!(
        portdemux.ok(&[&packet[..], &asked].concat())?.stdout,
        "parsed      IPv6 UDP\n\
         entry point none: no rule claims 22/udp at 2001:db8::10\n\
         verdict     pass, unclaimed   (the kernel agrees)\n\
         kernel      62 bytes: IPv6, protocol 17, port 53 to port 22\n\
         \x20           no rule: pass, unclaimed\n"
    );
    Ok(())
}

/// The addresses and ports of a packet of DHCP, before the client has an address.
const DHCP: [[&str; 2]; 2] = [
    ["192.0.2.1:67", "255.255.255.255:68"],
    ["[fe80::1]:547", "[fe80::2]:546"],
];

#[test]
fn the_example_lets_in_what_gives_a_host_its_address() -> Result<()> {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/example.toml");
    let explain = |protocol: &str, [source, destination]: [&str; 2]| {
        let mut command = std::process::Command::new(cli::binary()?);
        command.args(["explain", protocol, source, destination, "--rules", example]);
        run::run(command)?.success()
    };
    for ends in DHCP {
        let said = explain("udp", ends)?.stdout;
        ensure!(
            said.contains("entry point dhcp") && said.contains("verdict     pass"),
            "{said}"
        );
    }
    let said = explain("tcp", ["192.0.2.1:1024", "192.0.2.2:23"])?.stdout;
    ensure!(said.contains("verdict     drop, unclaimed"), "{said}");
    Ok(())
}
