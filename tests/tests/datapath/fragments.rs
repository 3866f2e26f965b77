//! Fragments follow the first one of their packet in the kernel as on the host, and as is written down
//! here a third time.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result};
use portdemux::rules::Inbound;
use portdemux_common::reason::Verdict;
use portdemux_tests::{
    answer::Class,
    frames::{self, DESTINATION_OPTIONS, Ipv4, SCTP, TCP, UDP, With as _},
    generate::Random,
    reference, require,
};

use crate::{
    Bench, FRAMES, NEEDS,
    oracle::{Judgement, judge},
};

const RULES: &str = r#"
[default]
fragments = "track"
inbound = "INBOUND"

[[rule]]
name = "open"
port = ["53/tcp", "53/udp", "53/sctp"]

[[rule]]
name = "closed"
port = ["443/tcp", "443/udp", "443/sctp"]
to = "drop"

[[rule]]
name = "some"
port = ["8080/tcp", "8080/udp"]
deny = ["192.0.2.7", "2001:db8::7"]

[[rule]]
name = "here"
port = "8000/udp"
address = ["192.0.2.2", "2001:db8::2"]
"#;

/// How many frames meet the rules before they are put in force anew, and nothing is remembered.
const ROUND: u64 = 200;

/// A fragment.
#[derive(Clone, Debug)]
struct Fragment {
    is_v6: bool,
    /// The last byte of its source.
    source: u8,
    id: u16,
    protocol: u8,
    port: u16,
    /// In units of 8 bytes.
    begin: u16,
    /// Of what it has of the packet, in bytes.
    length: usize,
    /// Whether options stand behind the fragment header.
    has_options: bool,
}

impl Fragment {
    fn random(random: &mut Random) -> Self {
        let is_first = random.one_in(3);
        Self {
            is_v6: random.one_in(2),
            source: random.pick(&[1, 1, 7]),
            id: random.pick(&[0, 1, 2, 0x100, 0xff00]),
            protocol: random.pick(&[UDP, UDP, TCP, SCTP, 47]),
            port: random.pick(&[53, 53, 53, 443, 8080, 8000, 9]),
            begin: if is_first {
                0
            } else {
                random.pick(&[1, 2, 3, 4, 5, 10, 20, 0x1f00])
            },
            length: random.pick(&[8, 24, 32, 80]),
            has_options: is_first && random.one_in(4),
        }
    }

    fn frame(&self) -> Vec<u8> {
        let payload = match self.protocol {
            _ if self.begin > 0 => frames::other(self.protocol, [0x35; 96]),
            UDP => frames::udp(40_000, self.port)
                .with(|udp| udp.data = vec![0; 200])
                .into(),
            TCP => frames::tcp(40_000, self.port).into(),
            SCTP => frames::sctp(40_000, self.port).into(),
            other => frames::other(other, [0; 96]),
        };
        if !self.is_v6 {
            let mut bytes = frames::ipv4(payload).payload_bytes();
            bytes.resize(self.length, 0);
            return frames::ipv4(frames::other(self.protocol, bytes))
                .with(|ip| {
                    ip.source = Ipv4Addr::new(192, 0, 2, self.source);
                    (ip.id, ip.offset) = (self.id, self.begin);
                    ip.flags = Ipv4::MORE_FRAGMENTS;
                })
                .frame()
                .bytes();
        }
        let mut bytes = frames::ipv6(payload).payload_bytes();
        bytes.resize(self.length, 0);
        let header = frames::fragment(self.begin, true)
            .with(|header| header.body[2..4].copy_from_slice(&self.id.to_be_bytes()));
        let mut packet = frames::ipv6(frames::other(self.protocol, bytes))
            .with(|ip| ip.source = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, self.source.into()))
            .then(header);
        if self.has_options {
            packet = packet.then(frames::extension(DESTINATION_OPTIONS, 0));
        }
        packet.frame().bytes()
    }

    /// How far into its packet it reaches, in units of 8 bytes.
    fn end(&self) -> u16 {
        let options = if self.is_v6 && self.has_options { 8 } else { 0 };
        u16::try_from((self.length + options) / 8).unwrap_or(u16::MAX)
    }
}

/// What is known of a packet.
#[derive(Clone, Debug)]
struct First {
    judgement: Judgement,
    protocol: Option<u8>,
    ports: Option<(u16, u16)>,
    reach: u16,
}

