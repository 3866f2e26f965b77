//! What a ruleset needs beside itself, and the ruleset, as parts of a change.

use anyhow::{Context as _, Result};
use portdemux_common::{conntrack::Shape, ids::Generation};

use super::transaction::{Feature, if_possible};
use crate::{
    dataplane::{
        self,
        redirect_drops::{self, Program},
        steering,
        tracking::{self, WantedFlows},
    },
    error::{Unavailable, Warning},
    image::Destinations,
    instance::Writer,
    maps::{Prepared, mapped::catching, targets::Needed},
    rules::Ruleset,
};

/// The tables of flows, and the programs that keep them.
pub(super) struct FlowTracking<'a> {
    writer: &'a Writer,
    wanted: Option<WantedFlows>,
    before: Option<Shape>,
}

impl<'a> FlowTracking<'a> {
    pub(super) fn of(writer: &'a Writer, ruleset: &Ruleset) -> Self {
        Self {
            writer,
            wanted: ruleset.flows().map(|flows| WantedFlows {
                flows: flows.slots(),
                half_open: flows.half_open_slots(),
                timeouts: flows.ticks(),
            }),
            before: writer.maps.shape(),
        }
    }
}

impl Feature for FlowTracking<'_> {
    fn prepare(&mut self, _unavailable: &mut Unavailable<'_>) -> Result<()> {
        match &self.wanted {
            // The programs that track obey every ruleset; those that do not would not obey this one.
            Some(wanted) => tracking::begin(self.writer, wanted).context("begin to track flows"),
            None => Ok(()),
        }
    }

    fn roll_back(&mut self) -> Result<()> {
        if let Some(wanted) = &self.wanted {
            if_possible(|| tracking::return_to(self.writer, self.before, &wanted.timeouts));
        }
        Ok(())
    }

    fn retire(&mut self) -> Result<()> {
        match self.wanted {
            Some(_) => Ok(()),
            None => tracking::end(self.writer).context("flows are still tracked"),
        }
    }
}

/// The programs that hand packets to sockets, and which sockets those are.
pub(super) struct SocketSteering<'a> {
    pub(super) writer: &'a Writer,
    /// Where rules lead, by slot.
    pub(super) destinations: Destinations,
}

impl Feature for SocketSteering<'_> {
    fn prepare(&mut self, unavailable: &mut Unavailable<'_>) -> Result<()> {
        steering::begin(self.writer, &self.destinations, unavailable)
    }

    fn roll_back(&mut self) -> Result<()> {
        if_possible(|| steering::end(self.writer, &self.writer.maps.destinations_in_force()));
        Ok(())
    }

    fn retire(&mut self) -> Result<()> {
        steering::end(self.writer, &self.destinations)
            .context("packets are still looked up for sockets")
    }
}

/// The programs that count what targets do not take. Where packets go does not depend on them.
pub(super) struct RedirectDropCounting<'a> {
    writer: &'a Writer,
    ruleset: &'a Ruleset,
    attached: Vec<Program>,
    /// That they do not count.
    pub(super) warning: Option<Warning>,
}

impl<'a> RedirectDropCounting<'a> {
    pub(super) fn of(writer: &'a Writer, ruleset: &'a Ruleset) -> Self {
        Self {
            writer,
            ruleset,
            attached: Vec::new(),
            warning: None,
        }
    }
}

impl Feature for RedirectDropCounting<'_> {
    fn prepare(&mut self, _unavailable: &mut Unavailable<'_>) -> Result<()> {
        let begun = catching(|| {
            self.attached = redirect_drops::missing(&self.writer.paths, self.ruleset)?;
            redirect_drops::attach(self.writer, &self.attached)
        });
        self.warning = begun.err().map(|error| {
            (
                format!("what targets do not take of their packets is not counted: {error:#}"),
                "the counters of the targets say some of it: ip -s link, ethtool -S".into(),
            )
        });
        Ok(())
    }

    fn roll_back(&mut self) -> Result<()> {
        if_possible(|| redirect_drops::detach(self.writer.lock(), &self.attached));
        Ok(())
    }

    fn retire(&mut self) -> Result<()> {
        redirect_drops::end(self.writer.lock(), self.ruleset)
            .context("redirect drops are still counted")
    }
}

/// What stands at the slots of the targets that rules name.
pub(super) struct RedirectTargets<'a> {
    writer: &'a Writer,
    prepared: &'a Prepared,
    before: Needed,
    needed: Needed,
}

impl<'a> RedirectTargets<'a> {
    pub(super) fn of(writer: &'a Writer, prepared: &'a Prepared) -> Self {
        Self {
            writer,
            prepared,
            before: writer.maps.needed_in_force(),
            needed: prepared.needed(),
        }
    }
}

impl Feature for RedirectTargets<'_> {
    fn prepare(&mut self, unavailable: &mut Unavailable<'_>) -> Result<()> {
        let maps = &self.writer.maps;
        maps.stage_targets(self.prepared, &self.before, &self.needed, unavailable)
    }

    fn roll_back(&mut self) -> Result<()> {
        if_possible(|| self.writer.maps.restore_targets(&self.needed));
        Ok(())
    }

    fn retire(&mut self) -> Result<()> {
        // The new ones are in force whether it is cleared or not; what stays at a slot is replaced when the slot is
        // given away.
        if_possible(|| self.writer.maps.clear_targets(&self.before, &self.needed));
        Ok(())
    }
}

/// The ruleset itself.
pub(super) struct RulesInForce<'a> {
    pub(super) writer: &'a Writer,
    pub(super) prepared: &'a Prepared,
    /// Returns to the rules before, if what follows fails.
    pub(super) undo: &'a dyn Fn() -> Result<()>,
    pub(super) generation: Option<Generation>,
}

impl Feature for RulesInForce<'_> {
    fn prepare(&mut self, _unavailable: &mut Unavailable<'_>) -> Result<()> {
        self.writer
            .maps
            .stage_ruleset(self.prepared, &dataplane::renew)
    }

    fn commit(&mut self) -> Result<()> {
        self.generation = Some(self.writer.maps.put_in_force(self.prepared));
        Ok(())
    }

    fn roll_back(&mut self) -> Result<()> {
        let Some(Generation(generation)) = self.generation else {
            return Ok(());
        };
        (self.undo)().map_err(|undo| {
            anyhow::anyhow!(
                "generation {generation} stays in force, as the rules before cannot be put back ({undo:#})"
            )
        })
    }
}
