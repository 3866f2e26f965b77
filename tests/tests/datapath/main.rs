//! The program in the kernel decides about every frame as the host does and as the reference says,
//! and counts what is to be counted and nothing else.
//!
//! The frames go through the shadow program by `BPF_PROG_TEST_RUN`.

mod answers;
mod flows;
mod fragments;
mod oracle;
mod rulesets;
mod state;

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result, ensure};
use oracle::{Judgement, Tally, judge};
use portdemux::{
    dataplane::shadow_program::{ShadowKind, ShadowProgram, ShadowRun, actions_of},
    explain::{Basis, agreement},
    rules::{Malformed, Ruleset, file},
};
use portdemux_common::{
    blocks,
    capacity::RULE_SLOTS,
    entry::Action,
    reason::{Reason, Verdict},
    trace::Trace,
    wire::Transport,
};
use portdemux_tests::{
    answer::{Answer, Class, Fragment},
    frames::{self, DESTINATION_OPTIONS, HOP_BY_HOP, TCP, VLAN, With as _},
    generate::Generator,
    reference,
    require::{self, Need},
    rows,
};
use rulesets::{
    AT_EDGES, CLAIMED, EXACT_ADDRESSES, FRAGMENTS_DROPPED, MALFORMED_PASS, NO_RULES, RANGES,
    REDIRECTED, REJECTED, SOME_PORTS_DROPPED, SOURCES,
};

const NEEDS: &[Need] = &[Need::Root, Need::Bpf];

/// How many generated frames go through the kernel under each ruleset.
const FRAMES: u64 = if cfg!(debug_assertions) {
    10_000
} else {
    200_000
};

/// A ruleset on the host, in the kernel and in the oracle.
struct Bench {
    ruleset: Ruleset,
    malformed: Verdict,
    basis: Basis<'static>,
    program: ShadowProgram,
    /// What the kernel has to have counted.
    tally: Tally,
}

impl Bench {
    fn new(text: &str) -> Result<Self> {
        let ruleset = file::parse("rules", text)?;
        let basis = Basis::from_text("rules", text)?;
        let program = ShadowProgram::load(&basis.image, &ShadowKind::default())?;
        Ok(Self {
            malformed: match ruleset.defaults().malformed {
                Malformed::Drop => Verdict::Drop,
                Malformed::Pass => Verdict::Pass,
            },
            ruleset,
            basis,
            program,
            tally: Tally::default(),
        })
    }

    /// Holds the host and the kernel to what is to be said about a frame and to become of it.
    fn check(&mut self, frame: &[u8]) -> Result<Judgement> {
        let answer = reference::answer(frame);
        let judgement = judge(&self.ruleset, self.malformed, &answer);
        self.hold(frame, &answer, judgement, &answer)?;
        Ok(judgement)
    }

    /// Holds the host and the kernel to this about a frame, which is counted as `counted` is.
    fn hold(
        &mut self,
        frame: &[u8],
        answer: &Answer,
        judgement: Judgement,
        counted: &Answer,
    ) -> Result<()> {
        let explained = self.basis.explain(1, frame);
        let host = (
            Answer::of(frame),
            Judgement {
                verdict: explained.decision.verdict,
                reason: explained.decision.reason.name(),
                rule: explained.decision.rule(),
            },
        );
        ensure!(
            host == (answer.clone(), judgement),
            "expected {answer:?}, {judgement:?}\n  the host {host:?}"
        );
        if !ShadowProgram::takes(frame.len()) {
            return Ok(());
        }
        self.basis.lend_state(&self.program);
        let run = self.program.run(frame)?;
        let differences = agreement::differences(&explained, &run);
        ensure!(differences.is_empty(), "they differ in {differences:?}");
        let kernel = said(&run)?;
        ensure!(
            kernel == (answer.clone(), judgement),
            "expected {answer:?}, {judgement:?}\n  the kernel {kernel:?}"
        );
        let settled = judgement.where_nothing_is(&self.ruleset);
        ensure!(
            actions_of(settled.verdict).contains(&run.action),
            "the action is {}",
            run.action
        );
        self.tally.add(frame, counted, settled);
        Ok(())
    }

