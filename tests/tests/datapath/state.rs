//! Packets that follow one another, while time goes on and rules change: the pipeline on the host and in the kernel decides
//! about each as the reference model does, which knows flows, rates, fragments and shadows in its own way.
//!
//! The shadow program finds what the host found before each packet, at the same time. The attached programs remember by themselves,
//! but at the time that it is.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use portdemux::{
    clock::Clock,
    dataplane::shadow_program::{ShadowKind, ShadowProgram, actions_of},
    maps::{counters::Outcome as Counted, flows::shape_with},
    rules::file,
};
use portdemux_common::{
    bucket::SLOTS,
    conntrack::{Event, Relation, Shape},
    policy::TICK_SHIFT,
    reason::{Reason, Verdict},
};
use portdemux_tests::{
    answer::Class,
    generate::{Random, traffic::Packets},
    reference::{
        self,
        judgement::Judgement,
        model::{Model, Now},
    },
    require,
    sequence::{
        self, Agreed, Names, Rules, Sequence,
        rulesets::{RULESETS, for_a_month},
    },
};

use crate::{NEEDS, flows::Kernel};

/// How many packets meet a ruleset before the next one is put in force.
const ROUND: usize = 400;
/// For how many packets each sequence goes on.
const LENGTH: usize = 4_000;
/// How many sequences are tried, unless `PORTDEMUX_SEQUENCES` says another number.
const SEQUENCES: u64 = if cfg!(debug_assertions) { 1 } else { 12 };
/// The secret of the tables of flows.
const SEED: u64 = 0x5eed;

/// Holds the kernel to what the host says of a packet, which finds what the host found.
fn hold(
    program: &mut ShadowProgram,
    rules: &Rules,
    names: &Names,
    sequence: &Sequence,
    frame: &[u8],
    agreed: &Agreed,
) -> Result<()> {
    program.set_ruleset(&rules.compiled)?;
    program.set_state(&sequence.state, sequence.time);
    let run = program.run(frame)?;
    let trace = run.trace;
    let reason = Reason::from_index(trace.reason.into()).context("no such reason")?;
    let kernel = Judgement {
        verdict: Verdict::ALL[usize::from(trace.verdict)],
        reason: reason.name(),
        rule: names.of(trace.entry),
    };
    let verdict = agreed.seen.verdict().context("there is no verdict")?;
    ensure!(
        kernel == agreed.outcome.judgement && actions_of(verdict).contains(&run.action),
        "the model says {:?}\n  the kernel {kernel:?}, action {}",
        agreed.outcome,
        run.action
    );
    Ok(())
}

/// What the packets of all sequences came to.
#[derive(Default)]
struct Came {
    /// How many packets, by the reason and by how they stood to flows.
    packets: BTreeMap<(&'static str, &'static str), u64>,
    /// How many packets had a shadow.
    shadows: u64,
    /// What happened to flows.
    events: [u64; Event::ALL.len()],
}

/// How many sequences are to be tried.
fn sequences() -> Result<u64> {
    match std::env::var("PORTDEMUX_SEQUENCES") {
        Ok(number) => number.parse().context("PORTDEMUX_SEQUENCES is no number"),
        Err(_) => Ok(SEQUENCES),
    }
}

/// Sequences of packets where the tables of flows have this shape, and there is room for so many of each kind. No two
/// packets come closer together than `least` nanoseconds.
fn agree(shape: Shape, room: usize, least: u64) -> Result<Came> {
    let (mut rules, names) = sequence::read(&RULESETS)?;
    let kind = ShadowKind {
        flows_seed: shape.seed,
        ..ShadowKind::default()
    };
    let asks_kernel = require::have(NEEDS);
    let programs = rules.iter().filter(|_| asks_kernel);
    let mut programs = programs
        .map(|rules| ShadowProgram::load(&rules.compiled, &kind))
        .collect::<Result<Vec<_>>>()?;
    let mut came = Came::default();
    for seed in 0..sequences()? {
        let mut sequence = Sequence::new(shape, room);
        let traffic = Packets::new(Random::new(seed), least);
        for (number, step) in traffic.take(LENGTH).enumerate() {
            let context = || format!("sequence {seed}, packet {number}: {step:02x?}");
            let changes = seed + u64::try_from(number / ROUND)?;
            let position = usize::try_from(changes)? % rules.len();
            let rules = &mut rules[position];
            let held = sequence.hold(&step, rules, &names, changes);
            if let Some(agreed) = held.with_context(context)? {
                if let Some(program) = programs.get_mut(position)
                    && ShadowProgram::takes(step.frame.len())
                {
                    hold(program, rules, &names, &sequence, &step.frame, &agreed)
                        .with_context(context)?;
                }
                let outcome = agreed.outcome;
                let relation = outcome.relation.map_or("none", Relation::name);
                let key = (outcome.judgement.reason, relation);
                *came.packets.entry(key).or_default() += 1;
                came.shadows += u64::from(outcome.shadow.is_some());
            }
            if sequence.model.is_open() {
                break;
            }
        }
        for (sum, event) in came.events.iter_mut().zip(Event::ALL) {
            *sum += sequence.state.count(event);
        }
    }
    Ok(came)
}

