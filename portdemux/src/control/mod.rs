//! What a program does with an instance.
//!
//! Nothing here prints: what comes of it is returned, and what happens meanwhile is an [`Event`].
//!
//! A change that waits to be confirmed, and rules that name sockets or interfaces, need a process that goes on in the
//! background. That is the installed command, `portdemux`: where it is missing, the first is an error, the others get a
//! warning.

mod apply;
pub mod attach;
mod boot;
mod confirm;
mod detach;
mod edit;
mod event;
mod explain;
mod flows;
mod open;
mod save;
mod sets;
mod sockets;
mod text;

use std::{path::PathBuf, time::Duration};

pub use self::{
    apply::{Applied, Apply},
    edit::Edit,
    event::{Event, Events},
    explain::AskedInstance,
    save::Saved,
    text::RulesText,
};
pub(crate) use self::{boot::Flaw, text::canonical};
use crate::{
    image::Compiled,
    instance::{Instance, InstancePaths, PATIENCE},
    session::Hook,
};

/// An instance, whether it is there or not, and who is told what happens to it.
#[derive(Clone, Debug)]
pub struct Control {
    /// Where it lies.
    pub paths: InstancePaths,
    /// Where rules files lie that are applied at boot.
    pub config: PathBuf,
    /// Where the rules are kept that were last in force from those files.
    pub kept: PathBuf,
    /// How long to wait for another that changes the instance.
    pub patience: Duration,
    /// Who is told.
    pub events: Events,
}

/// Has the last word about what packets would be decided by, on the interfaces that there are and some that join
/// them.
pub type Check<'c> = &'c dyn Fn(&Instance, &[Hook], &Compiled) -> anyhow::Result<()>;

impl Control {
    /// Control of an instance that lies there, with the usual places of files for boot.
    #[must_use]
    pub fn new(paths: InstancePaths, events: Events) -> Self {
        Self {
            paths,
            config: "/etc/portdemux".into(),
            kept: "/var/lib/portdemux".into(),
            patience: PATIENCE,
            events,
        }
    }

    /// The command for this instance, as a user writes it.
    pub(crate) fn command(&self) -> String {
        self.paths.command()
    }
}
