//! The ruleset under which frames are explained.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
};

use anyhow::Result;
use portdemux_common::{conntrack::Direction, ids::RuleId, parse};

use super::{Explained, Shadow, packet_state::PacketState};
use crate::{
    clock::Clock,
    dataplane::shadow_program::ShadowProgram,
    figures::width,
    host::{Host, Presence, State},
    image::{self, Compiled},
    maps::flows::shape_with,
    rules::{RulesError, Ruleset, file},
};

/// A ruleset as packets are decided by it, the names of its rules and, if it is to be had, its text.
pub struct Basis<'s> {
    /// What packets are decided by.
    pub image: Compiled,
    /// The names of the rules by id.
    names: HashMap<RuleId, String>,
    text: Option<(String, Ruleset)>,
    /// What is remembered from frame to frame.
    state: RefCell<State<'s>>,
    /// Which destinations are there.
    presence: Box<Presence<'s>>,
    /// Whether each frame follows those that were explained before.
    tracks: bool,
    /// The time at which the last frame was explained: `CLOCK_MONOTONIC` in nanoseconds.
    now: Cell<u64>,
    /// When the first frame was captured, and when it was explained.
    begun: Cell<Option<(u64, u64)>>,
}

impl<'s> Basis<'s> {
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
        // Whoever has a capture explained aims at nobody's buckets.
        let shape = shape_with(image.header.flows, image.header.half_open, 0);
        Self {
            image,
            names,
            text: None,
            state: RefCell::new(State::empty(shape)),
            presence: Box::new(|_, _, _| true),
            tracks: false,
            now: Cell::new(0),
            begun: Cell::new(None),
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

    /// Adds what an instance remembers, and which destinations are there.
    #[must_use]
    pub fn with_state(mut self, state: State<'s>, presence: Box<Presence<'s>>) -> Self {
        self.state = RefCell::new(state);
        self.presence = presence;
        self
    }

    /// Lets each frame follow those that are explained before it: what they make of flows and rates counts.
    #[must_use]
    pub const fn tracking(mut self) -> Self {
        self.tracks = true;
        self
    }

    /// The secret of the tables of flows.
    pub(crate) fn flows_seed(&self) -> u64 {
        self.state.borrow().shape.seed
    }

    /// Has the shadow program find what the frame found that was explained last.
    pub fn lend_state(&self, program: &ShadowProgram) {
        program.set_state(&self.state.borrow(), self.now.get());
    }

    /// Says what becomes of a frame that comes in; `number` is what it is called. Later fragments go where the first one
    /// of their packet went if that was explained before and the ruleset says so.
    #[must_use]
    pub fn explain<'a>(&'a self, number: u64, bytes: &'a [u8]) -> Explained<'a> {
        self.explain_going(Direction::Received, number, bytes, None)
    }

    /// Explains a frame that comes in or goes out, and was captured at a time in nanoseconds.
    #[must_use]
    pub fn explain_going<'a>(
        &'a self,
        direction: Direction,
        number: u64,
        bytes: &'a [u8],
        captured: Option<u64>,
    ) -> Explained<'a> {
        let now = self.time_of(captured);
        self.now.set(now);
        let mut state = self.state.borrow_mut();
        state.next(self.tracks);
        let host = Host::new(&self.image, &state, now).with_presence(&*self.presence);
        let seen = match direction {
            Direction::Received => host.receive(bytes),
            Direction::Sent => host.send(bytes, 1),
        };
        let decision = seen.decision();
        Explained {
            number,
            bytes,
            parsed: parse::parse(bytes),
            decision,
            rule: decision.rule().map(|id| self.name(id)),
            direction,
            packet_state: PacketState::of(&seen, &state, &self.image, now),
            shadow: seen.shadow().map(|would| Shadow {
                rule: would.rule().map_or("unknown rule", |id| self.name(id)),
                verdict: would.verdict.name(),
                reason: would.reason.name(),
            }),
        }
    }

    /// The time at which a frame is explained: now, and of those that follow one another as long after the first one as it
    /// was captured. None comes before the one before it.
    fn time_of(&self, captured: Option<u64>) -> u64 {
        let clock = || Clock::now().monotonic;
        if !self.tracks {
            return clock();
        }
        let Some(captured) = captured else {
            return self.now.get().max(clock());
        };
        let (first, begun) = self.begun.get().unwrap_or_else(|| {
            let begun = (captured, clock());
            self.begun.set(Some(begun));
            begun
        });
        let time = begun.saturating_add(captured.saturating_sub(first));
        time.max(self.now.get())
    }

    fn name(&self, id: RuleId) -> &str {
        self.names.get(&id).map_or("unknown rule", String::as_str)
    }

    /// How many columns the widest name of a rule takes.
    pub(super) fn widest_name(&self) -> usize {
        let widths = self.names.values().map(|name| width(name));
        widths.max().unwrap_or(0)
    }
}

impl fmt::Debug for Basis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basis")
            .field("header", &self.image.header)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}
