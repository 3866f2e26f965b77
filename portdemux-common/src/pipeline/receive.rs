//! A frame that came in.

use core::{borrow::Borrow as _, hint::cold_path};

use super::{Finish, Hook, Ingress, Scratch, deliver::deliver, fragment, parse};
use crate::{
    conntrack::{self, Direction, Relation, TrackedPacket},
    decide::{self, Metadata},
    decision::{Decision, Outcome},
    destination,
    ids::Generation,
    packet::Packet,
    parse::Parsed,
    reason::{Reason, Verdict},
    ruleset::RulesetTables,
    sockets,
};

/// Reads a frame, decides about it and counts it; returns what happens to it.
///
/// Who sent what is rejected is told by the hook, once it has the verdict.
#[inline(always)]
pub fn receive<E: Ingress>(environment: E) -> Option<Verdict> {
    let step = decide_by_port(environment);
    // Not by a closure, of which the compiler may make a program of its own, with a stack of its own.
    match step.deferred {
        Some(deferred) => Some(decide_deferred(environment, deferred)),
        None => step.verdict,
    }
}

/// How far a frame has come: it has its verdict, or it is deferred, or, if there is neither, a map has no element.
struct Step<E: Hook> {
    verdict: Option<Verdict>,
    deferred: Option<Deferred<E>>,
}

/// A packet that more than its port decides about.
struct Deferred<E: Hook> {
    scratch: E::Scratch,
    ruleset: E::Ruleset,
}

/// Decides about a frame by its port and counts it, or defers it.
#[inline(always)]
fn decide_by_port<E: Ingress>(environment: E) -> Step<E> {
    parse(environment, ByPort(environment))
}

/// Decides about a frame that was read.
#[derive(Clone, Copy)]
struct ByPort<E>(E);

impl<E: Ingress> Finish for ByPort<E> {
    type Output = Step<E>;

    #[inline(always)]
    fn finish(self, parsed: &Parsed, length: usize, scattered: bool) -> Step<E> {
        let Self(environment) = self;
        let mut step = Step {
            verdict: None,
            deferred: None,
        };
        // Asked for only here, the ruleset takes no register from the parser.
        let Some(ruleset) = environment.ruleset() else {
            return step;
        };
        let length = length as u64;
        let decision = match decide::by_port(parsed, ruleset.borrow()) {
            Ok(decision) => decision,
            Err(entry) => {
                cold_path();
                if let Some(mut scratch) = environment.scratch() {
                    let generation = Generation(ruleset.borrow().header().generation);
                    scratch
                        .metadata
                        .write_down(parsed, entry, generation, length, scattered);
                    step.deferred = Some(Deferred { scratch, ruleset });
                }
                return step;
            }
        };
        environment.see(decision.outcome());
        let port = parsed
            .ports()
            .map(|ports| ports.destination.index(ports.transport));
        environment.count(length, port, &decision);
        step.verdict = Some(decision.verdict);
        step
    }
}

/// Decides about a packet that was deferred, and counts it.
#[inline(always)]
fn decide_deferred<E: Ingress>(environment: E, deferred: Deferred<E>) -> Verdict {
    let Deferred {
        mut scratch,
        ruleset,
    } = deferred;
    let (scratch, ruleset): (&mut Scratch, &E::Rules) = (&mut scratch, ruleset.borrow());
    environment.barrier();
    if !E::TRACKS_FLOWS
        && scratch.metadata.scattered == 0
        && let Some(decision) = scratch
            .metadata
            .decide_by_address(&environment.frame(), ruleset)
    {
        environment.see(decision.outcome());
        let (length, port) = (scratch.metadata.length, scratch.metadata.port);
        environment.count_known(length, port as usize, &decision);
        return decision.verdict;
    }
    environment.barrier();
    if E::SCATTERS && scratch.metadata.scattered != 0 {
        cold_path();
        read::<E, _>(&mut scratch.metadata, &environment.whole());
    } else {
        read::<E, _>(&mut scratch.metadata, &environment.frame());
    }
    environment.barrier();
    if scratch.metadata.is_fragment() {
        cold_path();
        if scratch.metadata.follows(ruleset) {
            return fragment::follow(environment, scratch, ruleset);
        }
    }
    scratch.metadata.claim(ruleset);
    environment.barrier();
    if E::TRACKS_FLOWS {
        find_flow(environment, scratch, ruleset);
        environment.barrier();
    }
    cast_shadow(environment, scratch, ruleset);
    environment.barrier();
    let relation = relation::<E>(scratch);
    let tables = environment.tables();
    let decision = scratch.metadata.decide(ruleset, tables, relation);
    let decision = find_socket(environment, &mut scratch.metadata, ruleset, decision);
    if E::TRACKS_FLOWS {
        scratch.tracked.outcome = decision.outcome().0;
        environment.barrier();
        note_flow(environment, scratch, ruleset);
        let outcome = Outcome(scratch.tracked.outcome);
        return conclude(environment, scratch, ruleset, outcome);
    }
    if scratch.metadata.is_fragment() || matches!(decision.verdict, Verdict::Redirect) {
        cold_path();
        let outcome = decision.outcome();
        return conclude(environment, scratch, ruleset, outcome);
    }
    environment.see(decision.outcome());
    let (length, port) = (scratch.metadata.length, scratch.metadata.port);
    environment.count(length, Some(port as usize), &decision);
    decision.verdict
}

