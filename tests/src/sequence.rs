//! Packets that follow one another, while time goes on and rules change, on the host and in the reference model.

pub mod rulesets;

use anyhow::{Result, ensure};
use portdemux::{
    host::{Host, Seen, State},
    image::{self, Compiled},
    rules::{Ruleset, file},
};
use portdemux_common::{
    conntrack::{Relation, Shape},
    decision::Decision,
    entry::Entry,
    ids::RuleId,
};

use crate::{
    generate::traffic::Step,
    reference::{
        judgement::Judgement,
        model::{Model, Now, Outcome},
    },
};

/// When a sequence begins, in nanoseconds.
const BEGIN: u64 = 1 << 50;

/// A ruleset as it was read, and as it is decided by.
pub struct Rules {
    /// As it was read.
    pub ruleset: Ruleset,
    /// As it is decided by.
    pub compiled: Compiled,
}

/// The names of rules by id: a rule keeps its id as long as it has its name.
#[derive(Debug, Default)]
pub struct Names(Vec<String>);

impl Names {
    fn id(&mut self, name: &str) -> RuleId {
        let known = self.0.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        });
        RuleId::try_from(index).unwrap_or_default()
    }

    /// The name of the rule of an entry, if it is claimed.
    #[must_use]
    pub fn of(&self, entry: Entry) -> Option<String> {
        let id = usize::try_from(entry.rule()).unwrap_or_default();
        let name = self.0.get(id).filter(|_| entry.is_claimed());
        name.cloned()
    }

    fn judgement(&self, decision: Decision) -> Judgement {
        Judgement {
            verdict: decision.verdict,
            reason: decision.reason.name(),
            rule: self.of(decision.entry),
        }
    }

    /// What the pipeline says of a packet, in the words of the model.
    fn outcome(&self, seen: &Seen) -> Outcome {
        let tracked = seen.tracked();
        Outcome {
            judgement: self.judgement(seen.decision()),
            relation: tracked.map(|tracked| Relation::of(tracked.relation)),
            shadow: seen.shadow().map(|would| self.judgement(would)),
        }
    }
}

/// The rulesets of these texts.
///
/// # Errors
///
/// One of them is none.
pub fn read(texts: &[&str]) -> Result<(Vec<Rules>, Names)> {
    let mut names = Names::default();
    let rules = texts.iter().map(|text| {
        let ruleset = file::parse("rules", text)?;
        let rules = ruleset.rules().iter();
        let ids: Vec<_> = rules.map(|rule| names.id(&rule.name)).collect();
        let compiled = image::compile(&ruleset, &ids)?;
        Ok(Rules { ruleset, compiled })
    });
    let rules = rules.collect::<Result<Vec<_>>>()?;
    Ok((rules, names))
}

/// What both sides say of a packet that came in.
#[derive(Debug)]
pub struct Agreed {
    /// In the words of the model.
    pub outcome: Outcome,
    /// On its way through the pipeline.
    pub seen: Seen,
}

/// What both sides remember in the middle of a sequence.
#[derive(Debug)]
pub struct Sequence {
    /// On the host.
    pub state: State<'static>,
    /// In the model.
    pub model: Model,
    /// The time in nanoseconds.
    pub time: u64,
}

impl Sequence {
    /// Nothing was seen yet. The tables of flows have this shape; `room` is for how many flows of each kind there is room.
    #[must_use]
    pub fn new(shape: Shape, room: usize) -> Self {
        Self {
            state: State::empty(shape),
            model: Model::new(room),
            time: BEGIN,
        }
    }

    /// Holds the host to what the model says of the next packet, under a ruleset that is in force by a number of changes;
    /// returns what both say, and nothing of one that goes out.
    ///
    /// # Errors
    ///
    /// They differ.
    pub fn hold(
        &mut self,
        step: &Step,
        rules: &mut Rules,
        names: &Names,
        changes: u64,
    ) -> Result<Option<Agreed>> {
        rules.compiled.image.header.generation = changes;
        let Rules { ruleset, compiled } = &*rules;
        self.time += step.pause;
        self.state.next(true);
        let now = Now {
            ruleset,
            generation: changes,
            time: self.time,
        };
        let host = Host::new(compiled, &self.state, self.time);
        if step.is_sent {
            // Where flows are tracked there is a program that sees it.
            if ruleset.flows().is_some() {
                let _seen = host.send(&step.frame, 1);
            }
            self.model.send(&now, &step.frame);
            return Ok(None);
        }
        let seen = host.receive(&step.frame);
        let outcome = self.model.receive(&now, &step.frame);
        let said = names.outcome(&seen);
        ensure!(
            said == outcome,
            "the model says {outcome:?}\n  the host {said:?}"
        );
        Ok(Some(Agreed { outcome, seen }))
    }
}
