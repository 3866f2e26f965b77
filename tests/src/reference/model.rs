//! Packets that follow one another, written down a second time: what becomes of each, by the rules and by what came before.
//!
//! Nothing here is compiled, indexed or hashed into buckets, and none of the product's code takes part but for the rules
//! as they were read.

use std::net::IpAddr;

use portdemux::rules::{
    Connections, Destination, Flows as RuleFlows, Inbound, Malformed, Rule, Ruleset, rule::Layer,
};
use portdemux_common::{
    conntrack::Relation,
    policy::{Fragments as Later, Icmp, TICK_SHIFT, Timeouts},
    reason::Verdict,
};

use super::{
    claims::{self, claim, refusal},
    facts::{About, Facts, Key},
    flows::{Flows, Packet, Side},
    fragments::Fragments,
    judgement::Judgement,
    rates::Rates,
};
use crate::answer::{Class, Fragment};

/// What is to be said of a packet that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was decided; of a later fragment, about its first one.
    pub judgement: Judgement,
    /// How it stands to the flows that are known, if it is of a kind that has flows.
    pub relation: Option<Relation>,
    /// What the rule would do that is only tried.
    pub shadow: Option<Judgement>,
}

/// What is remembered from packet to packet.
#[derive(Debug)]
pub struct Model {
    flows: Flows,
    rates: Rates,
    fragments: Fragments,
}

/// The rules that hold, and the time in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Now<'r> {
    /// The rules.
    pub ruleset: &'r Ruleset,
    /// Which change of the rules made them.
    pub generation: u64,
    /// The time.
    pub time: u64,
}

impl Now<'_> {
    /// The time in ticks, in which flows and fragments are forgotten.
    const fn tick(&self) -> u64 {
        self.time >> TICK_SHIFT
    }

    fn timeouts(&self) -> Option<Timeouts> {
        self.ruleset.flows().map(RuleFlows::ticks)
    }
}

impl Model {
    /// Nothing was seen yet; `room` is for how many flows of each kind there is room.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self {
            flows: Flows::new(room),
            rates: Rates::default(),
            fragments: Fragments::default(),
        }
    }

    /// Whether the documents leave open what came of some packet: which of several flows gave way.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.flows.is_open
    }

    /// Notes a packet that goes out.
    pub fn send(&mut self, now: &Now<'_>, frame: &[u8]) {
        let (Some(timeouts), facts) = (now.timeouts(), Facts::of(frame)) else {
            return;
        };
        let Some(key) = facts
            .sent()
            .filter(|_| facts.answer.class != Class::Malformed)
        else {
            return;
        };
        self.flows.forget(now.tick());
        let serves = claims::ports(&facts.answer)
            .is_some_and(|(transport, from, _)| claims::serves(now.ruleset, transport, from));
        let packet = Packet {
            serves,
            ..packet(&facts, key, Side::Here, now)
        };
        self.flows.note(&packet, &timeouts);
    }

    /// Says what becomes of a packet that comes in, and notes it.
    pub fn receive(&mut self, now: &Now<'_>, frame: &[u8]) -> Outcome {
        let facts = Facts::of(frame);
        let defaults = now.ruleset.defaults();
        let without_state = |verdict, reason| Outcome {
            judgement: judgement(verdict, reason, None),
            relation: None,
            shadow: None,
        };
        match facts.answer.class {
            Class::NonIp => return without_state(Verdict::Pass, "non_ip"),
            Class::Malformed => {
                let verdict = match defaults.malformed {
                    Malformed::Drop => Verdict::Drop,
                    Malformed::Pass => Verdict::Pass,
                };
                return without_state(verdict, facts.answer.reason.unwrap_or("no reason"));
            }
            Class::Ports | Class::NoPorts => {}
        }
        let is_later = facts.answer.fragment == Fragment::Later;
        let tracked = facts.piece().filter(|_| defaults.fragments == Later::Track);
        if let Some(piece) = tracked.filter(|_| is_later) {
            let known = self.fragments.follow(&piece, now.generation, now.tick());
            let judgement = known.unwrap_or_else(|| unknown_fragment(now, &facts, piece.begin));
            return Outcome {
                judgement,
                relation: None,
                shadow: None,
            };
        }
        let (relation, begins) = self.relate(now, &facts);
        let outcome = Outcome {
            shadow: self.tried(now, &facts, relation, begins),
            judgement: if is_later {
                let verdict = match defaults.fragments {
                    Later::Pass => Verdict::Pass,
                    Later::Drop | Later::Track => Verdict::Drop,
                };
                judgement(verdict, "later_fragment", None)
            } else if facts.answer.ports.is_some() {
                self.with_ports(now, &facts, relation, begins)
            } else {
                without_ports(now, &facts, relation)
            },
            relation,
        };
        let passes = matches!(outcome.judgement.verdict, Verdict::Pass | Verdict::Redirect);
        if let (Some(timeouts), Some(key)) = (now.timeouts(), facts.received())
            && passes
        {
            let packet = packet(&facts, key, Side::Peer, now);
            self.flows.note(&packet, &timeouts);
        }
        if let Some(piece) = tracked {
            self.fragments
                .note(&piece, &outcome.judgement, now.generation, now.tick());
        }
        outcome
    }

    /// How a packet stands to the flows that are known, and whether it begins one.
    fn relate(&mut self, now: &Now<'_>, facts: &Facts<'_>) -> (Option<Relation>, bool) {
        if now.timeouts().is_none() {
            return (None, true);
        }
        self.flows.forget(now.tick());
        if let About::Error(about) = facts.about() {
            let relation = about.map(|key| {
                if self.flows.has(&key) {
                    Relation::Related
                } else {
                    Relation::New
                }
            });
            return (relation, true);
        }
        match facts.received() {
            Some(key) => (
                Some(self.flows.relation(&key)),
                self.flows.begins(&key, facts.signal()),
            ),
            None => (None, true),
        }
    }

    /// What the shadow would do that a packet has.
    fn tried(
        &mut self,
        now: &Now<'_>,
        facts: &Facts<'_>,
        relation: Option<Relation>,
        begins: bool,
    ) -> Option<Judgement> {
        let rule = claim(now.ruleset, Layer::Shadow, &facts.answer)?;
        Some(self.by_rule(now, &now.ruleset.rules()[rule], facts, relation, begins))
    }

    fn with_ports(
        &mut self,
        now: &Now<'_>,
        facts: &Facts<'_>,
        relation: Option<Relation>,
        begins: bool,
    ) -> Judgement {
        let claims = [Layer::Destination, Layer::Source];
        let mut claims = claims
            .into_iter()
            .filter_map(|layer| claim(now.ruleset, layer, &facts.answer));
        if let Some(rule) = claims.next() {
            return self.by_rule(now, &now.ruleset.rules()[rule], facts, relation, begins);
        }
        if relation == Some(Relation::Reply) {
            return judgement(Verdict::Pass, "reply", None);
        }
        let verdict = match now.ruleset.defaults().inbound {
            Inbound::Pass => Verdict::Pass,
            Inbound::Drop => Verdict::Drop,
            Inbound::Reject => Verdict::Reject,
        };
        judgement(verdict, "unclaimed", None)
    }

    /// What a rule does with a packet.
    fn by_rule(
        &mut self,
        now: &Now<'_>,
        rule: &Rule,
        facts: &Facts<'_>,
        relation: Option<Relation>,
        begins: bool,
    ) -> Judgement {
        let source = facts.answer.source.unwrap_or(IpAddr::V4(0.into()));
        let refused = |reason| judgement(Verdict::Drop, reason, Some(rule));
        if let Some(reason) = refusal(now.ruleset, rule, source) {
            return refused(reason);
        }
        let wants_replies = rule.terms.connections == Connections::Established;
        if wants_replies && relation != Some(Relation::Reply) {
            return refused("not_established");
        }
        if !self.rates.admit(rule, source, begins, now.time) {
            return refused("rate_limited");
        }
        let (verdict, reason) = match rule.to {
            Destination::Local => (Verdict::Pass, "rule_local"),
            Destination::Drop => (Verdict::Drop, "rule_drop"),
            Destination::Reject => (Verdict::Reject, "rule_reject"),
            Destination::Socket(_) => (Verdict::Pass, "rule_socket"),
            Destination::Interface(_) => (Verdict::Redirect, "rule_interface"),
            Destination::Cpus(_) => (Verdict::Redirect, "rule_cpu"),
            Destination::Xsk(_) => (Verdict::Redirect, "rule_xsk"),
        };
        judgement(verdict, reason, Some(rule))
    }
}