/// Remembers a first fragment for the others of its packet; sends a packet on its way, and counts it.
#[inline(always)]
fn conclude<E: Ingress>(
    environment: E,
    scratch: &mut Scratch,
    ruleset: &E::Rules,
    outcome: Outcome,
) -> Verdict {
    if scratch.metadata.leads(ruleset) {
        cold_path();
        return fragment::lead(environment, scratch, outcome);
    }
    deliver(
        environment,
        &scratch.metadata,
        scratch.metadata.port,
        outcome,
    )
}

/// Reads what matters of a packet. Without flows its signal only does if it has no ports; what answers a packet reads it
/// by itself.
#[inline(always)]
fn read<E: Ingress, P: Packet>(metadata: &mut Metadata, packet: &P) {
    metadata.read_addresses(packet);
    if E::TRACKS_FLOWS || !metadata.has_ports() {
        metadata.read_signal(packet);
    }
    metadata.read_extent(packet);
}

/// Looks for the flow of a packet, or for that of the packet that it quotes if it is an ICMP error.
#[inline(always)]
fn find_flow<E: Ingress>(environment: E, scratch: &mut Scratch, ruleset: &E::Rules) {
    let Scratch {
        metadata,
        tracked,
        quoted,
        ..
    } = scratch;
    if ruleset.header().defaults.flows == 0 {
        cold_path();
        *tracked = TrackedPacket::OF_NO_FLOW;
        return;
    }
    if metadata.is_error() {
        cold_path();
        metadata.read_quoted(&environment.frame(), quoted);
        *tracked = quoted.quoted();
    } else {
        *tracked = metadata.received();
    }
    environment.barrier();
    if tracked.tuple.is_none() {
        return;
    }
    let tables = environment.tables();
    conntrack::seek(tables, tracked, environment.tick());
    environment.barrier();
    conntrack::relate(tables, tracked);
    environment.barrier();
    metadata.is_known = u8::from(tracked.is_known != 0);
}

/// How the packet stands to the flows that are known.
#[inline(always)]
const fn relation<E: Ingress>(scratch: &Scratch) -> Relation {
    if E::TRACKS_FLOWS {
        Relation::of(scratch.tracked.relation)
    } else {
        Relation::New
    }
}

/// Counts what the shadow would do that the packet has, if it has one.
#[inline(always)]
fn cast_shadow<E: Ingress>(environment: E, scratch: &Scratch, ruleset: &E::Rules) {
    let metadata = &scratch.metadata;
    if metadata.shadow.is_claimed() {
        cold_path();
        let would = metadata.shadow(ruleset, environment.tables(), relation::<E>(scratch));
        environment.count_shadow(metadata.length, &would);
    }
}

/// What becomes of a packet that was decided about, if it is for a socket and none is there.
#[inline(always)]
fn find_socket<E: Ingress>(
    environment: E,
    metadata: &mut Metadata,
    ruleset: &E::Rules,
    decision: Decision,
) -> Decision {
    if !matches!(decision.reason, Reason::RuleSocket) || !environment.knows_destinations() {
        return decision;
    }
    cold_path();
    if !E::TRACKS_FLOWS {
        metadata.read_signal(&environment.frame());
    }
    if !sockets::will_ask(metadata) {
        return decision;
    }
    match ruleset.target(decision.entry.rule()) {
        Some(target) if !environment.has_socket(metadata, target) => {
            destination::fall_back(decision.entry, target)
        }
        Some(_) | None => decision,
    }
}

/// Notes a packet in its flow, and what came of it.
#[inline(always)]
fn note_flow<E: Ingress>(environment: E, scratch: &mut Scratch, ruleset: &E::Rules) {
    let Scratch {
        metadata, tracked, ..
    } = scratch;
    if tracked.tuple.is_none() {
        return;
    }
    if tracked.is_error == 0 {
        let tables = environment.tables();
        let passes = !Outcome(tracked.outcome).is_dropped();
        let timeouts = &ruleset.header().defaults.timeouts;
        conntrack::receive(tables, tracked, passes, metadata.may_begin(), timeouts);
        environment.barrier();
        conntrack::remember(tables, tracked, Direction::Received, timeouts);
        environment.barrier();
    }
    if tracked.is_counted() {
        environment.count_relation(tracked.port as usize, tracked.relation as usize);
    }
}