type Packets = HashMap<(Option<IpAddr>, u16, Option<u8>), First>;

/// Says what becomes of a fragment, and the protocol and ports that it counts for.
fn decide(
    bench: &Bench,
    known: &mut Packets,
    fragment: &Fragment,
    frame: &[u8],
) -> (Judgement, Option<u8>, Option<(u16, u16)>) {
    let answer = reference::answer(frame);
    let denies = bench.ruleset.defaults().inbound == Inbound::Drop;
    let protocol = (!fragment.is_v6).then_some(fragment.protocol);
    let packet = (answer.source, fragment.id, protocol);
    if fragment.begin == 0 {
        let mut judgement = judge(&bench.ruleset, bench.malformed, &answer);
        if judgement.reason == "unclaimed" && denies {
            judgement.verdict = Verdict::Drop;
        }
        if answer.class != Class::Malformed {
            let new = First {
                judgement,
                protocol: answer.protocol,
                ports: answer.ports,
                reach: fragment.end(),
            };
            let first = known.entry(packet).or_insert_with(|| new.clone());
            if judgement.verdict != Verdict::Pass || first.judgement.verdict == Verdict::Pass {
                let reach = first.reach.max(new.reach);
                *first = First { reach, ..new };
            }
        }
        return (judgement, answer.protocol, answer.ports);
    }
    if let Some(first) = known.get_mut(&packet) {
        if fragment.begin < first.reach {
            first.judgement.verdict = Verdict::Drop;
            first.judgement.reason = "fragment_overlap";
        }
        return (first.judgement, first.protocol, first.ports);
    }
    let is_tiny = match fragment.protocol {
        TCP => fragment.begin <= 2,
        SCTP => fragment.begin == 1,
        _ => false,
    };
    let (verdict, reason) = match (is_tiny, denies) {
        (true, _) => (Verdict::Drop, "fragment_overlap"),
        (false, true) => (Verdict::Drop, "fragment_unknown"),
        (false, false) => (Verdict::Pass, "fragment_unknown"),
    };
    let judgement = Judgement {
        verdict,
        reason,
        rule: None,
    };
    (judgement, None, None)
}

fn generated_fragments_under(inbound: &str) -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let mut bench = Bench::new(&RULES.replace("INBOUND", inbound))?;
    let mut known = Packets::new();
    let mut reasons = HashMap::<_, u64>::new();
    for seed in 0..FRAMES / 2 {
        if seed % ROUND == 0 {
            known.clear();
            bench.basis.image.image.header.generation += 1;
            bench.program.set_ruleset(&bench.basis.image)?;
        }
        let fragment = Fragment::random(&mut Random::new(seed));
        let frame = fragment.frame();
        let answer = reference::answer(&frame);
        let (judgement, protocol, ports) = decide(&bench, &mut known, &fragment, &frame);
        let mut counted = answer.clone();
        (counted.protocol, counted.ports) = (protocol, ports);
        bench
            .hold(&frame, &answer, judgement, &counted)
            .with_context(|| format!("seed {seed}: {fragment:?}"))?;
        let is_first = fragment.begin == 0;
        *reasons
            .entry((judgement.reason, judgement.verdict, is_first))
            .or_default() += 1;
    }
    bench.check_counters()?;
    assert_eq!(bench.tally.rules_met(), bench.ruleset.rules().len());
    for reason in [
        "rule_local",
        "rule_drop",
        "source_denied",
        "unclaimed",
        "no_ports",
    ] {
        for is_first in [true, false] {
            let met = reasons
                .iter()
                .filter(|((other, _, first), _)| *other == reason && *first == is_first);
            let met: u64 = met.map(|(_, count)| count).sum();
            assert!(met > FRAMES / 2000, "{reason}, {is_first}: {reasons:?}");
        }
    }
    for reason in ["fragment_unknown", "fragment_overlap"] {
        let met = reasons.keys().any(|(other, ..)| *other == reason);
        assert!(met, "{reason}: {reasons:?}");
    }
    Ok(())
}

#[test]
fn fragments_follow_their_first_one_where_unclaimed_packets_pass() -> Result<()> {
    generated_fragments_under("pass")
}

#[test]
fn fragments_follow_their_first_one_where_unclaimed_packets_are_dropped() -> Result<()> {
    generated_fragments_under("drop")
}
