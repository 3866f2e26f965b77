//! What becomes of a packet, by the terms of the rule whose it is.

use super::Metadata;
use crate::{
    conntrack::Relation,
    decide::{icmp, tracks_fragments},
    decision::Decision,
    entry::{Action, Entry},
    limits::{Limits, RateKey, RateKind},
    policy::{Fragments, Policy},
    reason::{Reason, Verdict},
    ruleset::RulesetTables,
    sources::{Admission, SourceTable},
    wire::IpProto,
};

impl Metadata {
    /// Decides about it, by how it stands to the flows that are known.
    #[inline(always)]
    #[must_use]
    pub fn decide<R: RulesetTables, T: SourceTable + Limits>(
        &self,
        ruleset: &R,
        tables: &T,
        relation: Relation,
    ) -> Decision {
        if !self.has_ports() {
            return self.decide_portless(ruleset, relation);
        }
        let entry = self.entry;
        if entry.is_conditional() {
            return self.on_terms(entry, ruleset, tables, relation);
        }
        if entry.is_claimed() {
            return Decision::claimed(entry);
        }
        let defaults = &ruleset.header().defaults;
        if defaults.flows != 0 && matches!(relation, Relation::Reply) {
            return Decision::pass(Reason::Reply);
        }
        Decision {
            verdict: match Action::from_code(defaults.inbound) {
                Action::Local => Verdict::Pass,
                Action::Reject => Verdict::Reject,
                Action::Drop | Action::Socket | Action::Interface | Action::Cpu | Action::Xsk => {
                    Verdict::Drop
                }
            },
            reason: Reason::Unclaimed,
            entry: entry.closed(),
        }
    }

    /// Says what the shadow would do with it that it has. What a shadow takes of its rates, nobody else
    /// misses.
    #[inline(always)]
    #[must_use]
    pub fn shadow<R: RulesetTables, T: SourceTable + Limits>(
        &self,
        ruleset: &R,
        tables: &T,
        relation: Relation,
    ) -> Decision {
        if self.shadow.is_conditional() {
            self.on_terms(self.shadow, ruleset, tables, relation)
        } else {
            Decision::claimed(self.shadow)
        }
    }

    /// Decides about a packet without ports.
    #[inline(always)]
    fn decide_portless<R: RulesetTables>(&self, ruleset: &R, relation: Relation) -> Decision {
        if self.is_later() {
            return self.decide_later(ruleset);
        }
        match relation {
            Relation::Related => return Decision::pass(Reason::Related),
            Relation::Reply => return Decision::pass(Reason::Reply),
            Relation::New | Relation::Established => {}
        }
        let Some(kind) = icmp::Category::of(self.protocol(), self.flags) else {
            return Decision::pass(Reason::NoPorts);
        };
        if kind.is_let_in(ruleset.header().defaults.icmp) {
            Decision::pass(Reason::NoPorts)
        } else {
            Decision::dropped(Reason::IcmpPolicy, Entry::UNCLAIMED)
        }
    }

    /// Decides about a later fragment of whose first one nothing is known.
    #[inline(always)]
    #[must_use]
    pub fn decide_later<R: RulesetTables>(&self, ruleset: &R) -> Decision {
        let defaults = &ruleset.header().defaults;
        if defaults.fragments == Fragments::Pass as u32 {
            return Decision::pass(Reason::LaterFragment);
        }
        if !tracks_fragments(ruleset) {
            return Decision::dropped(Reason::LaterFragment, Entry::UNCLAIMED);
        }
        // The first one has the whole transport header, or it is malformed (RFC 1858 §3, RFC 3128).
        let header = match IpProto(self.protocol()) {
            IpProto::TCP => 20,
            IpProto::SCTP => 12,
            _ => 8,
        };
        if self.reach * 8 < header {
            return Decision::dropped(Reason::FragmentOverlap, Entry::UNCLAIMED);
        }
        if matches!(Action::from_code(defaults.inbound), Action::Local) {
            Decision::pass(Reason::FragmentUnknown)
        } else {
            Decision::dropped(Reason::FragmentUnknown, Entry::UNCLAIMED)
        }
    }

    /// Decides by the terms of the rule whose it is.
    #[inline(always)]
    fn on_terms<R: RulesetTables, T: SourceTable + Limits>(
        &self,
        entry: Entry,
        ruleset: &R,
        tables: &T,
        relation: Relation,
    ) -> Decision {
        let Some(policy) = ruleset.terms(entry.rule()) else {
            return Decision::dropped(Reason::SourceNotAllowed, entry);
        };
        if policy.has_lists() {
            let sources = &ruleset.header().sources;
            match sources.admit(tables, self.version(), self.source(), &policy) {
                Admission::Admitted => {}
                Admission::Denied => return Decision::dropped(Reason::SourceDenied, entry),
                Admission::NotAllowed => return Decision::dropped(Reason::SourceNotAllowed, entry),
            }
        }
        if policy.is_replies_only() && !matches!(relation, Relation::Reply) {
            return Decision::dropped(Reason::NotEstablished, entry);
        }
        if policy.has_rates() && !self.is_within_rates(entry, &policy, ruleset, tables) {
            return Decision::dropped(Reason::RateLimited, entry);
        }
        Decision::claimed(entry)
    }

    /// Whether the rates of its rule let it in; takes its share of them if so.
    #[inline(always)]
    fn is_within_rates<R: RulesetTables, T: Limits>(
        &self,
        entry: Entry,
        policy: &Policy,
        ruleset: &R,
        limits: &T,
    ) -> bool {
        let each = policy.is_per_source();
        let begins = self.is_known == 0;
        (!begins || self.is_within((entry, RateKind::Flows, each), ruleset, limits))
            && self.is_within((entry, RateKind::Packets, each), ruleset, limits)
    }

    /// Whether a rate of a rule lets it in, each source by itself or all together; takes its share if so.
    ///
    /// No closure, of which the compiler would make a function of its own.
    #[inline(always)]
    fn is_within<R: RulesetTables, T: Limits>(
        &self,
        (entry, kind, each): (Entry, RateKind, bool),
        ruleset: &R,
        limits: &T,
    ) -> bool {
        let Some(rate) = ruleset.rate(entry.rule(), kind) else {
            return false;
        };
        let key = RateKey {
            rule: entry.rule(),
            kind,
            source: self.source(),
            version: self.version(),
            seed: ruleset.header().limits_seed,
        };
        key.may(limits, &rate, each)
    }
}
