//! What happens while something is done that its result does not say.

use std::{fmt, sync::Arc};

use super::attach::AttachedTo;
use crate::{error::told, instance::InstanceName, upgrade::Upgraded};

/// Something that a user should know at once.
#[derive(Debug)]
pub enum Event {
    /// It goes on, and not all is as one would think.
    Warning {
        /// What is so.
        what: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// Something of use.
    Note(String),
    /// It could not be done, and something else is done instead.
    Failed(anyhow::Error),
    /// The kernel verifies programs, which takes a while.
    Verifying,
    /// It has verified them, or does no more.
    Verified,
    /// An interface has the program.
    Attached(AttachedTo),
    /// An interface has the program no more.
    Detached(String),
    /// An interface that got the program has none again, as another could not have it.
    DetachedAgain(String),
    /// An instance of another version, or one whose programs were another binary's, became one of this.
    Upgraded(InstanceName, Upgraded),
}

impl Event {
    /// A warning that something is not as it should be, why, and what to do.
    #[must_use]
    pub fn warning_of(what: impl fmt::Display, error: &anyhow::Error) -> Self {
        let (causes, help) = told(error);
        Self::Warning {
            what: format!("{what}: {causes}"),
            help,
        }
    }
}

/// Who is told of events.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(Event) + Send + Sync>);

impl Events {
    /// A function that is called with each, on the thread that it happens on.
    pub fn new(tell: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Tells of one.
    pub(super) fn tell(&self, event: Event) {
        (self.0)(event);
    }

    pub(super) fn warn(&self, what: impl Into<String>, help: Option<String>) {
        self.tell(Event::Warning {
            what: what.into(),
            help,
        });
    }

    pub(super) fn warn_of(&self, what: impl fmt::Display, error: &anyhow::Error) {
        self.tell(Event::warning_of(what, error));
    }

    /// Says that programs are verified for as long as what it returns lives.
    pub(super) fn verifying(&self) -> Verifying<'_> {
        self.tell(Event::Verifying);
        Verifying(self)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

pub(super) struct Verifying<'e>(&'e Events);

impl Drop for Verifying<'_> {
    fn drop(&mut self) {
        self.0.tell(Event::Verified);
    }
}