    /// Holds every counter in the kernel to the frames that were checked.
    fn check_counters(&self) -> Result<()> {
        self.check_counters_of(RULE_SLOTS)
    }

    /// The same, but of the rules only the first few.
    fn check_counters_of(&self, rules: usize) -> Result<()> {
        let counters = self.program.counters();
        ensure!(counters.lookups().is_empty(), "no socket was looked up");
        let counted = Tally::read(counters, rules);
        ensure!(
            counted == self.tally,
            "the counters are off\n  expected {:?}\n  counted  {counted:?}",
            self.tally
        );
        Ok(())
    }
}

/// What the kernel wrote down, without a word of the host's parser.
fn said(run: &ShadowRun) -> Result<(Answer, Judgement)> {
    let trace = &run.trace;
    let class = match trace.class {
        0 => Class::Ports,
        1 => Class::NoPorts,
        2 => Class::NonIp,
        _ => Class::Malformed,
    };
    let reason = Reason::from_index(trace.reason.into()).context("no such reason")?;
    let ports = (trace.source_port, trace.destination_port);
    ensure!(
        class == Class::Ports || ports == ([0; 2], [0; 2]),
        "ports that are not there: {trace:?}"
    );
    let answer = Answer {
        class,
        reason: (class == Class::Malformed).then_some(reason.name()),
        vlans: trace.vlans[..trace.vlan_count.into()].to_vec(),
        source: address(trace, trace.source),
        destination: address(trace, trace.destination),
        protocol: (trace.version != 0).then_some(trace.protocol),
        fragment: match trace.fragment {
            0 => Fragment::None,
            1 => Fragment::First,
            _ => Fragment::Later,
        },
        ports: (class == Class::Ports)
            .then_some((u16::from_be_bytes(ports.0), u16::from_be_bytes(ports.1))),
    };
    let verdict = match trace.verdict {
        0 => Verdict::Pass,
        1 => Verdict::Drop,
        2 => Verdict::Reject,
        _ => Verdict::Redirect,
    };
    let is_refused = matches!(
        reason,
        Reason::SourceDenied | Reason::SourceNotAllowed | Reason::FragmentOverlap
    );
    let by_rule = match trace.entry.action() {
        Action::Local | Action::Socket => Verdict::Pass,
        Action::Drop => Verdict::Drop,
        Action::Reject => Verdict::Reject,
        Action::Interface | Action::Cpu | Action::Xsk => Verdict::Redirect,
    };
    ensure!(
        !trace.entry.is_claimed() || verdict == if is_refused { Verdict::Drop } else { by_rule },
        "the rule says otherwise: {trace:?}"
    );
    let judgement = Judgement {
        verdict,
        reason: reason.name(),
        rule: trace.entry.is_claimed().then(|| trace.entry.rule()),
    };
    Ok((answer, judgement))
}

fn address(trace: &Trace, bytes: [u8; 16]) -> Option<IpAddr> {
    let [a, b, c, d, ..] = bytes;
    match trace.version {
        4 => Some(Ipv4Addr::new(a, b, c, d).into()),
        6 => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// Every row under a ruleset; after each, exactly its counters moved.
fn rows_under(text: &str) -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    // With and without blocks of counters of the CPU's own.
    for own in [blocks::OWN, 0] {
        let mut bench = Bench::new(text)?;
        bench.program.counters().allot(own);
        for row in rows::all() {
            assert_eq!(reference::answer(&row.frame), row.expected, "{}", row.name);
            bench
                .check(&row.frame)
                .and_then(|_| bench.check_counters_of(bench.ruleset.rules().len()))
                .with_context(|| format!("{}, with {own} blocks", row.name))?;
        }
        bench.check_counters()?;
    }
    Ok(())
}

/// Generated frames under a ruleset of which each rule has to meet some.
fn generated_frames_under(text: &str) -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let generator = Generator {
        ports: vec![53, 443, 8080, 0, 65_535, 1023, 8000],
        addresses: CLAIMED.to_vec(),
        sources: AT_EDGES
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()?,
        ..Generator::default()
    };
    generated_by(&generator, FRAMES, text)
}

