//! The ruleset under which frames are explained.

use std::{cell::RefCell, collections::HashMap, fmt};

use anyhow::Result;
use portdemux_common::{flows::Shape, parse, policy::Rate, ruleset::RuleId};

use super::Explained;
use crate::{
    clock::Clock,
    figures::width,
    host::{Host, State},
    image::{self, Compiled},
    rules::{RulesError, Ruleset, file},
};

/// A ruleset as packets are decided by it, the names of its rules and, if it is to be had, its text.
pub struct Basis {
    /// What packets are decided by.
    pub image: Compiled,
    /// The names of the rules by id.
    names: HashMap<RuleId, String>,
    text: Option<(String, Ruleset)>,
    /// What is remembered from frame to frame.
    state: RefCell<State<'static>>,
}

impl Basis {
    /// A ruleset that is in force nowhere, from its text; `file` is what the text's file is called.
    ///
    /// # Errors
    ///
    /// Names every mistake in the text with its line, or says that the sources take too much room.
    pub fn from_text(file: &str, text: &str) -> Result<Self> {
        let ruleset = file::parse(file, text).map_err(RulesError::of_a_reader)?;
        let ids: Vec<RuleId> = (0..).take(ruleset.rules().len()).collect();
        let names = ruleset.rules().iter().map(|rule| rule.name.clone());
        let names = ids.iter().copied().zip(names).collect();
        let basis = Self::in_force(image::compile(&ruleset, &ids)?, names);
        Ok(basis.with_text(file.into(), ruleset))
    }

    /// A ruleset that is in force, as the kernel holds it.
    #[must_use]
    pub fn in_force(image: Compiled, names: HashMap<RuleId, String>) -> Self {
        Self {
            image: without_rates(image),
            names,
            text: None,
            state: RefCell::new(State::empty(Shape::default())),
        }
    }

    /// Adds what the text of the ruleset says and what its file is called.
    #[must_use]
    pub fn with_text(mut self, file: String, ruleset: Ruleset) -> Self {
        self.text = Some((file, ruleset));
        self
    }

    /// What the text says, if it is to be had, and what its file is called.
    #[must_use]
    pub fn text(&self) -> Option<(&str, &Ruleset)> {
        self.text
            .as_ref()
            .map(|(file, ruleset)| (file.as_str(), ruleset))
    }

    /// Says what becomes of a frame; `number` is what it is called. Later fragments go where the first one
    /// of their packet went if that was explained before and the ruleset says so.
    #[must_use]
    pub fn explain<'a>(&'a self, number: u64, bytes: &'a [u8]) -> Explained<'a> {
        let parsed = parse::parse(bytes);
        let mut state = self.state.borrow_mut();
        state.forget_flows();
        let seen = Host::new(&self.image, &state, Clock::now().monotonic).receive(bytes);
        let decision = seen.decision();
        let rule = decision
            .rule()
            .map(|id| self.names.get(&id).map_or("unknown rule", String::as_str));
        Explained {
            number,
            bytes,
            parsed,
            decision,
            rule,
        }
    }

    /// How many columns the widest name of a rule takes.
    pub(super) fn widest_name(&self) -> usize {
        let widths = self.names.values().map(|name| width(name));
        widths.max().unwrap_or(0)
    }
}

/// A ruleset that is asked about single frames: how many there are does not matter.
fn without_rates(mut ruleset: Compiled) -> Compiled {
    let count = ruleset.header.policies as usize;
    for policy in &mut ruleset.image.policies[..count] {
        policy.rate = Rate::default();
        policy.new_rate = Rate::default();
    }
    ruleset
}

impl fmt::Debug for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basis")
            .field("header", &self.image.header)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}