fn judgement(verdict: Verdict, reason: &'static str, rule: Option<&Rule>) -> Judgement {
    Judgement {
        verdict,
        reason,
        rule: rule.map(|rule| rule.name.clone()),
    }
}

fn packet(facts: &Facts<'_>, key: Key, side: Side, now: &Now<'_>) -> Packet {
    Packet {
        key,
        side,
        signal: facts.signal(),
        may_begin: facts.may_begin(),
        serves: false,
        now: now.tick(),
    }
}

/// What becomes of a packet without ports that is no later fragment.
fn without_ports(now: &Now<'_>, facts: &Facts<'_>, relation: Option<Relation>) -> Judgement {
    match relation {
        Some(Relation::Related) => return judgement(Verdict::Pass, "related", None),
        Some(Relation::Reply) => return judgement(Verdict::Pass, "reply", None),
        Some(Relation::New | Relation::Established) | None => {}
    }
    let is_let_in = match (facts.icmp(), now.ruleset.defaults().icmp) {
        // Of IPv6 neighbours and routers (RFC 4861, RFC 3122, RFC 3971), and who listens to groups (RFC 2710, RFC 3810, RFC
        // 4286).
        (None | Some((true, 130..=137 | 141..=143 | 148 | 149 | 151..=153)), _)
        | (Some((false, 3 | 4 | 5 | 11 | 12) | (true, 1..=4)), Icmp::ErrorsOnly)
        | (_, Icmp::Pass) => true,
        (Some(_), Icmp::Drop | Icmp::ErrorsOnly) => false,
    };
    if is_let_in {
        judgement(Verdict::Pass, "no_ports", None)
    } else {
        judgement(Verdict::Drop, "icmp_policy", None)
    }
}

/// What becomes of a later fragment whose first one is not known.
fn unknown_fragment(now: &Now<'_>, facts: &Facts<'_>, begin: usize) -> Judgement {
    // It could be put over ports or flags.
    let is_in_header = match facts.answer.protocol {
        Some(6) => begin < 20,
        Some(132) => begin < 12,
        _ => begin < 8,
    };
    if is_in_header {
        return judgement(Verdict::Drop, "fragment_overlap", None);
    }
    match now.ruleset.defaults().inbound {
        Inbound::Pass => judgement(Verdict::Pass, "fragment_unknown", None),
        Inbound::Drop | Inbound::Reject => judgement(Verdict::Drop, "fragment_unknown", None),
    }
}
