//! What a ruleset does with a frame and what is counted then, written down a second time.
//!
//! Nothing here is compiled, indexed or hashed: every rule is looked at for every frame.

use std::collections::BTreeMap;

use portdemux::{
    maps::counters::{Counters, Traffic},
    rules::{Destination, Layer, Ruleset, destination::Fallback},
};
use portdemux_common::{
    blocks::Counter,
    ids::RuleId,
    policy::Fragments,
    reason::Verdict,
    wire::{Port, Transport},
};
use portdemux_tests::{
    answer::{Answer, Class, Fragment},
    reference::claims,
};

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// What happens to it.
    pub(crate) verdict: Verdict,
    /// Why.
    pub(crate) reason: &'static str,
    /// The place of the rule that claims its port.
    pub(crate) rule: Option<RuleId>,
}

/// Says what is to become of a frame of which `answer` is to be said.
pub(crate) fn judge(ruleset: &Ruleset, malformed: Verdict, answer: &Answer) -> Judgement {
    let without_rule = |verdict, reason| Judgement {
        verdict,
        reason,
        rule: None,
    };
    match answer.class {
        Class::Malformed => without_rule(malformed, answer.reason.unwrap_or("no reason")),
        Class::NonIp => without_rule(Verdict::Pass, "non_ip"),
        Class::NoPorts if answer.fragment == Fragment::Later => {
            let verdict = match ruleset.defaults().fragments {
                Fragments::Pass => Verdict::Pass,
                Fragments::Drop | Fragments::Track => Verdict::Drop,
            };
            without_rule(verdict, "later_fragment")
        }
        Class::NoPorts => without_rule(Verdict::Pass, "no_ports"),
        Class::Ports => match claims::claim(ruleset, Layer::Destination, answer) {
            None => without_rule(Verdict::Pass, "unclaimed"),
            Some(position) => {
                let rule = &ruleset.rules()[position];
                let refusal = answer
                    .source
                    .and_then(|source| claims::refusal(ruleset, rule, source));
                let (verdict, reason) = match (refusal, &rule.to) {
                    (Some(reason), _) => (Verdict::Drop, reason),
                    (None, Destination::Local) => (Verdict::Pass, "rule_local"),
                    (None, Destination::Drop) => (Verdict::Drop, "rule_drop"),
                    (None, Destination::Reject) => (Verdict::Reject, "rule_reject"),
                    (None, Destination::Socket(_)) => (Verdict::Pass, "rule_socket"),
                    (None, Destination::Interface(_)) => (Verdict::Redirect, "rule_interface"),
                    (None, Destination::Cpus(_)) => (Verdict::Redirect, "rule_cpu"),
                    (None, Destination::Xsk(_)) => (Verdict::Redirect, "rule_xsk"),
                };
                Judgement {
                    verdict,
                    reason,
                    rule: RuleId::try_from(position).ok(),
                }
            }
        },
    }
}

impl Judgement {
    /// What becomes of the frame where no destination of any rule is there.
    pub(crate) fn where_nothing_is(self, ruleset: &Ruleset) -> Self {
        let Some(rule) = self.rule.filter(|_| self.verdict == Verdict::Redirect) else {
            return self;
        };
        let rule = &ruleset.rules()[rule as usize];
        let verdict = match rule.delivery.fallback.or(rule.to.usual_fallback()) {
            None | Some(Fallback::Local) => Verdict::Pass,
            Some(Fallback::Drop) => Verdict::Drop,
            Some(Fallback::Reject) => Verdict::Reject,
        };
        let reason = match self.reason {
            "rule_cpu" => "no_cpu",
            "rule_xsk" => "no_xsk",
            _ => "no_interface",
        };
        Self {
            verdict,
            reason,
            ..self
        }
    }
}

fn entry_point(answer: &Answer) -> Option<(Transport, u16)> {
    let (transport, _, to) = claims::ports(answer)?;
    Some((transport, to))
}

/// All counters that are not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    interface: BTreeMap<(Verdict, &'static str), Numbers>,
    ports: BTreeMap<(Transport, u16), (Numbers, Numbers)>,
    rules: BTreeMap<RuleId, (Numbers, Numbers)>,
}

/// Packets and bytes.
type Numbers = (u64, u64);

impl Tally {
    /// What the kernel counted, for the first `rules` rules.
    pub(crate) fn read(counters: &Counters, rules: usize) -> Self {
        let outcomes = counters.outcomes();
        assert_eq!(
            outcomes,
            counters.interface(0),
            "another interface's counters moved"
        );
        let mut tally = Self::default();
        for outcome in outcomes {
            let key = (outcome.verdict, outcome.reason.name());
            tally.interface.insert(key, numbers(outcome.counter));
        }
        let ports = counters.ports();
        for transport in Transport::ALL {
            for port in 0..=u16::MAX {
                let traffic = ports[Port::new(port).index(transport)];
                if traffic != Traffic::default() {
                    tally.ports.insert((transport, port), both(traffic));
                }
            }
        }
        for (id, traffic) in (0..).zip(counters.rules(rules)) {
            if traffic != Traffic::default() {
                tally.rules.insert(id, both(traffic));
            }
        }
        tally
    }

    /// Counts a frame as it is to be counted.
    pub(crate) fn add(&mut self, frame: &[u8], answer: &Answer, judgement: Judgement) {
        let bytes = frame.len() as u64;
        let count = |numbers: &mut Numbers| {
            numbers.0 += 1;
            numbers.1 += bytes;
        };
        let count_both = |(received, dropped): &mut (Numbers, Numbers)| {
            count(received);
            if judgement.verdict != Verdict::Pass {
                count(dropped);
            }
        };
        let outcome = (judgement.verdict, judgement.reason);
        count(self.interface.entry(outcome).or_default());
        if let Some(port) = entry_point(answer) {
            count_both(self.ports.entry(port).or_default());
        }
        if let Some(rule) = judgement.rule {
            count_both(self.rules.entry(rule).or_default());
        }
    }

    /// How many rules met a frame.
    pub(crate) fn rules_met(&self) -> usize {
        self.rules.len()
    }
}

fn both(traffic: Traffic) -> (Numbers, Numbers) {
    (numbers(traffic.received), numbers(traffic.dropped))
}

fn numbers(counter: Counter) -> Numbers {
    (counter.packets, counter.bytes)
}
