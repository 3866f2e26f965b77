//! `explain --json` prints what its page says.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use portdemux_tests::{
    frames::{self, ARP, TCP, UDP, VLAN, With as _},
    lab::Lab,
    require,
};
use serde_json::Value;

use crate::{
    bed::busy,
    json::{documented, has_keys, page},
};

/// A capture file with these frames, in microseconds and little-endian.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let words = |words: &[u32]| -> Vec<u8> {
        let bytes = words.iter().copied().map(u32::to_le_bytes);
        bytes.flatten().collect()
    };
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1]);
    for frame in frames {
        #[expect(clippy::cast_possible_truncation, reason = "frames are short")]
        let length = frame.len() as u32;
        file.extend(words(&[0, 0, length, length]));
        file.extend(frame);
    }
    file
}

#[test]
fn explain_prints_what_its_page_shows() -> Result<()> {
    if !require::have(require::WIRE) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (portdemux, _) = busy(&lab)?;
    let file =
        portdemux.rules_file("[[rule]]\nname = \"ssh\"\nport = \"22/tcp\"\nto = \"drop\"\n")?;
    let file = file.display().to_string();
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
    let capture = portdemux.state().join("frames.pcap");
    fs::write(
        &capture,
        pcap(&[
            ssh.frame().bytes(),
            broken.frame().tag(VLAN, 100).bytes(),
            frames::ethernet(ARP, [0; 28]).bytes(),
        ]),
    )?;
    let capture = capture.display().to_string();
    let explain = ["explain", "--pcap", &capture, "--json"];
    let page = page("json-explain.md")?;
    let (_, example) = page.split_once("```json\n").context("no example")?;
    let (example, _) = example.split_once("```").context("no end")?;
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
        let places: Option<Vec<usize>> = keys
            .iter()
            .map(|key| line.find(&format!("\"{key}\":")))
            .collect();
        ensure!(places.context("a key")?.is_sorted(), "{line}");
    }
    // And so for a single packet.
    let packet = ["explain", "tcp", "198.51.100.7:52341", "203.0.113.10:22"];
    let line = portdemux.json(&[&packet[..], &["--rules", &file]].concat())?;
    let first = example.lines().next().context("no line")?;
    assert_eq!(line, serde_json::from_str::<Value>(first)?);
    assert_eq!(line["protocol"], u64::from(TCP));
    Ok(())
}
