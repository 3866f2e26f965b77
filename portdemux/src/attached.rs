//! Which interfaces an instance has, and what became of them.

use anyhow::Result;
use portdemux_common::{blocks::Counter, state::Mode};

use crate::{
    dataplane::links,
    instance::{Instance, pinned},
    interface, maps,
};

/// An interface of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedInterface {
    /// Its slot.
    pub slot: usize,
    /// Its name when it was attached.
    pub name: String,
    /// What it is called today, if that is something else.
    pub renamed: Option<String>,
    /// Its index.
    pub index: u32,
    /// Where the program runs.
    pub mode: &'static str,
    /// Whether it runs.
    pub state: AttachState,
    /// Version of the binary that attached it.
    pub version: String,
    /// Everything that came in.
    pub received: Counter,
    /// The part of it that was dropped.
    pub dropped: Counter,
}

/// Whether a program runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachState {
    /// It runs.
    Attached,
    /// It was taken off.
    Detached,
    /// The interface is gone.
    Vanished,
    /// An interface of that name is there again, without the program.
    Returned,
    /// It lies in another network namespace, where this process cannot look.
    Elsewhere,
}

impl AttachState {
    /// Whether a program runs on the interface, as far as this process can see.
    #[must_use]
    pub const fn is_attached(self) -> bool {
        matches!(self, Self::Attached | Self::Elsewhere)
    }

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Detached => "detached",
            Self::Vanished => "vanished",
            Self::Returned => "returned",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// Looks at every interface that the instance knows.
///
/// # Errors
///
/// The kernel does not list its interfaces.
pub fn interfaces(instance: &Instance) -> Result<Vec<AttachedInterface>> {
    let present = interface::list()?;
    let here = interface::namespace()?;
    let pinned = pinned::pinned(&instance.paths)?;
    let attached = instance.maps.interfaces().into_iter().map(|(slot, known)| {
        let name = maps::text(&known.name);
        let link = pinned.iter().find(|link| link.slot == slot);
        let carrier = link.and_then(|link| link.carrier(&present));
        let state = match (link, carrier) {
            (None, _) => AttachState::Detached,
            (Some(_), Some(_)) => AttachState::Attached,
            (Some(_), None) if known.netns != here => AttachState::Elsewhere,
            (Some(_), None) if present.iter().any(|interface| interface.name == name) => {
                AttachState::Returned
            }
            (Some(_), None) => AttachState::Vanished,
        };
        // What was written down is for an interface that cannot be asked.
        let mode = link
            .zip(carrier)
            .and_then(|(link, carrier)| links::mode_of(link.program?, carrier))
            .unwrap_or(if known.mode == Mode::Generic as u32 {
                Mode::Generic
            } else {
                Mode::Native
            });
        let (mut received, mut dropped) = (Counter::default(), Counter::default());
        for outcome in instance.maps.counters.interface(slot) {
            add(&mut received, outcome.counter);
            if outcome.verdict.is_dropped() {
                add(&mut dropped, outcome.counter);
            }
        }
        AttachedInterface {
            slot,
            renamed: carrier
                .map(|carrier| carrier.name.clone())
                .filter(|today| *today != name),
            name,
            index: known.index,
            mode: links::mode_name(mode),
            state,
            version: maps::text(&known.version),
            received,
            dropped,
        }
    });
    Ok(attached.collect())
}

fn add(sum: &mut Counter, counter: Counter) {
    sum.packets += counter.packets;
    sum.bytes += counter.bytes;
}