fn generated_by(generator: &Generator, count: u64, text: &str) -> Result<()> {
    let mut bench = Bench::new(text)?;
    // Some of the ports get blocks of the CPU's own, and some do not.
    let reserved = usize::try_from(blocks::RESERVED)?;
    bench.program.counters().allot(reserved + 8);
    let mut dropped = 0;
    for seed in 0..count {
        let frame = generator.frame(seed);
        let judgement = bench
            .check(&frame)
            .with_context(|| format!("seed {seed}: {frame:02x?}"))?;
        dropped += u64::from(judgement.verdict != Verdict::Pass);
    }
    bench.check_counters()?;
    assert_eq!(bench.tally.rules_met(), bench.ruleset.rules().len());
    assert!(
        dropped > count / 100 && dropped < count,
        "{dropped} of {count} were dropped"
    );
    Ok(())
}

#[test]
fn rows_are_decided_and_counted_alike_without_rules() -> Result<()> {
    rows_under(NO_RULES)
}

#[test]
fn rows_are_decided_and_counted_alike_where_some_ports_are_dropped() -> Result<()> {
    rows_under(SOME_PORTS_DROPPED)
}

#[test]
fn rows_are_decided_and_counted_alike_under_claims_of_exact_addresses() -> Result<()> {
    rows_under(EXACT_ADDRESSES)
}

#[test]
fn rows_are_decided_and_counted_alike_under_ranges() -> Result<()> {
    rows_under(RANGES)
}

#[test]
fn rows_are_decided_and_counted_alike_where_malformed_frames_pass() -> Result<()> {
    rows_under(MALFORMED_PASS)
}

#[test]
fn rows_are_decided_and_counted_alike_under_lists_of_sources() -> Result<()> {
    rows_under(SOURCES)
}

#[test]
fn rows_are_decided_and_counted_alike_where_ports_are_rejected() -> Result<()> {
    rows_under(REJECTED)
}

#[test]
fn rows_are_decided_and_counted_alike_where_ports_go_elsewhere() -> Result<()> {
    rows_under(REDIRECTED)
}

#[test]
fn generated_frames_are_decided_and_counted_alike_where_ports_go_elsewhere() -> Result<()> {
    generated_frames_under(REDIRECTED)
}

#[test]
fn generated_frames_are_decided_and_counted_alike_where_ports_are_rejected() -> Result<()> {
    generated_frames_under(REJECTED)
}

#[test]
fn generated_frames_are_decided_and_counted_alike_without_rules() -> Result<()> {
    generated_frames_under(NO_RULES)
}

#[test]
fn generated_frames_are_decided_and_counted_alike_where_some_ports_are_dropped() -> Result<()> {
    generated_frames_under(SOME_PORTS_DROPPED)
}

#[test]
fn generated_frames_are_decided_and_counted_alike_under_claims_of_exact_addresses() -> Result<()> {
    generated_frames_under(EXACT_ADDRESSES)
}

#[test]
fn generated_frames_are_decided_and_counted_alike_under_ranges() -> Result<()> {
    generated_frames_under(RANGES)
}

#[test]
fn generated_frames_are_decided_and_counted_alike_where_malformed_frames_pass() -> Result<()> {
    generated_frames_under(MALFORMED_PASS)
}

#[test]
fn generated_frames_are_decided_and_counted_alike_under_lists_of_sources() -> Result<()> {
    generated_frames_under(SOURCES)
}