/// Reasons that the packets of the sequences have to come to.
const REASONS: [&str; 17] = [
    "rule_local",
    "rule_drop",
    "rule_reject",
    "source_denied",
    "source_not_allowed",
    "not_established",
    "rate_limited",
    "reply",
    "related",
    "unclaimed",
    "no_ports",
    "later_fragment",
    "fragment_unknown",
    "fragment_overlap",
    "icmp_policy",
    "non_ip",
    "l4_short",
];

#[test]
fn packets_that_follow_one_another_are_decided_as_the_model_does() -> Result<()> {
    let came = agree(shape_with(1 << 16, 1 << 16, SEED), usize::MAX, 0)?;
    let packets = &came.packets;
    for reason in REASONS {
        let mut reasons = packets.keys().map(|(reason, _)| *reason);
        assert!(
            reasons.any(|other| other == reason),
            "{reason}: {packets:?}"
        );
    }
    for relation in Relation::ALL.map(Relation::name) {
        let same = packets.iter().filter(|((_, other), _)| *other == relation);
        let count: u64 = same.map(|(_, packets)| packets).sum();
        assert!(count > 20, "{count} {relation}: {packets:?}");
    }
    assert!(came.shadows > 20, "{} packets had a shadow", came.shadows);
    Ok(())
}

/// Two ticks of the clock by which flows are forgotten: no two flows had their last packet at the same time.
const APART: u64 = 2 << TICK_SHIFT;

#[test]
fn where_there_is_little_room_flows_give_way_as_the_model_says() -> Result<()> {
    let shape = Shape {
        known: 0,
        half_open: 0,
        seed: SEED,
    };
    let came = agree(shape, SLOTS, APART)?;
    for (event, times) in Event::ALL.into_iter().zip(came.events) {
        assert!(times > 0, "nothing was {}", event.name());
    }
    Ok(())
}

/// What an interface's frames came to since `before`: one frame.
fn difference(before: &[Counted], after: &[Counted]) -> Result<(Verdict, &'static str)> {
    let mut more = after.iter().filter(|outcome| {
        let same =
            |other: &&Counted| (other.verdict, other.reason) == (outcome.verdict, outcome.reason);
        before.iter().find(same).map(|other| other.counter.packets) != Some(outcome.counter.packets)
    });
    match (more.next(), more.next()) {
        (Some(one), None) => Ok((one.verdict, one.reason.name())),
        _ => anyhow::bail!("another number of frames than one was counted"),
    }
}

#[test]
fn the_attached_programs_remember_as_the_model_does() -> Result<()> {
    if !require::have(NEEDS) {
        return Ok(());
    }
    for text in RULESETS {
        let text = for_a_month(text);
        let (kernel, _) = Kernel::new(&text)?;
        let ruleset = file::parse("rules", &text)?;
        let counters = &kernel.writer.maps.counters;
        let mut model = Model::new(usize::MAX);
        for (number, step) in Packets::new(Random::new(7), 0).take(LENGTH).enumerate() {
            let context = || format!("packet {number}: {step:02x?}");
            let now = Now {
                ruleset: &ruleset,
                generation: 0,
                time: Clock::now().monotonic,
            };
            if step.is_sent {
                // The kernel takes nothing that ends within its IP header (`bpf_prog_test_run_skb`).
                if reference::answer(&step.frame).class != Class::Malformed {
                    model.send(&now, &step.frame);
                    kernel.send(&step.frame).with_context(context)?;
                }
                continue;
            }
            if !ShadowProgram::takes(step.frame.len()) {
                continue;
            }
            let expected = model.receive(&now, &step.frame);
            let before = counters.interface(0);
            let action = kernel.receive(&step.frame).with_context(context)?;
            let counted = difference(&before, &counters.interface(0)).with_context(context)?;
            let Judgement {
                verdict, reason, ..
            } = expected.judgement;
            ensure!(
                counted == (verdict, reason),
                "the model says {expected:?}, the kernel {counted:?} ({action}): {}",
                context()
            );
        }
    }
    Ok(())
}