/// Lists that fill nodes and leaves: prefixes of every length, crowded and far from each other.
fn many_sources() -> String {
    let v4 = (0..30_000_u32).map(|number| {
        let spread = number.wrapping_mul(0x9e37_79b1);
        format!("\"{}\", ", Ipv4Addr::from(spread))
    });
    let crowd = (0..3_000_u32).map(|number| {
        let address = Ipv4Addr::from(0xc000_0000 + number * 4);
        format!("\"{address}/{}\", ", 30 + number % 3)
    });
    let v6 = (0..20_000_u128).map(|number| {
        let high = ((0x2001_0db8_u128 << 32) | (number * 2)) << 64;
        let (low, length) = match number % 4 {
            0 => (number << 8, 128),
            1 => (number << 16, 120),
            _ => (0, 64),
        };
        format!("\"{}/{length}\", ", Ipv6Addr::from(high | low))
    });
    let hosts = (0..5_000_u128).map(|number| {
        let address = Ipv6Addr::from((0x2001_0db8_u128 << 96) | (number * 3));
        format!("\"{address}\", ")
    });
    let all: String = v4.chain(crowd).chain(v6).chain(hosts).collect();
    format!("{SOURCES}\n[[rule]]\nname = \"many\"\nport = \"0-65535/udp\"\ndeny = [{all}]\n")
}

#[test]
fn generated_frames_are_decided_and_counted_alike_under_tens_of_thousands_of_sources() -> Result<()>
{
    generated_frames_under(&many_sources())
}

/// More lists than a class has bits for.
fn many_lists() -> String {
    let (mut sets, mut all) = (String::new(), Vec::new());
    for (number, address) in AT_EDGES.iter().enumerate() {
        let _ = writeln!(sets, "edge{number} = \"{address}\"\nbeside{number} = []");
        if number % 3 != 0 {
            all.push(format!("\"@edge{number}\", \"@beside{number}\""));
        }
    }
    let (head, rest) = SOURCES.split_at("\n[sets]\n".len());
    let all = all.join(", ");
    format!(
        "{head}{sets}{rest}\n[[rule]]\nname = \"many\"\nport = \"0-65535/udp\"\ndeny = [{all}]\n"
    )
}

#[test]
fn generated_frames_are_decided_and_counted_alike_under_dozens_of_lists() -> Result<()> {
    generated_frames_under(&many_lists())
}

#[test]
fn rows_are_decided_and_counted_alike_where_fragments_are_dropped() -> Result<()> {
    rows_under(FRAGMENTS_DROPPED)
}

#[test]
fn generated_frames_are_decided_and_counted_alike_where_fragments_are_dropped() -> Result<()> {
    generated_frames_under(FRAGMENTS_DROPPED)
}

#[test]
fn generated_frames_in_several_buffers_are_decided_and_counted_alike() -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let generator = Generator {
        data: 20_000,
        addresses: CLAIMED.to_vec(),
        sources: AT_EDGES
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()?,
        ..Generator::default()
    };
    generated_by(&generator, FRAMES / 10, SOME_PORTS_DROPPED)
}

/// The first buffer of a test run ends after 3,520 bytes: a page less the headroom and what the
/// kernel keeps at its end (Linux 6.18, `net/bpf/test_run.c`, `bpf_prog_test_run_xdp`).
const FIRST_BUFFER: usize = 3520;

#[test]
fn headers_are_read_wherever_the_first_buffer_ends() -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let mut bench = Bench::new(SOME_PORTS_DROPPED)?;
    let segment = frames::ipv6(frames::tcp(40_000, 443).with(|tcp| tcp.data = vec![0x55; 3000]));
    let segment = segment.payload_bytes();
    let mut ends = 0;
    // Options of about 3.4 KB push the TCP header over the end of the buffer, 4 bytes at a time.
    for (tags, words, length) in (0..3).flat_map(|tags| {
        (0..30).flat_map(move |words| [0, 4, 19, 20, 21, 3020].map(|length| (tags, words, length)))
    }) {
        let packet = frames::ipv6(frames::other(TCP, &segment[..length]))
            .then(frames::extension(HOP_BY_HOP, 240))
            .then(frames::extension(DESTINATION_OPTIONS, 182))
            .then(frames::authentication(words));
        let frame = (0..tags).fold(packet.frame(), |frame, _| frame.tag(VLAN, 7));
        let bytes = frame.bytes();
        let header = bytes.len() - length;
        ends += usize::from(header < FIRST_BUFFER && FIRST_BUFFER < header + 20);
        let name = || format!("{length} bytes of TCP at {header}");
        let judgement = bench.check(&bytes).with_context(name)?;
        let reason = if length < 20 { "l4_short" } else { "rule_drop" };
        assert_eq!(judgement.reason, reason, "{}", name());
    }
    assert!(ends > 10, "only {ends} headers lie over the end");
    bench.check_counters()
}

#[test]
fn a_packet_in_several_buffers_whose_length_lies_has_no_ports() -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let mut bench = Bench::new(SOME_PORTS_DROPPED)?;
    let segment = || frames::tcp(40_000, 443).with(|tcp| tcp.data = vec![0x55; 8000]);
    let packet = frames::ipv4(segment());
    let truth = u16::try_from(packet.bytes().len())?;
    for (total_length, reason) in [
        (truth, "rule_drop"),
        (truth + 1, "ip4_totlen_long"),
        (u16::MAX, "ip4_totlen_long"),
        // The rest is padding, in whichever buffer it lies.
        (truth - 1, "rule_drop"),
        (40, "rule_drop"),
        (39, "l4_short"),
        (20, "l4_short"),
        (19, "ip4_totlen_small"),
        (0, "ip4_totlen_small"),
    ] {
        let frame = packet
            .clone()
            .with(|ip| ip.total_length = Some(total_length));
        let judgement = bench.check(&frame.frame().bytes())?;
        assert_eq!(judgement.reason, reason, "total length {total_length}");
    }
    let packet = frames::ipv6(segment());
    let truth = u16::try_from(packet.bytes().len() - 40)?;
    for (payload_length, reason) in [
        (truth + 1, "ip6_plen_long"),
        (truth - 1, "rule_drop"),
        (20, "rule_drop"),
        (19, "l4_short"),
        (0, "l4_short"),
    ] {
        let frame = packet
            .clone()
            .with(|ip| ip.payload_length = Some(payload_length));
        let judgement = bench.check(&frame.frame().bytes())?;
        assert_eq!(judgement.reason, reason, "payload length {payload_length}");
    }
    bench.check_counters()
}

#[test]
fn a_ruleset_that_is_replaced_leaves_the_counters_and_decides_at_once() -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    let frame = frames::ipv4(frames::tcp(40_000, 443)).frame().bytes();
    let (drop, pass) = (
        Basis::from_text("drop", SOME_PORTS_DROPPED)?,
        Basis::from_text("pass", NO_RULES)?,
    );
    let mut program = ShadowProgram::load(&drop.image, &ShadowKind::default())?;
    for generation in 1..=10 {
        let basis = if generation % 2 == 0 { &drop } else { &pass };
        let mut image = basis.image.image.clone();
        image.header.generation = generation;
        program.set_ruleset(&image)?;
        let run = program.run(&frame)?;
        let verdict = if generation % 2 == 0 {
            Verdict::Drop
        } else {
            Verdict::Pass
        };
        assert_eq!([run.action], actions_of(verdict), "generation {generation}");
    }
    let counters = program.counters();
    let traffic = counters.port(Transport::Tcp, 443);
    assert_eq!((traffic.received.packets, traffic.dropped.packets), (10, 5));
    Ok(())
}
